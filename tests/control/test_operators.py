"""What operators change: kept, ended by itself, refused on a full disk, and not lost between two of them."""

import asyncio
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from balancer import scoreboard as sb
from balancer.control.statefile import decode
from tests.control.harness import Rig, nodes, rig, until
from tests.support.programs import lacking


async def test_an_intent_for_a_while_ends_by_itself() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api2/drain", **{"for": "2s"})
        await control.until_states(api2="drained")
        await control.until_states(api2="healthy")
        await until(lambda: told(control, "intent-ended"))
        assert (await control.get("/v1/status"))["intents"] == []


async def test_an_intent_that_ended_while_control_was_down_is_gone_when_it_starts() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api2/drain", **{"for": 0.3})
        await control.kill()
        await asyncio.sleep(0.4)
        await control.start()
        await control.until_states(api2="healthy")


async def test_two_operators_at_once_cannot_take_the_last_nodes_together() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        answers = await asyncio.gather(
            *(control.call("POST", f"/v1/nodes/{name}/drain", {}) for name in ("api1", "api2"))
        )
        assert sorted(status for status, _ in answers) == [200, 409]
        refused = next(document for status, document in answers if status == 409)
        assert refused["try"] == "the same with --force"


async def test_two_operators_at_once_do_not_pause_or_add_twice() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        for path, body in (("/v1/pause", {}), ("/v1/nodes", {"url": "http://127.0.0.1:9", "name": "extra"})):
            answers = await asyncio.gather(*(control.call("POST", path, body) for _ in range(2)))
            assert sorted(status for status, _ in answers) == [200, 409], answers


async def test_many_changes_at_once_all_stand() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await asyncio.gather(
            control.post("/v1/nodes/api1/weight", weight=11),
            control.post("/v1/nodes/api2/weight", weight=22),
            control.post("/v1/nodes", url="http://127.0.0.1:9", name="extra"),
            control.post("/v1/nodes/api1/drain"),
        )
        kept = decode((control.state_dir / "intents.json").read_bytes())
        assert sorted((item["kind"], item["node"]) for item in kept["intents"]) == [
            ("add", "extra"),
            ("drain", "api1"),
            ("weight", "api1"),
            ("weight", "api2"),
        ]


async def test_an_intent_holds_no_address_that_the_file_holds() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes[:1]) as control:
        await control.until_states(api1="healthy")
        await control.post("/v1/nodes", url=fakes[1].url, name="api2")
        await control.until_states(api2="healthy")
        await control.post("/v1/nodes/api1/drain", reason="x")
        assert fakes[0].url not in (control.state_dir / "intents.json").read_text()
        control.config["nodes"]["api2"] = {"url": fakes[1].url}
        control.write_config()
        await control.post("/v1/config/reload")
        assert fakes[1].url not in (control.state_dir / "intents.json").read_text()
        assert (await control.get("/v1/nodes/api2"))["origin"] == "file"
        await control.until_states(api2="healthy")


async def test_a_removed_node_of_the_file_stays_away_until_it_is_forgotten() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api2/remove", reason="gone")
        await until(lambda: gone(control, "api2"))
        await control.kill()
        await control.start()
        await until(lambda: gone(control, "api2"))
        await control.post("/v1/nodes/api2/forget")
        await control.until_states(api2="healthy")


async def told(control: Rig, kind: str) -> bool:
    return any(event["kind"] == kind for event in await control.events())


async def gone(control: Rig, name: str) -> bool:
    return name not in await control.states()


async def mounts(*command: str) -> bool:
    return await (await asyncio.create_subprocess_exec(*command)).wait() == 0


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 512)


