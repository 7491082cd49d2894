"""At rest every host is right, whoever was killed or stopped, and whatever the server applied late."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.dnsupdate.builders import SECTION
from tests.dnsupdate.chaos import chaos, rounds
from tests.dnsupdate.servers import Target, builtin, real
from tests.support.nameservers import write_key

pytestmark = pytest.mark.pg
TEMPLATE = {"compute": {"records": [{"name": "{{ fqdn }}.", "each": "ipv4", "type": "A", "data": "{{ item }}"}]}}


BATCH = {"powerdns": 10}  # SQLite: a message with all hosts in it would take longer than the timeout


def section(server: Target, folder: Path) -> dict[str, Any]:
    target = {
        "servers": ["127.0.0.1"], "port": server.port, "key_file": str(write_key(folder)), "timeout": "300ms",
        "lease": "1s", "poll": "50ms", "retry": {"first": "20ms", "most": "200ms"}, "brake": {"hosts": 999, "share": 1},
        "batch": BATCH.get(server.kind, 250),
    }  # fmt: skip
    return {**SECTION, "targets": {"main": target}, "zones": SECTION["zones"][:1], "templates": TEMPLATE}


async def run(
    kind: str, dsn: str, folder: Path, count: int, *, seed: int = 1, naive: str = "", batch: int = 0
) -> list[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        if kind == "builtin":
            server = await stack.enter_async_context(builtin())
        else:
            server = stack.enter_context(real(kind))
        connection = await asyncpg.connect(dsn)
        await connection.execute("INSERT INTO dns_lease (target) VALUES ('main')")
        await connection.close()
        settings = section(server, folder)
        settings["targets"]["main"]["batch"] = batch or settings["targets"]["main"]["batch"]
        one = await stack.enter_async_context(chaos(server, dsn, settings, seed=seed, naive=naive))
        return await rounds(one, count)


async def test_nothing_is_stale_after_a_few_bad_rounds(dsn: str, tmp_path: Path) -> None:
    assert await run("builtin", dsn, tmp_path, 2) == [{}] * 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count"), [("builtin", 100), ("bind", 20), ("knot", 20), ("powerdns", 10)])
async def test_nothing_is_stale_after_many_bad_rounds(dsn: str, tmp_path: Path, kind: str, count: int) -> None:
    assert await run(kind, dsn, tmp_path, count, seed=7) == [{}] * count


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("naive", ["", "no-repair"])
async def test_nothing_is_stale_when_batches_are_so_small_that_some_are_always_ready(
    dsn: str, tmp_path: Path, naive: str
) -> None:
    assert await run("builtin", dsn, tmp_path, 10, seed=5, naive=naive, batch=3) == [{}] * 10


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_fence_alone_is_enough(dsn: str, tmp_path: Path) -> None:
    assert await run("builtin", dsn, tmp_path, 20, seed=3, naive="no-repair") == [{}] * 20


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("naive", ["skip-locked", "no-fence"])
async def test_without_the_mechanism_something_is_stale_within_twenty_rounds(
    dsn: str, tmp_path: Path, naive: str
) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(builtin())
        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
        await connection.execute("INSERT INTO dns_lease (target) VALUES ('main')")
        one = await stack.enter_async_context(chaos(server, dsn, section(server, tmp_path), seed=3, naive=naive))
        for _ in range(20):
            if await one.round(connection):
                return
    pytest.fail(f"twenty rounds without a stale record although {naive}")
