"""The unmodified official Python client and its tools against one node."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.support.api import ROOT, api_database, api_template, client_of, running, settings
from tests.support.postgres import postgres_server
from tests.support.tls import tls_front

__all__ = ["api_database", "api_template", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(180)]
HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
RESOURCES = (
    "groups", "links", "collections", "logs", "nodes", "workflows", "virtual_machines", "keep_services", "users",
    "api_client_authorizations", "container_requests", "containers", "authorized_keys",
)  # fmt: skip
BULK = """INSERT INTO logs (uuid, owner_uuid, event_type, created_at)
 SELECT 'zzzzz-57u5n-' || lpad(n::text, 15, '0'), 'zzzzz-tpzed-000000000000000', 'bulk',
        timestamptz '2026-01-01' + (n % 7) * interval '1 microsecond' FROM generate_series(1, $1) n"""


@pytest.fixture(scope="session")
def client_python() -> Path:
    """The Python of an environment with the official client."""
    script = REPOSITORY / "tools" / "official-client"
    done = subprocess.run([script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return REPOSITORY / done.stdout.strip().splitlines()[-1]


@asynccontextmanager
async def environment(database: str) -> AsyncIterator[dict[str, str]]:
    """Run a node behind TLS; yield the variables by which the client finds it."""
    async with tls_front() as front:
        url = f"https://127.0.0.1:{front.port}/"
        async with running(settings(database, external_url=url)) as base:
            host, _, port = base.removeprefix("http://").rpartition(":")
            front.target = (host, int(port))
            yield {
                **os.environ, "ARVADOS_API_HOST": f"127.0.0.1:{front.port}", "ARVADOS_API_TOKEN": ROOT,
                "ARVADOS_API_HOST_INSECURE": "1", "NODE_URL": base,
            }  # fmt: skip


async def run(env: dict[str, str], *command: object, stdin: bytes = b"") -> str:
    """Run a program of the client's environment; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate(stdin)
    assert process.returncode == 0, err.decode()[-3000:]
    return out.decode()


async def test_every_resource_and_paging_over_equal_times(client_python: Path, api_database: str) -> None:
    connection = await asyncpg.connect(api_database)
    await connection.execute(BULK, 5000)
    await connection.close()
    async with environment(api_database) as env:
        script = HERE / "client_scripts" / "resources.py"
        printed = await run(env, client_python, script, json.dumps(RESOURCES), "5000")
    assert set(RESOURCES) <= set(json.loads(printed))


async def test_put_get_and_ls_with_a_local_store(client_python: Path, api_database: str, tmp_path: Path) -> None:
    tools = client_python.parent
    (tmp_path / "keep").mkdir()
    (tmp_path / "data.txt").write_text("hello\n")
    async with environment(api_database) as env:
        env["KEEP_LOCAL_STORE"] = str(tmp_path / "keep")
        uuid = (await run(env, tools / "arv-put", "--no-progress", "--no-cache", tmp_path / "data.txt")).strip()
        assert await run(env, tools / "arv-get", f"{uuid}/data.txt") == "hello\n"
        assert "data.txt" in await run(env, tools / "arv-ls", uuid)


@pytest.mark.parametrize("mode", ["wss", "poll"])
async def test_events_are_heard_by_websocket_and_by_polling(client_python: Path, api_database: str, mode: str) -> None:
    async with environment(api_database) as env:
        printed = await run(env, client_python, HERE / "client_scripts" / "events.py", mode)
    assert ("Poll" in printed) is (mode == "poll"), printed


async def test_a_collection_and_a_project_are_copied(client_python: Path, api_database: str, tmp_path: Path) -> None:
    tools = client_python.parent
    (tmp_path / "keep").mkdir()
    (tmp_path / "data.txt").write_text("copy me\n")
    async with environment(api_database) as env:
        env["KEEP_LOCAL_STORE"] = str(tmp_path / "keep")
        script = HERE / "client_scripts" / "project.py"
        source, target, uuid = (await run(env, client_python, script, tmp_path / "data.txt")).split()
        for what in (uuid, source):
            await run(env, tools / "arv-copy", "--project-uuid", target, what)
        listed = await run(env, client_python, HERE / "client_scripts" / "contents.py", target)
    assert json.loads(listed) == ["arvados#collection data", "arvados#group source"]


async def test_reports_of_activity_are_made(client_python: Path, api_database: str, tmp_path: Path) -> None:
    tools = client_python.parent
    async with environment(api_database) as env:
        (tmp_path / "keep").mkdir()
        env["KEEP_LOCAL_STORE"] = str(tmp_path / "keep")
        async with client_of(env["NODE_URL"]) as (admin,):
            alice = await admin.user("alice")
        acting = {**env, "ARVADOS_API_TOKEN": str(alice.token)}
        await run(acting, client_python, HERE / "client_scripts" / "project.py", HERE / "models.py")
        # The reports end at the last full minute.
        connection = await asyncpg.connect(api_database)
        await connection.execute("UPDATE logs SET created_at = created_at - interval '10 minutes', "
                                 "event_at = event_at - interval '10 minutes'")  # fmt: skip
        await connection.close()
        users = await run(env, tools / "arv-user-activity", "--days", "1")
        assert "source" in users, users
        page = tmp_path / "report.html"
        await run(env, tools / "arv-cluster-activity", "--days", "1", "--html-report-file", page)
        assert "zzzzz" in page.read_text()