async def test_a_full_disk_refuses_the_action_and_service_goes_on() -> None:
    if os.geteuid() != 0:
        lacking("a full disk is a small tmpfs here, which only root can mount")
    async with nodes("api1", "api2") as fakes, rig(fakes, start=False) as control:
        small = control.folder / "small"
        small.mkdir()
        if not await mounts("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)):
            lacking("this machine does not let us mount a tmpfs")
        try:
            (small / "run").mkdir()
            control.state = small
            await control.start()
            await control.until_states(api1="healthy", api2="healthy")
            fill(small / "filler")
            status, problem = await control.call("POST", "/v1/nodes/api2/drain", {})
            assert (status, problem["what"]) == (507, "nothing was changed: the state cannot be written")
            assert (await control.states()) == {"api1": "healthy", "api2": "healthy"}
            (small / "filler").unlink()
            await control.post("/v1/nodes/api2/drain")
            await control.kill()
        finally:
            assert await mounts("umount", "-l", str(small))


async def test_an_unreadable_intents_file_is_kept_and_said_loudly() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api2/drain")
        await control.kill()
        path = control.state_dir / "intents.json"
        path.write_bytes(path.read_bytes()[:-30])
        await control.start()
        await control.until_states(api1="healthy", api2="healthy")
        (event,) = [event for event in await control.events() if event["kind"] == "intents-unreadable"]
        assert event["level"] == "error"
        assert list(control.state_dir.glob("intents.json.bad-*"))


async def test_kill_9_right_after_an_acknowledged_action_keeps_it() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        for weight in (7, 8):
            await control.post("/v1/nodes/api1/weight", weight=weight)
            await control.kill()
            await control.start()
            assert (await control.get("/v1/nodes/api1"))["weight"] == weight


async def test_a_pause_waits_for_what_is_under_way_and_survives_a_restart() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        busy = sb.node_cell(0, 0) + sb.N_IN_FLIGHT
        control.board.cells[busy] = 1
        pausing = asyncio.ensure_future(control.post("/v1/pause", reason="failover", **{"for": 60}))
        await until(lambda: control.workers[0].snapshot and control.workers[0].snapshot.pause)
        assert not pausing.done()
        control.board.cells[busy] = 0
        answer = await pausing
        assert (answer["paused"], answer["complete"]) == (True, True)
        await control.kill()
        await control.start()
        status = await control.get("/v1/status")
        assert (status["verdict"], status["pause"]["reason"]) == ("paused", "failover")
        snapshot = control.workers[0].snapshot
        assert snapshot is not None
        assert snapshot.pause is not None
        again, _ = await control.call("POST", "/v1/pause", {})
        assert again == 409
        resumed = await control.post("/v1/resume", rate=25)
        assert resumed["changed"] is True
        assert control.workers[0].snapshot is not None
        assert control.workers[0].snapshot.pause is None
        assert control.workers[0].snapshot.park.release_per_s == 25


async def test_a_pause_that_does_not_complete_names_what_is_under_way_and_undoes_itself() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        control.board.cells[sb.node_cell(0, 0) + sb.N_IN_FLIGHT] = 1
        control.workers[0].exchanges = [
            {"request_id": "req-1", "method": "GET", "path": "/x", "node": "api1", "age_s": 5, "state": "node"}
        ]
        status, problem = await control.call("POST", "/v1/pause", {"wait": 0.2})
        assert (status, problem["exchanges"][0]["request_id"]) == (504, "req-1")
        assert (await control.get("/v1/pause"))["paused"] is False
        snapshot = control.workers[0].snapshot
        assert snapshot is not None
        assert snapshot.pause is None


async def test_a_pause_tells_workers_its_end_on_their_own_clock() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        before = datetime.now(UTC)
        await control.post("/v1/pause", **{"for": "90s"})
        pause = (await control.get("/v1/pause"))["pause"]
        until_ = datetime.fromisoformat(pause["until"])
        assert timedelta(seconds=89) < until_ - before < timedelta(seconds=100)
        snapshot = control.workers[0].snapshot
        assert snapshot is not None
        assert snapshot.pause is not None
        left_s = snapshot.pause.until - asyncio.get_running_loop().time()
        assert 80 < left_s <= 90
