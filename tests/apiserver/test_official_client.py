"""The unmodified official Python client and its tools, through the balancer, over TLS, on three nodes."""

import asyncio
import json
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from balancer.model import Outcome
from tests.support.api import ROOT, api_template, client_of
from tests.support.apisite import ApiSite, env, started
from tests.support.officialclient import SCRIPTS, client_python, run
from tests.support.postgres import TestServer, postgres_server

__all__ = ["api_template", "client_python", "env", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(180)]
RESOURCES = (
    "groups", "links", "collections", "logs", "nodes", "workflows", "virtual_machines", "keep_services", "users",
    "api_client_authorizations", "container_requests", "containers", "authorized_keys",
)  # fmt: skip
BULK = """INSERT INTO logs (uuid, owner_uuid, event_type, created_at)
 SELECT 'zzzzz-57u5n-' || lpad(n::text, 15, '0'), 'zzzzz-tpzed-000000000000000', 'bulk',
        timestamptz '2026-01-01' + (n % 7) * interval '1 microsecond' FROM generate_series(1, $1) n"""


@pytest.fixture(scope="module")
def site(postgres_server: TestServer, api_template: str) -> Iterator[ApiSite]:
    """Three nodes on one database behind the balancer. The tests share them and leave each other's objects alone."""
    with started(ApiSite, postgres_server, api_template) as made:
        yield made


@pytest.fixture(autouse=True)
def every_request_has_one_outcome(site: ApiSite) -> Iterator[None]:
    """Nothing was lost on the way, and the balancer answered nothing in a node's place."""
    yield
    ledger = site.assert_balanced()
    for outcome in (Outcome.US, Outcome.NODE_CUT, Outcome.WORKER_LOST):
        assert ledger.outcomes[outcome] == 0, ledger


async def execute(site: ApiSite, statement: str, *values: object) -> None:
    """Change the database itself."""
    connection = await asyncpg.connect(site.database_url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def test_every_resource_and_paging_over_equal_times(
    client_python: Path, site: ApiSite, env: dict[str, str]
) -> None:
    await execute(site, BULK, 5000)
    script = SCRIPTS / "resources.py"
    printed = await run(env, client_python, script, json.dumps(RESOURCES), "5000")
    assert set(RESOURCES) <= set(json.loads(printed))
    answering = {line["arv.node"] for line in site.log_lines() if line["http.response.status_code"] == 200}
    assert answering == set(site.nodes)


async def test_a_filter_of_5_kb_in_a_url_is_answered(site: ApiSite, env: dict[str, str]) -> None:
    filters = json.dumps([["uuid", "in", [f"zzzzz-tpzed-{number:015d}" for number in range(170)]]])
    trust = ssl.create_default_context(cafile=env["SSL_CERT_FILE"])
    async with aiohttp.ClientSession(site.url, connector=aiohttp.TCPConnector(ssl=trust)) as http:
        headers = {"Authorization": f"Bearer {ROOT}"}
        async with http.get("/arvados/v1/users", params={"filters": filters}, headers=headers) as response:
            assert len(str(response.url)) > 5000
            assert [user["uuid"] for user in (await response.json())["items"]] == ["zzzzz-tpzed-" + "0" * 15]


async def test_put_get_and_ls_with_a_local_store(client_python: Path, env: dict[str, str], tmp_path: Path) -> None:
    tools = client_python.parent
    (tmp_path / "data.txt").write_text("hello\n")
    uuid = (await run(env, tools / "arv-put", "--no-progress", "--no-cache", tmp_path / "data.txt")).strip()
    assert await run(env, tools / "arv-get", f"{uuid}/data.txt") == "hello\n"
    assert "data.txt" in await run(env, tools / "arv-ls", uuid)


@pytest.mark.parametrize("mode", ["wss", "poll"])
async def test_events_are_heard_by_websocket_and_by_polling(
    client_python: Path, env: dict[str, str], mode: str
) -> None:
    printed = await run(env, client_python, SCRIPTS / "events.py", mode)
    assert ("Poll" in printed) is (mode == "poll"), printed


async def test_a_collection_and_a_project_are_copied(client_python: Path, env: dict[str, str], tmp_path: Path) -> None:
    tools = client_python.parent
    (tmp_path / "data.txt").write_text("copy me\n")
    script = SCRIPTS / "project.py"
    source, target, uuid = (await run(env, client_python, script, tmp_path / "data.txt")).split()
    for what in (uuid, source):
        await run(env, tools / "arv-copy", "--project-uuid", target, what)
    listed = await run(env, client_python, SCRIPTS / "contents.py", target)
    assert json.loads(listed) == ["arvados#collection data", "arvados#group source"]


async def test_small_blocks_of_a_collection_become_a_large_one(client_python: Path, env: dict[str, str]) -> None:
    printed = json.loads(await run(env, client_python, SCRIPTS / "repack.py"))
    assert printed == {"files": {"a.txt": "small", "b/c.txt": "blocks"}, "blocks": [2, 1], "repeated": True}


async def test_docker_images_are_listed(client_python: Path, site: ApiSite, env: dict[str, str]) -> None:
    async with client_of(site.processes.nodes[0].base) as (admin,):
        image = await admin.post("collections", {"collection": {"name": "image"}})
        for kind, name in (("docker_image_hash", "5" * 64), ("docker_image_repo+tag", "arvados/jobs:2.7")):
            link = {"link_class": kind, "name": name, "head_uuid": image["uuid"],
                    "properties": {"image_timestamp": "2026-01-02T03:04:05Z"}}  # fmt: skip
            await admin.post("links", {"link": link})
    listed = (await run(env, client_python.parent / "arv-keepdocker")).splitlines()[1].split()
    assert listed[:4] == ["arvados/jobs", "2.7", "5" * 12, image["uuid"]]


async def test_arv_ws_prints_what_happens_to_one_object(
    client_python: Path, site: ApiSite, env: dict[str, str]
) -> None:
    async with client_of(site.processes.nodes[0].base) as (admin,):
        uuid = (await admin.post("groups", {"group": {"group_class": "project", "name": "watched"}}))["uuid"]
        only = json.dumps([["event_type", "in", ["update"]]])
        printing = await asyncio.create_subprocess_exec(
            client_python.parent / "arv-ws", "--no-poll", "--uuid", uuid, "--filters", only, env=env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert printing.stdout is not None
        line = asyncio.ensure_future(printing.stdout.readline())
        while not line.done():  # it says nothing when it listens
            await admin.put(f"groups/{uuid}", {"group": {"description": secrets.token_hex()}})
            await asyncio.wait([line], timeout=0.5)
        printing.terminate()
        await printing.wait()
    assert json.loads(await line)["object_uuid"] == uuid


async def test_reports_of_activity_are_made(
    client_python: Path, site: ApiSite, env: dict[str, str], tmp_path: Path
) -> None:
    tools = client_python.parent
    async with client_of(site.processes.nodes[0].base) as (admin,):
        alice = await admin.user("alice")
    acting = {**env, "ARVADOS_API_TOKEN": str(alice.token)}
    await run(acting, client_python, SCRIPTS / "project.py", SCRIPTS / "events.py")
    # The reports end at the last full minute.
    ago = "created_at = created_at - interval '10 minutes', event_at = event_at - interval '10 minutes'"
    await execute(site, f"UPDATE logs SET {ago} WHERE event_type <> 'bulk'")
    users = await run(env, tools / "arv-user-activity", "--days", "1")
    assert "source" in users, users
    page = tmp_path / "report.html"
    await run(env, tools / "arv-cluster-activity", "--days", "1", "--html-report-file", page)
    assert "zzzzz" in page.read_text()
