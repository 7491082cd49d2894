"""Pages without a browser: who comes in, what every answer carries, what forms may do."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from balancer import scoreboard as sb
from balancer.control.admin import sockets
from balancer.control.admin.access import Role
from balancer.control.admin.problem import ProblemError
from balancer.control.dashboard.dashboard import own_path
from balancer.control.dashboard.live import MAX_VIEWERS, Broadcast, Viewer, message
from balancer.control.dashboard.scenes import Scene
from tests.control.harness import Rig, nodes, rig, until
from tests.support.ports import free_port

BUSY = sb.node_cell(0, 0) + sb.N_IN_FLIGHT
SECRETS = {"viewer": "viewer-token", "operator": "operator-token", "admin": "admin-token"}


@dataclass
class Browser:
    """What a browser does, without one: keeps cookies, sends its origin with forms, follows no redirect."""

    session: aiohttp.ClientSession
    base: str

    async def get(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        async with self.session.get(self.base + path, headers=headers, allow_redirects=False) as response:
            return response.status, await response.text(), dict(response.headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> tuple[int, str, dict[str, str]]:
        sent = {"Origin": self.base, "Sec-Fetch-Site": "same-origin"} | headers
        async with self.session.post(self.base + path, data=form, headers=sent, allow_redirects=False) as response:
            return response.status, await response.text(), dict(response.headers)

    async def log_in(self, role: str) -> None:
        status, _, headers = await self.post("/ui/login", {"secret": SECRETS[role], "next": "/ui/"})
        assert (status, headers["Location"]) == (303, "/ui/")

    async def submit(self, path: str, **fields: str) -> tuple[int, str, dict[str, str]]:
        """Load the page with the form, fill it in, send it."""
        status, page, _ = await self.get(path)
        assert status == 200, page
        return await self.post(path, {"form_token": token_of(page), **fields})


def token_of(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return found[1]


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


@asynccontextmanager
async def site(*names: str, tokens: bool = True, **config: Any) -> AsyncIterator[tuple[Browser, Rig]]:
    port = free_port()
    async with nodes(*names) as fakes, rig(fakes, start=False, **config) as control:
        listed = []
        for role, secret in SECRETS.items() if tokens else ():
            file = control.folder / role
            file.write_text(secret)
            file.chmod(0o600)
            listed.append({"name": f"the-{role}", "role": role, "file": str(file)})
        control.config["admin"] |= {"listen": f"127.0.0.1:{port}", "tokens": listed}
        control.write_config()
        await control.start()
        await control.until_states(**dict.fromkeys(names, "healthy"))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            yield Browser(session, f"http://127.0.0.1:{port}"), control


async def test_every_answer_keeps_foreign_scripts_frames_and_caches_out() -> None:
    async with site("api1") as (browser, _):
        await browser.log_in("admin")
        page = ""
        for path in ("/ui/", "/ui/login", "/ui/nodes/api1", "/ui/events", "/ui/nodes/api1/drain", "/ui/nothing"):
            _, page, headers = await browser.get(path)
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["Content-Security-Policy"]
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Cache-Control"] == "no-store"
            assert not re.search(r"<(script|style)>|\son\w+=|\sstyle=|javascript:|https?://(?!127)", page), path
        assets = re.findall(r'"(/ui/static/[^"]+)"', page)
        assert len(assets) == 3
        for asset in assets:
            status, _, headers = await browser.get(asset)
            assert status == 200
            assert "immutable" in headers["Cache-Control"]
        assert (await browser.get("/ui/static/..%2Foverview.html.j2"))[0] == 404


async def test_nobody_sees_anything_without_a_login() -> None:
    async with site("api1") as (browser, _):
        for path in ("/ui/", "/ui/nodes/api1", "/ui/events", "/ui/pause", "/ui/nothing"):
            status, page, headers = await browser.get(path)
            assert status == 303
            assert headers["Location"] == f"/ui/login?next={path}"
            assert "api1" not in page
        assert (await browser.get("/ui/live"))[0] == 401
        assert (await browser.post("/ui/nodes/api1/drain", {}))[0] == 303
        status, page, _ = await browser.post("/ui/login", {"secret": "wrong"})
        assert (status, "not known" in page) == (401, True)
        assert (await browser.get("/"))[2]["Location"] == "/ui/"


async def test_the_cookie_is_for_our_pages_alone_and_ends_with_the_session() -> None:
    async with site("api1") as (browser, control):
        _, _, headers = await browser.post("/ui/login", {"secret": SECRETS["admin"]})
        cookie = headers["Set-Cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/ui/"))
        assert "Secure" not in cookie
        _, _, headers = await browser.post("/ui/login", {"secret": SECRETS["admin"]}, Origin="https" + browser.base[4:])
        assert "Secure" in headers["Set-Cookie"]
        browser.session.cookie_jar.clear()
        await browser.log_in("admin")
        await control.kill()
        await control.start()
        status, page, _ = await browser.get("/ui/")
        assert status == 200
        kept = {item.key: item.value for item in browser.session.cookie_jar}
        assert (await browser.post("/ui/logout", {"form_token": token_of(page)}))[0] == 303
        browser.session.cookie_jar.update_cookies(kept)
        assert (await browser.get("/ui/"))[0] == 303  # the cookie itself is worth nothing any more


async def test_roles_see_and_do_what_they_may() -> None:
    async with site("api1", "api2") as (browser, control):
        await browser.log_in("viewer")
        page = (await browser.get("/ui/"))[1]
        assert "api1" in page
        assert "data-ask" not in page
        assert (await browser.get("/ui/nodes/api1/drain"))[0] == 403
        assert (await browser.post("/ui/nodes/api1/drain", {"form_token": token_of(page)}))[0] == 403
        await browser.log_in("operator")
        page = (await browser.get("/ui/nodes/api1"))[1]
        assert "/ui/nodes/api1/drain" in page
        assert "/ui/nodes/api1/remove" not in page
        assert (await browser.get("/ui/nodes/api1/remove"))[0] == 403
        await browser.log_in("admin")
        assert "/ui/nodes/api1/remove" in (await browser.get("/ui/nodes/api1"))[1]
        assert await control.states() == {"api1": "healthy", "api2": "healthy"}


async def test_a_form_acts_in_the_visitors_name_with_its_reason_and_can_be_undone() -> None:
    async with site("api1", "api2") as (browser, control):
        await browser.log_in("operator")
        ask = text_of((await browser.get("/ui/nodes/api2/drain"))[1])
        assert "1 of 2 nodes will serve; 100 % more load each." in ask
        assert "Nothing is in flight there." in ask
        assert "arv-balance nodes drain api2" in ask
        status, _, headers = await browser.submit("/ui/nodes/api2/drain", reason="disk <b>swap</b>", **{"for": "2h"})
        assert status == 303
        await control.until_states(api2="drained")
        (intent,) = (await control.get("/v1/status"))["intents"]
        assert (intent["who"], intent["reason"], bool(intent["until"])) == ("the-operator", "disk <b>swap</b>", True)
        page = (await browser.get(headers["Location"]))[1]
        assert "disk &lt;b&gt;swap" in page
        assert "<b>swap" not in page
        assert re.search(r'action="(/ui/nodes/api2/undrain)"', page)
        assert (await browser.post("/ui/nodes/api2/undrain", {"form_token": token_of(page)}))[0] == 303
        await control.until_states(api2="healthy")


async def test_a_weight_is_changed_and_set_back() -> None:
    async with site("api1", "api2") as (browser, control):
        await browser.log_in("operator")
        assert "It is 100 now, which is 50 %" in text_of((await browser.get("/ui/nodes/api1/weight"))[1])
        status, page, _ = await browser.submit("/ui/nodes/api1/weight", weight="many", reason="kept")
        assert (status, 'value="kept"' in page) == (400, True)
        _, _, headers = await browser.submit("/ui/nodes/api1/weight", weight="40")
        assert (await control.get("/v1/nodes/api1"))["weight"] == 40
        page = (await browser.get(headers["Location"]))[1]
        assert 'name="weight" value="100"' in page


async def test_the_last_node_is_taken_out_only_by_who_types_the_clusters_name() -> None:
    async with site("api1") as (browser, control):
        await browser.log_in("operator")
        ask = text_of((await browser.get("/ui/nodes/api1/drain"))[1])
        assert "api1 is the last node that serves" in ask
        assert "0 of 1 nodes would serve, balance.min_serving is 1" in ask
        assert (await browser.submit("/ui/nodes/api1/drain"))[0] == 409
        assert (await browser.submit("/ui/nodes/api1/drain", force="1", typed="xother"))[0] == 409
        assert (await browser.submit("/ui/nodes/api1/drain", force="1", typed="xtest"))[0] == 303
        await control.until_states(api1="drained")


async def test_a_pause_needs_the_clusters_name_and_says_how_far_it_is() -> None:
    async with site("api1") as (browser, control):
        await browser.log_in("operator")
        assert (await browser.submit("/ui/pause", reason="no name"))[0] == 409
        assert not (await control.get("/v1/pause"))["paused"]
        control.board.cells[BUSY] = 3
        status, _, headers = await browser.submit("/ui/pause", reason="failover", typed="xtest")
        assert status == 303
        page = text_of((await browser.get(headers["Location"]))[1])
        assert "Waiting for 3 requests" in page
        assert "Undo" in page
        control.board.cells[BUSY] = 0

        async def complete() -> bool:
            return bool((await control.get("/v1/pause"))["complete"])

        await until(complete)
        assert "Nothing is in flight." in text_of((await browser.get("/ui/"))[1])
        assert "traffic is paused already" in text_of((await browser.get("/ui/pause"))[1])
        assert (await browser.submit("/ui/resume"))[0] == 303
        assert not (await control.get("/v1/pause"))["paused"]


async def test_a_pause_that_gives_up_is_told_by_an_event() -> None:
    async with site("api1", drain={"timeout": "2s"}) as (browser, control):
        await browser.log_in("operator")
        control.board.cells[BUSY] = 1
        assert (await browser.submit("/ui/pause", typed="xtest"))[0] == 303

        async def undone() -> bool:
            return any(event["kind"] == "pause-undone" for event in await control.events())

        await until(undone)
        assert "the pause was undone" in (await browser.get("/ui/events"))[1]


async def test_a_designation_is_moved_by_hand() -> None:
    async with site("api1", "api2", designated={"dns": {"order": ["api1", "api2"]}}) as (browser, control):
        await browser.log_in("operator")

        async def holder() -> str:
            return str((await control.get("/v1/designations"))["designations"][0]["node"])

        async def is_first() -> bool:
            return await holder() == "api1"

        await until(is_first)
        assert "api1 is the designated node for dns" in text_of((await browser.get("/ui/nodes/api1/drain"))[1])
        page = (await browser.get("/ui/designations/dns/designate"))[1]
        assert "api1 holds it, epoch 1" in text_of(page)
        assert (await browser.submit("/ui/designations/dns/designate", node="api2", reason="try it"))[0] == 303
        assert await holder() == "api2"
        assert (await browser.get("/ui/designations/mail/designate"))[0] == 404


FOREIGN = (
    ({"Host": "evil.example"}, 421),
    ({"Host": "evil.example:8081"}, 421),
    ({"Host": ""}, 421),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
)


async def test_other_sites_neither_read_nor_act() -> None:
    async with site("api1", "api2") as (browser, control):
        await browser.log_in("admin")
        token = token_of((await browser.get("/ui/nodes/api2/drain"))[1])
        for headers, status in FOREIGN:
            assert (await browser.post("/ui/nodes/api2/drain", {"form_token": token}, **headers))[0] == status, headers
            assert (await browser.post("/ui/login", {"secret": SECRETS["admin"]}, **headers))[0] == status, headers
            if "Host" in headers:
                got, page, _ = await browser.get("/ui/", **headers)
                assert (got, "api1" in page) == (421, False)
        assert await control.states() == {"api1": "healthy", "api2": "healthy"}
        assert (await browser.post("/ui/nodes/api2/drain", {"form_token": token}))[0] == 303


async def test_a_form_of_another_session_is_refused() -> None:
    async with site("api1", "api2") as (browser, control):
        await browser.log_in("admin")
        token = token_of((await browser.get("/ui/nodes/api2/drain"))[1])
        await browser.log_in("admin")
        for sent in ({"form_token": token}, {"form_token": ""}, {}, {"form_token": "é"}):
            assert (await browser.post("/ui/nodes/api2/drain", sent))[0] == 403
        assert await control.states() == {"api1": "healthy", "api2": "healthy"}


async def test_without_tokens_this_machine_looks_and_nobody_acts() -> None:
    async with site("api1", tokens=False) as (browser, control):
        status, page, _ = await browser.get("/ui/")
        assert status == 200
        assert "data-ask" not in page
        assert (await browser.get("/ui/nodes/api1/drain"))[0] == 403
        answer = await control.post("/v1/dashboard/login")
        assert (answer["role"], answer["addresses"]) == ("admin", [f"{browser.base}/ui/"])
        assert (await browser.post("/ui/login", {"secret": answer["code"]}))[0] == 303
        assert "data-ask" in (await browser.get("/ui/"))[1]


async def test_the_unix_socket_shows_the_dashboard_to_a_browser_behind_a_forwarded_port() -> None:
    async with (
        site("api1", "api2") as (_, control),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=control.socket)) as session,
    ):
        browser = Browser(session, "http://localhost:8081")
        assert (await browser.submit("/ui/nodes/api2/drain", reason="by ssh"))[0] == 303
        await control.until_states(api2="drained")
        assert (await browser.get("/ui/", Host="evil.example"))[0] == 421
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}
        async with session.post("http://localhost/v1/nodes/api2/undrain", json={}, headers=evil) as response:
            assert response.status == 421
        async with session.post("http://localhost/v1/nodes/api2/undrain", json={}) as response:
            assert response.status == 200


async def test_wrong_tokens_are_told_and_slowed_down_and_reach_no_log() -> None:
    async with site("api1") as (browser, control):
        for _ in range(10):
            assert (await browser.post("/ui/login", {"secret": "guessed-token"}))[0] == 401
        assert (await browser.post("/ui/login", {"secret": SECRETS["admin"]}))[0] == 429
        events = await control.events()
        assert sum(event["kind"] == "login-refused" for event in events) == 10
        assert "guessed-token" not in str(events)


async def test_the_stream_sends_everything_first_and_then_what_changed() -> None:
    async with site("api1", "api2") as (browser, control):
        await browser.log_in("viewer")
        async with browser.session.get(f"{browser.base}/ui/live") as response:
            assert response.content_type == "text/event-stream"
            stream = response.content
            assert await stream.readline() == b"retry: 1000\n"
            seen = ""
            while "zone" not in seen or "events" not in seen:
                seen += (await stream.readline()).decode()
            assert "form_token" not in seen
            await control.post("/v1/nodes/api2/drain", reason="live")
            while "live" not in seen or "drained" not in seen:
                seen += (await stream.readline()).decode()


async def test_a_stream_ends_with_the_session_that_opened_it() -> None:
    async with site("api1") as (browser, _):
        await browser.log_in("viewer")
        page = (await browser.get("/ui/"))[1]
        async with browser.session.get(f"{browser.base}/ui/live") as response:
            await response.content.readline()
            await browser.post("/ui/logout", {"form_token": token_of(page)})
            while await response.content.readline():
                pass
            assert response.content.at_eof()


async def test_a_browser_that_reads_slowly_gets_the_newest_state_and_keeps_nothing_back() -> None:
    viewer = Viewer()
    for number in range(1000):
        viewer.offer({"head": f"{number}", f"zone-{number % 3}": "x"})
    assert await viewer.take() == {"head": "999", "zone-0": "x", "zone-1": "x", "zone-2": "x"}


async def test_there_is_a_most_of_viewers() -> None:
    async def nothing(_scene: Scene) -> dict[str, str]:
        return {}

    broadcast, scene = Broadcast(nothing), Scene(Role.VIEWER)
    contexts = [broadcast.watch(scene) for _ in range(MAX_VIEWERS)]
    for context in contexts:
        await context.__aenter__()
    with pytest.raises(ProblemError) as caught:
        await broadcast.watch(scene).__aenter__()
    assert caught.value.status == 503
    for context in contexts:
        await context.__aexit__(None, None, None)
    assert broadcast.viewers == 0


def test_an_event_of_the_stream_is_one_line_whatever_the_html_holds() -> None:
    assert message({"a": "x\n\ndata: y"}).count(b"\n") == 3


@pytest.mark.parametrize(
    "path", ["", "http://evil.example/", "//evil.example", "/ui//evil.example", "/v1/x", "/ui/\\e"]
)
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert own_path(path) == "/ui/"


def test_addresses_for_browsers() -> None:
    assert sockets.reached_by("127.0.0.1:8081", ()) == ["127.0.0.1:8081"]
    assert sockets.reached_by("0.0.0.0:8081", ("lb1.example",)) == ["lb1.example:8081"]
    assert sockets.reached_by("unix:/x", ()) == sockets.reached_by("", ()) == []
