"""Who may do what: tokens, roles, Host and Origin over TCP; the peer's name on the Unix socket."""

import asyncio
import getpass
import os
from typing import Any

import aiohttp
import pytest

from balancer.control.admin.access import Asked, Caller, Role, Token, host_name, tcp_caller
from balancer.control.admin.problem import ProblemError
from tests.control.harness import nodes, rig, until
from tests.support.ports import free_port

TOKENS = (
    Token("eye", Role.VIEWER, b"viewer-token"),
    Token("hand", Role.OPERATOR, b"operator-token"),
    Token("head", Role.ADMIN, b"admin-token"),
)


def asked(**given: Any) -> Asked:
    usual = {
        "host": "127.0.0.1:8081",
        "origin": "",
        "fetch_site": "",
        "authorization": "",
        "is_mutation": False,
        "is_loopback": True,
    }
    return Asked(**{**usual, **given})


def test_a_token_gives_its_role() -> None:
    for token in TOKENS:
        found = tcp_caller(asked(authorization=f"Bearer {token.secret.decode()}"), TOKENS, ())
        assert found == Caller(token.name, token.role)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic viewer-token"}, 401),
        ({"authorization": "Bearer admin-token", "host": "evil.example"}, 421),
        ({"authorization": "Bearer admin-token", "host": "evil.example:8081"}, 421),
        ({"authorization": "Bearer admin-token", "host": ""}, 421),
        ({"authorization": "Bearer admin-token", "is_mutation": True, "origin": "http://evil.example"}, 403),
        ({"authorization": "Bearer admin-token", "is_mutation": True, "origin": "null"}, 403),
        ({"authorization": "Bearer admin-token", "is_mutation": True, "fetch_site": "cross-site"}, 403),
    ],
)
def test_what_is_refused(given: dict[str, Any], status: int) -> None:
    with pytest.raises(ProblemError) as caught:
        tcp_caller(asked(**given), TOKENS, ())
    assert caught.value.status == status
    assert "token" not in caught.value.why


def test_a_browser_on_our_own_page_and_a_known_name_are_let_in() -> None:
    found = tcp_caller(
        asked(
            authorization="Bearer admin-token",
            host="lb1.example:8081",
            origin="http://lb1.example:8081",
            is_mutation=True,
        ),
        TOKENS,
        ("lb1.example",),
    )
    assert found.role is Role.ADMIN


def test_without_tokens_only_this_machine_may_look() -> None:
    assert tcp_caller(asked(), (), ()).role is Role.VIEWER
    for given in ({"is_mutation": True}, {"is_loopback": False}):
        with pytest.raises(ProblemError) as caught:
            tcp_caller(asked(**given), (), ())
        assert caught.value.status == 403


def test_host_names_lose_port_and_case() -> None:
    assert [host_name(text) for text in ("LB1.example:80", "[::1]:80", "::1", "a]b", "")] == [
        "lb1.example",
        "::1",
        "",
        "",
        "",
    ]


async def test_roles_hold_over_tcp_and_tokens_reach_no_answer() -> None:
    port = free_port()
    async with nodes("api1", "api2") as fakes, rig(fakes, start=False) as control:
        tokens = []
        for token in TOKENS:
            file = control.folder / token.name
            file.write_bytes(token.secret + b"\n")
            file.chmod(0o600)
            tokens.append({"name": token.name, "role": token.role.name.lower(), "file": str(file)})
        control.config["admin"] |= {"listen": f"127.0.0.1:{port}", "tokens": tokens}
        control.write_config()
        await control.start()
        await control.until_states(api1="healthy", api2="healthy")

        async def call(session: aiohttp.ClientSession, method: str, path: str, secret: bytes) -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {secret.decode()}"} if secret else {}
            url = f"http://127.0.0.1:{port}{path}"
            async with session.request(method, url, headers=headers, json={} if method == "POST" else None) as response:
                return response.status, await response.json(content_type=None)

        async with aiohttp.ClientSession() as session:
            for secret, expected in (
                (b"", (401, 401, 401)),
                (b"viewer-token", (200, 403, 403)),
                (b"operator-token", (200, 200, 403)),
                (b"admin-token", (200, 200, 200)),
            ):
                got = [
                    (await call(session, "GET", "/v1/status", secret))[0],
                    (await call(session, "POST", "/v1/nodes/api1/undrain", secret))[0],
                    (await call(session, "POST", "/v1/config/reload", secret))[0],
                ]
                assert tuple(got) == expected, secret
            assert (await call(session, "GET", "/livez", b""))[0] == 200
            assert (await call(session, "POST", "/v1/nodes/api1/drain", b"operator-token"))[0] == 200
            _, document = await call(session, "GET", "/v1/status", b"viewer-token")
            assert document["intents"][0]["who"] == "hand"
            everything = str(document) + str(await control.events())
        assert not any(token.secret.decode() in everything for token in TOKENS)


