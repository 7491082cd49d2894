"""Nodes as a running control process sees and treats them."""

from balancer import scoreboard as sb
from balancer.model import Admin, Health
from tests.control.harness import nodes, rig, until


async def test_healthy_nodes_are_reported_to_workers_and_operators() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        status = await control.get("/v1/status")
        assert status["schema"] == "arv-balance/status/v1"
        assert (status["verdict"], status["serving"], status["cluster"]) == ("healthy", 2, "xtest")
        for slot in (0, 1):
            cell = sb.control_cell(slot)
            assert control.board.cells[cell + sb.C_HEALTH] == Health.HEALTHY
            assert control.board.cells[cell + sb.C_HEALTHY_SINCE_NS] > 0


async def test_a_drained_node_has_nothing_in_flight_and_serves_again_when_undrained() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        control.claim("api2", 2)
        answer = await control.post("/v1/nodes/api2/drain", reason="disk swap")
        assert (answer["state"], answer["changed"]) == ("draining", True)
        for worker in control.workers:
            assert worker.snapshot is not None
            assert [node.admin for node in worker.snapshot.nodes] == [Admin.ENABLED, Admin.DRAINING]
        control.claim("api2", 0)
        await control.until_states(api2="drained")
        await control.post("/v1/nodes/api2/undrain")
        await control.until_states(api2="healthy")


async def test_intents_and_health_survive_kill_9_of_control() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes/api2/drain", reason="disk swap")
        await control.until_states(api2="drained")
        before = (await control.get("/v1/status"))["generation"]
        await control.kill()
        assert control.board.cells[sb.control_cell(0) + sb.C_HEALTH] == Health.HEALTHY
        await control.start()
        status = await control.get("/v1/status")
        assert status["generation"] > before
        await control.until_states(api1="healthy", api2="drained")
        assert status["intents"][0]["reason"] == "disk swap"


async def test_control_ends_when_its_parent_is_gone() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        assert await control.hang_up() == 0


async def test_draining_below_the_guard_is_refused_unless_forced() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy")
        status, problem = await control.call("POST", "/v1/nodes/api1/drain", {})
        assert (status, problem["schema"]) == (409, "arv-balance/problem/v1")
        await control.post("/v1/nodes/api1/drain", force=True)
        await until(lambda: control.board.cells[sb.H_GENERATION] >= 2)
