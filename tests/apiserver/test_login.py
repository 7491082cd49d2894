"""Login by browser: begun on one node, finished on another, once; a logout that holds everywhere."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from yarl import URL

from apiserver.errors import ApiError
from apiserver.login import State, opened, require_destination, sealed, with_query
from apiserver.settings import Login, TestUser
from tests.support.api import (
    Client,
    Processes,
    api_database,
    api_template,
    client_of,
    processes,
    root,
    running,
    settings,
)  # fmt: skip
from tests.support.identity import Provider, provider
from tests.support.postgres import postgres_server
from tests.support.programs import need

__all__ = ["api_database", "api_template", "postgres_server", "processes", "root"]
WORKBENCH = "https://workbench.example/"
FAKETIME = str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), ""))
CLAIMS = {"sub": "ada", "email": "Ada@Example.org", "email_verified": True, "given_name": "Ada", "family_name": "L"}


@pytest.fixture
async def site(processes: Processes) -> AsyncIterator[tuple[Provider, list[Client]]]:
    """Three nodes, the second of which has a clock that is an hour slow, and a provider."""
    need("faketime")
    async with provider() as identity:
        processes.config["login"] = {
            "issuer": identity.issuer, "client_id": "arv", "client_secret": identity.secret,
            "trusted_clients": [WORKBENCH],
        }  # fmt: skip
        slow = {"LD_PRELOAD": FAKETIME, "FAKETIME": "-1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        nodes = [processes.launch(env=env) for env in ({}, slow, {})]
        for node in nodes:
            await asyncio.to_thread(node.await_ready)
        async with client_of(*(node.base for node in nodes)) as clients:
            identity.claims = dict(CLAIMS)
            yield identity, clients


async def _page(client: Client, path: str, cookie: str = "") -> tuple[int, str, str, str]:
    """Return status, Location, the login cookie that was set, and the body."""
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(cookie_jar=jar) as http:
        headers = {"Cookie": f"arv_login={cookie}"} if cookie else {}
        url = URL(client.base + path, encoded=True)
        async with http.get(url, allow_redirects=False, headers=headers) as response:
            found = response.cookies.get("arv_login")
            return (
                response.status, response.headers.get("Location", ""), found.value if found else "",
                await response.text(),
            )  # fmt: skip


async def _begin(client: Client) -> tuple[str, str]:
    """Begin a login; return its state and cookie."""
    status, location, cookie, text = await _page(client, f"/login?return_to={WORKBENCH}%3Fpage=1")
    assert status == 303, text
    query = parse_qs(urlsplit(location).query)
    assert query["redirect_uri"] == ["https://api.test.example/login"]
    return query["state"][0], cookie


def _token(location: str) -> str:
    assert location.startswith(f"{WORKBENCH}?page=1&api_token=v2/")
    return parse_qs(urlsplit(location).query)["api_token"][0]


@pytest.mark.pg
@pytest.mark.e2e
async def test_a_login_begun_on_one_node_ends_on_another_once_whatever_their_clocks_say(
    site: tuple[Provider, list[Client]],
) -> None:
    identity, nodes = site
    uuids = set()
    for turn in range(3):
        state, cookie = await _begin(nodes[turn])
        path = f"/login?state={state}&code={identity.code()}"
        status, location, _, text = await _page(nodes[(turn + 1) % 3], path, cookie)
        assert status == 303, text
        user = await nodes[turn].with_token(_token(location)).get("users/current")
        assert (user["email"], user["full_name"], user["is_active"]) == ("Ada@Example.org", "Ada L", False)
        uuids.add(user["uuid"])
        # The same state with another good code, on the third node.
        again = f"/login?state={state}&code={identity.code()}"
        status, _, _, text = await _page(nodes[(turn + 2) % 3], again, cookie)
        assert (status, "finished before" in text) == (400, True)
    assert len(uuids) == 1


@pytest.mark.pg
@pytest.mark.e2e
async def test_one_login_sent_to_all_nodes_at_once_gives_one_token(site: tuple[Provider, list[Client]]) -> None:
    identity, nodes = site
    state, cookie = await _begin(nodes[0])
    answers = await asyncio.gather(*(
        _page(nodes[n % 3], f"/login?state={state}&code={identity.code()}", cookie) for n in range(6)
    ))  # fmt: skip
    assert sorted(status for status, *_ in answers) == [303, 400, 400, 400, 400, 400]


@pytest.mark.pg
@pytest.mark.e2e
async def test_a_logout_on_one_node_ends_the_token_on_all(site: tuple[Provider, list[Client]]) -> None:
    identity, nodes = site
    state, cookie = await _begin(nodes[0])
    _, location, _, _ = await _page(nodes[1], f"/login?state={state}&code={identity.code()}", cookie)
    token = _token(location)
    assert {(await node.with_token(token).call("GET", "users/current")).status for node in nodes} == {200}
    status, location, _, _ = await _page(nodes[2], f"/logout?api_token={token}&return_to={WORKBENCH}")
    assert (status, location) == (303, WORKBENCH)
    assert {(await node.with_token(token).call("GET", "users/current")).status for node in nodes} == {401}
    assert (await _page(nodes[0], f"/logout?api_token={token}"))[0] == 303


@pytest.mark.pg
@pytest.mark.e2e
async def test_what_is_no_login_of_this_browser_is_refused(site: tuple[Provider, list[Client]]) -> None:
    identity, (node, *_) = site
    state, cookie = await _begin(node)
    for path, sent, status in (
        (f"/login?state={state}&code={identity.code()}", "", 400),
        (f"/login?state={state}&code={identity.code()}", "another", 400),
        (f"/login?state=x{state}&code={identity.code()}", cookie, 400),
        (f"/login?state={state}&code=nosuch", cookie, 403),
        ("/login?code=x", cookie, 400),
        ("/login?error=access_denied", cookie, 403),
        ("/login?return_to=https://evil.example/", "", 400),
        ("/logout?return_to=https://evil.example/", "", 400),
    ):
        found, location, _, text = await _page(node, path, sent)
        assert (found, location) == (status, ""), (path, text)
        assert "token=" not in text
    identity.claims["email_verified"] = False
    assert (await _page(node, f"/login?state={state}&code={identity.code()}", cookie))[0] == 403


KEY = "k" * 32


@pytest.mark.parametrize("change", [0, 5, -1])
def test_a_changed_state_is_not_opened(change: int) -> None:
    text = sealed(State("nonce", 1, "https://a.example/"), KEY)
    assert opened(text, KEY) == State("nonce", 1, "https://a.example/")
    letters = list(text)
    letters[change] = "A" if letters[change] != "A" else "B"
    for wrong, key in (("".join(letters), KEY), (text, KEY + "k")):
        with pytest.raises(ApiError):
            opened(wrong, key)
    forged = base64.urlsafe_b64encode(json.dumps(["n", 1, "https://a.example/"]).encode()).decode()
    with pytest.raises(ApiError):
        opened(forged + ".", KEY)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://workbench.example/x?y=1", True),
        ("https://workbench.example:443/", True),
        ("https://api.test.example/", True),
        ("http://workbench.example/", False),
        ("https://workbench.example:444/", False),
        ("https://workbench.example@evil.example/", False),
        ("https://evil.example/#https://workbench.example/", False),
        ("https://workbench.example.evil.example/", False),
        ("//evil.example/", False),
        ("javascript:alert(1)", False),
        ("https://workbench.example\\@evil.example/", False),
        ("https://workbench.example/ x", False),
        ("https://[", False),
    ],
)
def test_a_token_goes_to_trusted_sites_only(url: str, allowed: bool) -> None:
    configured = settings("", login=Login(trusted_clients=(WORKBENCH,)))
    if allowed:
        assert require_destination(url, configured) == url
    else:
        with pytest.raises(ApiError):
            require_destination(url, configured)


def test_a_query_is_added_to_a_url_that_has_one() -> None:
    assert with_query("https://a.example/p?x=1#f", {"api_token": "v2/a/b"}) == (
        "https://a.example/p?x=1&api_token=v2/a/b#f"
    )


async def test_a_name_and_a_password_of_the_configuration_give_a_token(api_database: str) -> None:
    known = Login(
        test_users=(TestUser("alice", "alice@example.org", "secret é"), TestUser("bob", "bob@example.org", ""))
    )
    async with running(settings(api_database, login=known)) as base, aiohttp.ClientSession() as http:
        nobody = Client(base, http, None)
        for wrong in (
            {"username": "alice", "password": "secret"}, {"username": "alice"}, {"username": "bob", "password": ""},
            {"password": "secret é"}, {"username": ["alice"], "password": "secret é"},
        ):  # fmt: skip
            refused = await nobody.call("POST", "users/authenticate", wrong)
            assert (refused.status, "Authentication failure" in refused.errors) == (401, True), wrong
        good = {"username": "alice", "password": "secret é"}
        first, second = [await nobody.post("users/authenticate", good) for _ in range(2)]
        assert first["api_token"] != second["api_token"]
        tokens = [f"v2/{made['uuid']}/{made['api_token']}" for made in (first, second)]
        users = [await nobody.with_token(token).get("users/current") for token in tokens]
        assert users[0] == users[1]
        assert users[0]["email"] == "alice@example.org"
        shown = (await nobody.get("config"))["Login"]
        assert (shown["Test"], shown["PAM"]) == ({"Enable": True}, {"Enable": False})


async def test_without_users_in_the_configuration_there_is_no_login_by_password(root: Client) -> None:
    answer = await root.call("POST", "users/authenticate", {"username": "a", "password": "b"})
    assert (answer.status, "Login.Test" in answer.errors) == (404, True)