async def test_fields_and_bodies_of_any_bytes_are_answered_by_what_is_wrong_with_them() -> None:
    port = free_port()
    async with nodes("api1") as fakes, rig(fakes, start=False) as control:
        file = control.folder / "head"
        file.write_bytes(b"admin-token\n")
        file.chmod(0o600)
        token = {"name": "head", "role": "admin", "file": str(file)}
        control.config["admin"] |= {"listen": f"127.0.0.1:{port}", "tokens": [token]}
        control.write_config()
        await control.start()

        async def status(head: bytes, body: bytes = b"") -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            fields = b"Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
            writer.write(head + b"\r\n" + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.read()
            writer.close()
            return answer.split(b" ")[1]

        good = b"Authorization: Bearer admin-token"
        assert await status(b"GET /v1/status HTTP/1.1\r\nAuthorization: Bearer \xff\xed\xa0\x80") == b"401"
        assert await status(b"GET /ui/ HTTP/1.1\r\nCookie: arv-balance-web=\xff\xed\xa0\x80") == b"303"
        assert await status(b"GET /v1/events HTTP/1.1\r\nLast-Event-ID: x\r\n" + good) == b"400"
        assert await status(b"GET /v1/events HTTP/1.1\r\nLast-Event-ID: 1\r\n" + good) == b"200"
        drain = b"POST /v1/nodes/api1/drain HTTP/1.1\r\n" + good
        for body in (b"[" * 100_000, b'{"for": 1' + b"0" * 4000 + b"}", b'{"for": 1e999}', b"[]", b"\xff"):
            assert await status(drain, body) == b"400", body[:20]


async def test_monitors_come_in_with_the_clusters_management_token_and_see_no_more() -> None:
    port = free_port()
    async with nodes("api1") as fakes, rig(fakes, start=False) as control:
        token = control.folder / "management-token"
        token.write_text("management-secret")
        token.chmod(0o600)
        fakes[0].token = "management-secret"
        control.config["health"]["token"] = {"file": str(token)}
        control.config["admin"] |= {"listen": f"127.0.0.1:{port}"}
        control.write_config()
        await control.start()
        await control.until_states(api1="healthy")
        headers = {"Authorization": "Bearer management-secret"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
            async with session.get("/_health/ping") as response:
                assert await response.json() == {"health": "OK"}
            async with session.get("/metrics") as response:
                assert "arv_balance_node_up" in await response.text()
            async with session.post("/v1/nodes/api1/drain", json={}) as response:
                assert response.status == 403
            await fakes[0].stop()
            await control.until_states(api1="unhealthy")
            async with session.get("/_health/ping") as response:
                assert (response.status, (await response.json())["health"]) == (200, "ERROR")


async def test_the_admin_addresses_follow_the_configuration() -> None:
    port = free_port()
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        control.config["admin"] |= {"listen": f"127.0.0.1:{port}"}
        control.write_config()
        await control.post("/v1/config/reload")

        async def answers() -> bool:
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"http://127.0.0.1:{port}/livez") as response,
                ):
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(answers)
        del control.config["admin"]["listen"]
        control.write_config()
        await control.post("/v1/config/reload")

        async def silent() -> bool:
            return not await answers()

        await until(silent)
        assert (await control.get("/v1/status"))["serving"] == 1


async def test_the_unix_socket_is_for_its_owner_and_group_and_names_who_asked() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        assert os.stat(control.socket).st_mode & 0o777 == 0o660  # noqa: PTH116
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api1/drain", reason="look")
        assert (await control.get("/v1/status"))["intents"][0]["who"] == getpass.getuser()
        oversize, _ = await control.call("POST", "/v1/nodes/api1/weight", {"weight": 1, "reason": "x" * 600})
        assert oversize == 400
