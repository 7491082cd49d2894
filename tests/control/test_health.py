"""Sick, hung, refusing, flapping and silent nodes, as a running control process judges them."""

import asyncio
import os
import signal

from balancer import scoreboard as sb
from balancer.control.probe import Expectation, judge
from balancer.model import Health
from tests.control.harness import FakeNode, nodes, rig, until


async def reason(control: object, name: str) -> str:
    from tests.control.harness import Rig

    assert isinstance(control, Rig)
    return str((await control.get(f"/v1/nodes/{name}"))["check"]["text"])


async def test_a_hung_node_is_unhealthy_after_its_deadline() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        fakes[1].hang = True
        await control.until_states(api1="healthy", api2="unhealthy")
        assert await reason(control, "api2") == "no answer within 0.4 s"


async def test_a_stopped_node_is_refused_and_comes_back_by_itself() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        port = fakes[1].port
        await fakes[1].stop()
        await control.until_states(api2="unhealthy")
        assert await reason(control, "api2") == "connection refused"
        assert control.board.cells[sb.control_cell(1) + sb.C_HEALTHY_SINCE_NS] == 0
        await fakes[1].start(port)
        await control.until_states(api2="healthy")
        changes = [event["text"] for event in await control.events() if event["kind"] == "node-health"]
        assert "api2 is unhealthy (was healthy): connection refused" in changes
        assert changes[-1] == "api2 is healthy (was unhealthy)"


async def test_one_bad_check_between_good_ones_changes_nothing() -> None:
    health = {"path": "/_health/ping", "interval": "700ms", "fast_interval": "50ms", "timeout": "700ms", "fall": 3}
    async with nodes("api1") as fakes, rig(fakes, health=health) as control:
        await control.until_states(api1="healthy")
        bad, good = {"health": "ERROR"}, {"health": "OK"}
        fakes[0].script.extend([bad, good, good, bad, bad, good, good])
        await until(lambda: not fakes[0].script)
        assert [event["kind"] for event in await control.events()].count("node-health") == 1


async def test_a_refused_connection_of_a_worker_makes_control_look_at_once() -> None:
    slow = {"path": "/_health/ping", "interval": "1h", "fast_interval": "1h", "timeout": "1s", "rise": 1, "fall": 1}
    async with nodes("api1", "api2") as fakes, rig(fakes, health=slow) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await fakes[1].stop()
        await control.workers[0].say({"kind": "node-refused", "node": "api2"})
        await control.until_states(api2="unhealthy")  # an hour before its turn


async def test_workers_are_woken_when_a_verdict_changes() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        for wake in control.wakes:
            assert os.eventfd_read(wake) > 0


async def test_verdicts_are_fresh_while_control_lives_and_grow_old_when_it_is_stopped() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        assert control.process is not None
        cell = sb.control_cell(0) + sb.C_VERDICT_NS
        before = control.board.cells[cell]
        await until(lambda: control.board.cells[cell] > before)
        control.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        stopped = control.board.cells[cell]
        await asyncio.sleep(1.2)  # three intervals
        assert control.board.cells[cell] == stopped
        control.process.send_signal(signal.SIGCONT)
        await until(lambda: control.board.cells[cell] > stopped)
        assert control.board.cells[sb.control_cell(0) + sb.C_HEALTH] == Health.HEALTHY


async def test_the_token_is_sent_read_again_and_never_shown() -> None:
    async with nodes("api1") as fakes, rig(fakes, start=False) as control:
        token = control.folder / "token"
        token.write_text("first-secret\n")
        token.chmod(0o600)
        fakes[0].token = "first-secret"
        control.config["health"]["token"] = {"file": str(token)}
        control.write_config()
        await control.start()
        await control.until_states(api1="healthy")
        fakes[0].token = "second-secret"
        await control.until_states(api1="unhealthy")
        assert await reason(control, "api1") == "403: the node does not accept the token of health.token"
        token.write_text("second-secret\n")
        await control.post("/v1/config/reload")
        await control.until_states(api1="healthy")
        everything = str(await control.get("/v1/status")) + str(await control.events())
        assert "secret" not in everything


