"""Real API nodes paused, and upgraded with a real migration, under load and whatever is killed meanwhile."""

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from apiserver.node import prepare
from tests.support.api import ROOT, STEPS, settings
from tests.support.load import MIX
from tests.support.nodectl import ROOT as REPOSITORY
from tests.support.postgres import TestServer, postgres_server
from tests.support.upgrades import NAMES, ApiUpgradeSite, interrupted
from tests.support.waiting import until

__all__ = ["postgres_server"]
pytestmark = pytest.mark.pg
SWITCHOVER = REPOSITORY / "examples/postgres-failover/switchover"
KINDS = ("read", "create")
SLACK_S = 0.05  # a worker that is off the CPU dates what it releases by when its turn began
CLIENTS = sum(MIX[kind][0] for kind in KINDS)


@pytest.fixture(scope="module")
def site(postgres_server: TestServer) -> Iterator[ApiUpgradeSite]:
    """The site that all tests upgrade, one after the other."""
    dsn = asyncio.run(postgres_server.make_template("upgraded"))
    asyncio.run(prepare(settings(dsn), STEPS))
    made = ApiUpgradeSite(dsn)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def healthy(site: ApiUpgradeSite) -> None:
    """A test may leave nodes behind that have only just found the database again."""
    site.until_healthy(3)


def test_stopping_all_api_nodes_for_a_migration_fails_no_request(site: ApiUpgradeSite) -> None:
    site.next_release(contract=True)
    with site.load("--kinds", *KINDS) as load:
        output = site.upgrade("run", str(site.plan("stop-all")), "--yes")
        result = load.stop()
    result.assert_clean()
    assert re.search(r"requests \d+   failed 0   retried", output), output
    site.assert_upgraded()
    site.assert_writes(result)
    site.assert_balanced()
    assert "migration-began up=" in site.actions()
    migrate = next(step for step in site.document()["steps"] if step["do"] == "migrate")
    assert re.fullmatch(rf"applied apiserver \d+ release_{site.version}\n", migrate["output"])


def test_a_rolling_upgrade_of_api_nodes_with_a_migration_that_fits_both_fails_no_request(site: ApiUpgradeSite) -> None:
    site.next_release(contract=False)
    with site.load("--kinds", *KINDS) as load:
        site.upgrade("run", str(site.plan("rolling")), "--yes")
        result = load.stop()
    result.assert_clean()
    site.assert_upgraded()
    site.assert_writes(result)
    site.assert_balanced()
    assert site.actions().count(f"start {NAMES[2]}") == 1


SHORT = [("stop-all", "worker", 1), ("rolling", "command", 2)]
LONG = [(mode, who, seed) for mode in ("stop-all", "rolling") for who in ("command", "parent", "control", "worker")
        for seed in (21, 22)]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "who", "seed"), [*SHORT, *(pytest.param(*item, marks=pytest.mark.slow) for item in LONG)]
)
def test_no_acknowledged_write_is_lost_or_doubled_whoever_is_killed_during_an_upgrade(
    site: ApiUpgradeSite, mode: str, who: str, seed: int
) -> None:
    site.next_release(contract=mode == "stop-all")
    result = interrupted(site, mode, who, seed, KINDS)
    site.assert_upgraded()
    site.assert_writes(result)
    site.assert_balanced()
    if who != "worker":  # what was open in that worker is lost, and only that
        result.assert_clean()


@pytest.mark.parametrize("seconds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_pause_under_load_fails_nothing_keeps_the_order_and_resumes_at_the_rate(
    site: ApiUpgradeSite, seconds: int
) -> None:
    count, per_s = 200, 100
    head = f"GET /arvados/v1/users/current HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT}\r\nX-Request-Id: "
    with site.load("--kinds", *KINDS) as load, contextlib.ExitStack() as stack:
        time.sleep(1)
        ends = time.monotonic() + seconds
        assert site.admin("POST", "/v1/pause", {"reason": "test", "for": 60})["complete"]
        waiting: list[socket.socket] = []
        until(lambda: parked(site) == CLIENTS)
        for number in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 30))
            client.sendall(f"{head}order-{seconds}-{number}\r\n\r\n".encode())
            waiting.append(client)
            until(lambda: parked(site) == CLIENTS + len(waiting))
        time.sleep(max(0.0, ends - time.monotonic()))
        site.admin("POST", "/v1/resume", {"rate": per_s})
        for client in waiting:
            assert client.recv(20).startswith(b"HTTP/1.1 200 ")
        result = load.stop()
    result.assert_clean()
    site.assert_writes(result)
    site.assert_balanced()
    released = [at for _, at in sorted(releases(site, f"order-{seconds}-", count))]
    overtaken = [
        (n, early - late) for n, (early, late) in enumerate(itertools.pairwise(released)) if early > late + SLACK_S
    ]
    assert not overtaken  # first come, first served
    assert max(sum(begin <= at < begin + 1 for at in released) for begin in released) <= 1.2 * per_s


def parked(site: ApiUpgradeSite) -> int:
    return int(site.admin("GET", "/v1/pause")["parked"])


def releases(site: ApiUpgradeSite, prefix: str, count: int) -> list[tuple[int, float]]:
    """Number and time of each request with such an id going on to a node, by the access log."""

    def found() -> list[tuple[int, float]] | None:
        lines = [
            (
                int(line["request_id"].removeprefix(prefix)),
                datetime.fromisoformat(line["timestamp"]).timestamp()
                - line["http.server.request.duration"]
                + line["arv.queue_s"],
            )
            for line in site.log_lines()
            if line["request_id"].startswith(prefix)
        ]
        return lines if len(lines) == count else None

    return until(found) or []


def test_a_restart_of_postgresql_behind_the_example_s_pause_fails_nothing(
    site: ApiUpgradeSite, postgres_server: TestServer
) -> None:
    # The command of the operator waits for this test, which is what restarts the server.
    wait = 'touch "$0/asked"; until [ -e "$0/restarted" ]; do sleep 0.05; done'
    with site.load("--kinds", *KINDS) as load, site.script(SWITCHOVER, "sh", "-c", wait, site.folder) as process:
        until((site.folder / "asked").exists)  # so traffic is paused
        restarted(site, postgres_server)
        (site.folder / "restarted").touch()
        output = process.communicate(timeout=30)
        assert process.returncode == 0, output
        result = load.stop()
    result.assert_clean()
    site.assert_writes(result)
    site.assert_balanced()


def restarted(site: ApiUpgradeSite, server: TestServer) -> None:
    """Restart PostgreSQL; it stays away until the nodes' checks have seen that."""
    server.local.stop()
    until(lambda: set(site.states().values()) == {"unhealthy"})
    server.local.start()


def test_without_a_pause_a_restart_of_postgresql_fails_requests(
    site: ApiUpgradeSite, postgres_server: TestServer
) -> None:
    """The negative control of the test above."""
    with site.load("--kinds", *KINDS) as load:
        time.sleep(0.5)
        restarted(site, postgres_server)
        assert load.stop().failures
