"""Another configuration under running workers: checked first, answered with the difference, nothing lost."""

import asyncio

from balancer import scoreboard as sb
from balancer.model import Health
from tests.control.harness import Rig, nodes, rig, until
from tests.control.test_api import scrape


async def test_a_bad_file_changes_nothing_and_all_its_errors_are_told() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        before = await control.get("/v1/status")
        control.config |= {"balance": {"policy": "leastcon"}, "norway": 1, "queue": {"max": -1}}
        control.write_config()
        status, problem = await control.call("POST", "/v1/config/reload", {})
        assert status == 422
        assert sorted(error["path"] for error in problem["errors"]) == ["balance.policy", "norway", "queue.max"]
        assert all(error["line"] for error in problem["errors"])
        after = await control.get("/v1/status")
        assert after["generation"] == before["generation"]
        assert after["config"]["sha256"] == before["config"]["sha256"]
        assert (await scrape(control))["arv_balance_config_last_reload_successful"] == 0
        control.config = {
            key: value for key, value in control.config.items() if key not in {"balance", "norway", "queue"}
        }
        control.write_config()
        await control.post("/v1/config/reload")
        assert (await scrape(control))["arv_balance_config_last_reload_successful"] == 1


async def test_unchanged_nodes_keep_their_health_slots_and_intents() -> None:
    async with nodes("api1", "api2", "api3") as fakes, rig(fakes[:2]) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api2/weight", weight=7)
        since = control.board.cells[sb.control_cell(0) + sb.C_HEALTHY_SINCE_NS]
        control.config["nodes"] = {"api3": {"url": fakes[2].url}, **control.config["nodes"]}
        control.write_config()
        answer = await control.post("/v1/config/reload")
        (change,) = answer["changes"]
        assert change.startswith("+ nodes.api3:")
        assert fakes[2].url in change
        snapshot = control.workers[0].snapshot
        assert snapshot is not None
        assert {node.name: (node.slot, node.weight) for node in snapshot.nodes} == {
            "api1": (0, 100),
            "api2": (1, 7),
            "api3": (2, 100),
        }
        assert control.board.cells[sb.control_cell(0) + sb.C_HEALTHY_SINCE_NS] == since
        await control.until_states(api3="healthy")
        events = [event["text"] for event in await control.events() if event["kind"] == "node-health"]
        assert events == sorted(set(events), key=events.index), "no node changed twice"


async def test_sighup_reloads_and_says_when_it_is_done() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        for policy, fits in (("round_robin", True), ("leastcon", False)):
            control.config["balance"] = {"policy": policy}
            control.write_config()
            count = len(control.said("ready"))
            await control.tell({"type": "reload"})
            await until(lambda count=count: len(control.said("ready")) > count)
            assert (await control.get("/v1/config"))["last_reload"]["ok"] is fits
        snapshot = control.workers[0].snapshot
        assert snapshot is not None
        assert snapshot.balance.policy.value == "round_robin"


async def test_a_listener_that_cannot_be_opened_keeps_everything_as_it_was() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        control.refuse = [{"slot": 1, "bind": "127.0.0.1:80", "error": "Permission denied"}]
        control.config["listen"] += [{"bind": "127.0.0.1:80"}]
        control.write_config()
        status, problem = await control.call("POST", "/v1/config/reload", {})
        assert (status, problem["what"]) == (500, "127.0.0.1:80: Permission denied")
        assert len((await control.get("/v1/status"))["listeners"]) == 1
        control.refuse = []
        await control.post("/v1/config/reload")
        assert len((await control.get("/v1/status"))["listeners"]) == 2


async def test_a_stuck_worker_does_not_hold_up_a_change() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        control.workers[1].silent = True
        async with asyncio.timeout(30):
            await control.post("/v1/nodes/api1/weight", weight=7)
        assert weight_at(control, 0) == 7
        assert weight_at(control, 1) == 100
        await control.post("/v1/nodes/api2/drain")  # is not drained before every worker knows
        await asyncio.sleep(0.4)
        assert (await control.states())["api2"] == "draining"


def weight_at(control: Rig, worker: int) -> int:
    snapshot = control.workers[worker].snapshot
    assert snapshot is not None
    return snapshot.nodes[0].weight


async def test_one_sick_start_does_not_forget_what_is_healthy() -> None:
    """The word of an earlier control process stands until its successor has looked itself."""
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        await control.kill()
        fakes[0].hang = True
        await control.start()
        assert control.board.cells[sb.control_cell(0) + sb.C_HEALTH] == Health.HEALTHY
        await control.until_states(api1="unhealthy")