async def test_a_name_is_resolved_for_the_workers() -> None:
    async with nodes("api1") as fakes, rig(fakes, start=False) as control:
        control.config["nodes"] = {
            "api1": {"url": f"http://localhost:{fakes[0].port}"},
            "api2": {"url": "http://no.invalid"},
        }
        control.write_config()
        await control.start()
        await control.until_states(api1="healthy", api2="unhealthy")
        snapshot = control.workers[0].snapshot
        assert snapshot is not None
        assert snapshot.nodes[0].host in {"127.0.0.1", "::1"}
        assert fakes[0].seen[0]["Host"].startswith("localhost:")
        assert "does not resolve" in await reason(control, "api2")


def test_what_a_node_answers_is_explained_in_words() -> None:
    expect = Expectation(json={"health": "OK"})

    def words(status: int, body: str, *, token_sent: bool = False) -> str:
        return judge(status, body.encode(), expect, token_sent=token_sent, duration_s=0.0).text

    assert words(200, '{"health":"OK"}') == "OK"
    assert words(200, '{"health":"ERROR","error":"pq: down"}') == "answers 200, but says health=ERROR: pq: down"
    assert words(200, "<html>") == "answers 200, but its body is not JSON: <html>"
    assert words(404, '{"errors":["disabled"]}') == "404 disabled: ManagementToken is not set on the node"
    assert words(401, "") == "401: the check needs a token; set health.token"
    assert words(401, "", token_sent=True) == "401: the node does not accept the token of health.token"
    assert words(500, "boom\r\nX-Evil: 1") == "answers 500 instead of 200: boom  X-Evil: 1"
    assert len(words(500, "x" * 9999)) < 300
    text = Expectation(statuses=(200, 204), body="alive")
    assert judge(204, b"alive", text, token_sent=False, duration_s=0.0).ok
    assert not judge(204, b"dead", text, token_sent=False, duration_s=0.0).ok
    assert not judge(200, b"1", Expectation(json={"a.b": True}), token_sent=False, duration_s=0.0).ok
    assert judge(200, b'{"a":{"b":true}}', Expectation(json={"a.b": True}), token_sent=False, duration_s=0.0).ok
    assert not judge(200, b'{"a":{"b":1}}', Expectation(json={"a.b": True}), token_sent=False, duration_s=0.0).ok


async def test_a_node_of_another_version_takes_nothing_until_all_run_it() -> None:
    versions = {"path": "/version"}
    async with nodes("api1", "api2", "api3") as fakes, rig(fakes, start=False, versions=versions) as control:
        for fake in fakes:
            fake.body = {"health": "OK", "version": "3.2.1"}
        await control.start()
        await control.until_states(api1="healthy", api2="healthy", api3="healthy")
        ports = [fake.port for fake in fakes]
        for index in (0, 1, 2):
            await fakes[index].stop()
            await control.until_states(**{fakes[index].name: "unhealthy"})
            fakes[index].body = {"health": "OK", "version": "3.3.0"}
            await fakes[index].start(ports[index])
            if index < 2:
                await control.until_states(**{fakes[index].name: "mismatched"})
        await control.until_states(api1="healthy", api2="healthy", api3="healthy")
        (moved,) = [event for event in await control.events() if event["kind"] == "version-accepted"][1:]
        assert "3.3.0" in moved["text"]
        await control.kill()
        fakes[0].body = {"health": "OK", "version": "3.2.1"}  # put back while nobody looked
        await control.start()
        await control.until_states(api1="mismatched", api2="healthy", api3="healthy")


async def test_an_unreadable_version_is_unknown_and_not_another_one() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes, start=False, versions={"path": "/version"}) as control:
        fakes[0].body = {"health": "OK", "version": "3.2.1"}
        await control.start()
        await control.until_states(api1="healthy", api2="healthy")
        assert (await control.get("/v1/nodes/api2"))["version"] == ""


async def test_a_unix_node_is_checked_like_any_other() -> None:
    from aiohttp import web

    async with nodes("api1") as fakes, rig(fakes, start=False) as control:
        path = control.folder / "api2.sock"
        fake = FakeNode("api2")
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", fake._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        try:
            control.config["nodes"]["api2"] = {"url": f"unix:{path}"}
            control.write_config()
            await control.start()
            await control.until_states(api1="healthy", api2="healthy")
        finally:
            await runner.cleanup()
