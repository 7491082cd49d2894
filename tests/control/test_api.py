"""The admin API says what it does: every route is described, and what it answers fits the description."""

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from balancer import scoreboard as sb
from balancer.control.admin import schemas
from balancer.model import Outcome
from balancer.observe.metrics import SPECS
from tests.control.harness import FakeNode, Rig, nodes, rig


async def check(control: Rig, method: str, path: str, template: str = "", **body: object) -> dict[str, object]:
    """Call, and hold the answer against the description of the route."""
    described = (await control.get("/v1/openapi.json"))["paths"][template or path.partition("?")[0]][method.lower()]
    status, document = await control.call(method, path, body if method == "POST" else None)
    assert str(status) in described["responses"], (status, document)
    content = described["responses"][str(status)]["content"]
    (schema,) = (item["schema"] for item in content.values())
    jsonschema.validate(document, schemas.PROBLEM if "$ref" in schema else schema)
    return document


async def test_every_route_answers_as_it_is_described() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes, designated={"dns": {}}) as control:
        await control.until_states(api1="healthy", api2="healthy")
        paths = (await control.get("/v1/openapi.json"))["paths"]
        for path, methods in paths.items():
            if "get" in methods and "{" not in path and path not in {"/metrics", "/v1/explain"}:
                await check(control, "GET", path)
        await check(control, "GET", "/v1/explain?method=GET&target=/arvados/v1/collections", "/v1/explain")
        await check(control, "GET", "/v1/nodes/api1", "/v1/nodes/{node}")
        await check(control, "GET", "/v1/nodes/api9", "/v1/nodes/{node}")
        await check(control, "POST", "/v1/nodes", url="http://127.0.0.1:9", name="extra")
        await check(control, "POST", "/v1/nodes", url="ftp://127.0.0.1:9")
        for verb in ("drain", "undrain", "weight", "remove", "forget"):
            await check(control, "POST", f"/v1/nodes/api1/{verb}", f"/v1/nodes/{{node}}/{verb}", weight=50)
        await check(control, "POST", "/v1/config/reload", dry_run=True)
        await check(control, "POST", "/v1/pause", reason="test")
        await check(control, "POST", "/v1/pause")
        await check(control, "POST", "/v1/resume", rate=50)
        await check(control, "POST", "/v1/designations/dns", "/v1/designations/{designation}", node="api2")
        await check(control, "POST", "/v1/designations/dns", "/v1/designations/{designation}", node="api9")


async def test_what_is_not_there_is_a_problem_that_says_what_to_try() -> None:
    async with nodes("api1") as fakes, rig(fakes) as control:
        status, problem = await control.call("GET", "/v1/nodes/api11")
        assert (status, problem["try"]) == (404, "did you mean 'api1'?")
        status, problem = await control.call("GET", "/v2/status")
        assert status == 404
        assert "openapi" in problem["try"]


async def scrape(control: Rig) -> dict[str, float]:
    import aiohttp

    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=control.socket)) as session,
        session.get("http://localhost/metrics") as response,
    ):
        assert response.status == 200
        text = await response.text()
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_ledger_and_scoreboard_are_the_same_numbers() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        for slot in (0, 1):
            base = sb.row(slot)
            control.board.cells[base + sb.W_ACCEPTED] = 100 + slot
            control.board.cells[base + sb.W_OUT_NODE] = 90
            control.board.cells[base + sb.W_OUT_CLIENT_LEFT] = 3
        ledger, found = await control.get("/v1/ledger"), await scrape(control)
        assert found["arv_balance_exchanges_accepted_total"] == ledger["accepted"] == 201
        for outcome in Outcome:
            assert found[f"arv_balance_exchanges_total,outcome={outcome.value}"] == ledger[outcome.value]
        assert found["arv_balance_exchanges_open"] == ledger["open"] == 201 - 186
        assert found["arv_balance_node_up,node=api1"] == 1


async def test_series_of_a_removed_node_go_away() -> None:
    async with nodes("api1", "api2", "api3") as fakes, rig(fakes[:2]) as control:
        await control.until_states(api1="healthy", api2="healthy")
        await control.post("/v1/nodes", url=fakes[2].url, name="api3")
        await control.until_states(api3="healthy")
        assert any("node=api3" in name for name in await scrape(control))
        await control.post("/v1/nodes/api3/remove")
        from tests.control.harness import until

        async def gone() -> bool:
            return not any("node=api3" in name for name in await scrape(control))

        await until(gone)
        assert "api3" not in await control.states()


def test_metric_names_follow_the_rules_of_prometheus() -> None:
    for spec in SPECS:
        assert spec.help.endswith(".")
        assert not any(unit in spec.name for unit in ("_ms", "milli", "micro", "_kib", "minutes"))
        assert spec.exposed.endswith("_total") == (spec.kind == "counter")
        assert spec.exposed.endswith("_info") == (spec.kind == "info")
        if spec.kind == "histogram":
            assert spec.name.endswith("_seconds")
        assert not {"path", "user", "request_id", "le", "quantile"} & set(spec.labels)


@pytest.mark.parametrize("target", ["/arvados/v1/nodes/zzzzz-7ekkf-000000000000000/ping?ping_secret=hush"])
async def test_explain_names_the_designated_node_and_hides_secrets(target: str) -> None:
    route = {"name": "node-ping", "match": {"path": "/arvados/v1/nodes/{uuid}/ping"}, "to": {"designated": "dns"}}
    async with nodes("api1", "api2") as fakes, rig(fakes, designated={"dns": {}}, routes=[route]) as control:
        await control.until_states(api1="healthy", api2="healthy")
        from tests.control.harness import until

        async def held() -> bool:
            return bool((await control.get("/v1/designations"))["designations"][0]["node"] == "api1")

        await until(held)
        found = await control.get(f"/v1/explain?method=POST&target={target.replace('?', '%3F').replace('=', '%3D')}")
        assert (found["chosen"], found["route"]["name"]) == ("api1", "node-ping")
        assert "hush" not in str(found)
        assert found["headers"]["set"]["X-Arv-Designation"] == "dns;epoch=1"
        assert found["retry"]["idempotent"] is False
        by_name = {node["name"]: node for node in found["nodes"]}
        assert by_name["api2"]["why_not"] == "not the node designated for dns"


async def test_a_node_that_answers_200_but_is_sick_is_named_with_its_reason() -> None:
    sick = FakeNode("api2", body={"health": "ERROR", "error": "pq: connection refused"})
    await sick.start()
    try:
        async with nodes("api1") as fakes, rig([*fakes, sick]) as control:
            await control.until_states(api1="healthy", api2="unhealthy")
            status = await control.get("/v1/status")
            assert status["verdict"] == "degraded"
            assert status["causes"] == ["api2 is unhealthy: answers 200, but says health=ERROR: pq: connection refused"]
    finally:
        await sick.stop()
