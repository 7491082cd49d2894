"""All balancers of all sites, started once; every row of the table seen at every one of them."""

import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.engines import fronts, scenarios, sites
from tests.support.programs import lacking

Seen = dict[str, str]  # row -> what was seen


@dataclass(frozen=True)
class Results:
    """What was seen by balancer, and why a balancer did not run."""

    seen: dict[str, Seen]
    missing: dict[str, str]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What a run of the table saw; with several test processes the first runs it and the others read what it saw."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return _run_all()
    shared = tmp_path_factory.getbasetemp().parent / f"engines-{run}.json"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            found = _run_all()
            shared.write_text(json.dumps({"seen": found.seen, "missing": found.missing}))
        return Results(**json.loads(shared.read_text()))


def _run_all() -> Results:
    """One process for each site and balancer, so that each row is a few requests only."""
    missing = {name: fronts.missing(name) for name in fronts.RUNS}
    names = [fronts.SERVE, *(name for name in fronts.RUNS if not missing[name])]
    # The slowest site first.
    jobs = [
        (name, site) for site in sorted(sites.SITES, key=("drained", "usual", "doors", "dying").index) for name in names
    ]
    seen: dict[str, Seen] = {name: {} for name in names}
    with ThreadPoolExecutor(len(names)) as threads:
        for (name, _), found in zip(jobs, threads.map(_run, jobs), strict=True):
            seen[name] |= found
    return Results(seen, {name: why for name, why in missing.items() if why})


def _run(job: tuple[str, str]) -> Seen:
    name, site = job
    front = fronts.Front(name, site)
    try:
        front.start()
        return {row.name: scenarios.observe(row, front) for row in scenarios.SCENARIOS if row.site == site}
    finally:
        front.close()


def needed(results: Results, engine: str) -> None:
    """Skip when an engine is not installed; where CI is set, fail: nothing may go unseen there."""
    if why := results.missing.get(engine):
        lacking(why)
