"""Upgrades of real API nodes with a real migration under load, whatever is killed meanwhile."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from apiserver.node import prepare
from tests.support.api import STEPS, settings
from tests.support.postgres import TestServer, postgres_server
from tests.support.upgrades import NAMES, ApiUpgradeSite, interrupted

__all__ = ["postgres_server"]
pytestmark = pytest.mark.pg
KINDS = ("read", "create")


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
