"""Upgrades of example nodes under load: nothing fails, the migration runs once, any process may be killed meanwhile."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.nodectl import ROOT
from tests.support.upgrades import NAMES, UpgradeSite, interrupted
from tests.support.waiting import until

NODECTL = ROOT / "tests/support/nodectl.py"
KINDS = ("--kinds", "fast", "post", "down", "up", "ws")


class Holder:
    """The site that tests share as long as none of them fails."""

    def __init__(self) -> None:
        self.site: UpgradeSite | None = None

    def get(self) -> UpgradeSite:
        if self.site is None:
            self.site = UpgradeSite()
            self.site.start()
        self.site.renew()
        return self.site

    def drop(self) -> None:
        if self.site is not None:
            self.site.close()
            self.site = None


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    made = Holder()
    yield made
    made.drop()


@pytest.fixture
def site(holder: Holder, request: pytest.FixtureRequest) -> Iterator[UpgradeSite]:
    failed = request.session.testsfailed
    try:
        yield holder.get()
    except BaseException:
        holder.drop()
        raise
    if request.session.testsfailed > failed:
        holder.drop()


def test_stopping_all_nodes_for_an_upgrade_under_load_fails_no_request(site: UpgradeSite) -> None:
    plan = site.plan("stop-all")
    dry = site.upgrade("run", str(plan), "--dry-run")
    assert re.search(r"migrate +api1 .*nodectl", dry)
    assert not site.actions()
    with site.load(*KINDS) as load:
        time.sleep(0.5)
        output = site.upgrade("run", str(plan), "--yes")
        result = load.stop()
    assert re.search(r"requests \d+   failed 0   retried", output), output
    result.assert_clean()
    site.assert_upgraded()
    site.assert_balanced()
    # Versions never served beside each other: the first start comes after the last stop.
    actions = site.actions()
    assert max(actions.index(f"stop {name}") for name in NAMES) < min(actions.index(f"start {name}") for name in NAMES)
    migrate = next(step for step in site.document()["steps"] if step["do"] == "migrate")
    assert migrate["output"] == "== 20261124 AddColumn: migrated\n"
    assert "finished" in site.upgrade("status")


def test_a_rolling_upgrade_under_load_fails_no_request(site: UpgradeSite) -> None:
    least = []
    with site.load(*KINDS) as load, site.command("run", str(site.plan("rolling")), "--yes") as process:
        while process.poll() is None:
            states = site.states()
            least.append(sum(state == "healthy" for state in states.values()))
            time.sleep(0.1)
        output, talk = process.communicate()
        assert process.returncode == 0, (output, talk)
        result = load.stop()
    took, change = r"\d[\dms.]*", f"{site.version - 1} ⇒ {site.version}"
    for name in NAMES:  # a line a node
        steps = f"stop {took} → upgrade {took} → .*start {took} → {change} → healthy {took} → traffic {took}"
        assert re.search(f"^{name}  drain {took} → {steps} ✓$", output, re.MULTILINE), output
    result.assert_clean()
    assert min(least) == 2  # and no node was mismatched meanwhile
    site.assert_upgraded()
    site.assert_balanced()


def test_without_draining_the_same_commands_fail_requests(site: UpgradeSite) -> None:
    """The negative control of both: what the plans do to the nodes is not harmless."""
    with site.load("--kinds", "later", "post", "down") as load:
        time.sleep(0.5)
        for name in NAMES:
            for action in ("stop", "start"):
                subprocess.run([sys.executable, "-P", str(NODECTL), str(site.folder), action, name], check=True)
        assert load.stop().failures


def test_a_failed_step_stops_the_upgrade_and_resume_goes_on(site: UpgradeSite) -> None:
    (site.folder / "fail").write_text("start api2")
    output = site.upgrade("run", str(site.plan("rolling")), "--yes", code=1)
    assert "start api2 failed" in output
    assert re.search(r"^api2  drain .* → start ✗$", output, re.MULTILINE), output
    assert "| start of api2 was told to fail" in output
    assert site.states() == {"api1": "healthy", "api2": "drained", "api3": "healthy"}
    refused = site.upgrade("run", str(site.plan("rolling")), "--yes", code=6)
    assert "is not over" in refused
    assert re.search(r"upgrade \S+: \d+ of \d+ steps, start api2  \(no command drives it", site.cli("status"))
    assert {"arv_balance_upgrade_open 1.0", "arv_balance_upgrade_driven 0.0"} <= set(site.metrics().splitlines())
    before, done = site.document(), site.actions()
    on, back = site.upgrade("resume", "--dry-run"), site.upgrade("abort", "--dry-run")
    assert re.search(r"would go on: \d+ steps\nSTEP .*\n +\d+ +start +api2 ", on), on
    assert re.search(r"would be aborted: 0 steps\n  left: the migration is done", back), back
    assert (site.document(), site.actions()) == (before, done)
    site.upgrade("resume")
    site.assert_upgraded()
    assert "arv_balance_upgrade_open 0.0" in site.metrics().splitlines()


def test_an_abort_before_anything_was_upgraded_restores_everything(site: UpgradeSite) -> None:
    (site.folder / "fail").write_text("stop api3")
    with site.load("--kinds", "fast", "post") as load:
        assert "requests wait until" in site.upgrade("run", str(site.plan("stop-all")), "--yes", code=1)
        assert re.search(r"would be aborted: \d+ steps\n(.*\n)+ +\d+ +resume", site.upgrade("abort", "--dry-run"))
        site.upgrade("abort", "--yes")
        result = load.stop()
    result.assert_clean()
    assert site.document()["phase"] == "aborted"
    until(lambda: list(site.states().values()) == ["healthy"] * 3, 20)
    assert not site.admin("GET", "/v1/pause")["paused"]
    assert not [action for action in site.actions() if action.startswith(("upgrade", "migr"))]


def test_a_migration_of_which_nobody_knows_how_it_ended_is_not_run_again_by_itself(site: UpgradeSite) -> None:
    (site.folder / "fail").write_text("migrate api1")
    site.upgrade("run", str(site.plan("stop-all")), "--yes", code=1)
    assert "--migration again" in site.upgrade("resume", code=1)
    assert site.actions().count("migrate api1") == 1
    site.upgrade("resume", "--migration", "again")
    site.assert_upgraded()


SHORT = [("stop-all", "command", 1), ("rolling", "parent", 2), ("stop-all", "control", 3)]
LONG = [(mode, who, seed) for mode in ("stop-all", "rolling") for who in ("command", "parent", "control", "worker")
        for seed in range(10, 15)]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "who", "seed"), [*SHORT, *(pytest.param(*item, marks=pytest.mark.slow) for item in LONG)]
)
def test_an_upgrade_survives_the_death_of_any_process_at_any_step(
    site: UpgradeSite, mode: str, who: str, seed: int
) -> None:
    result = interrupted(site, mode, who, seed, ("fast", "post"))
    site.assert_upgraded()
    if who == "worker":  # what was open in that worker is lost, and only that
        assert len(result.failures) <= 40
    else:
        result.assert_clean()
    keys: dict[str, int] = {}
    for name in NAMES:
        for key, count in site.nodes[name].counts()["keys"].items():
            keys[key] = keys.get(key, 0) + count
    assert max(keys.values(), default=1) == 1  # no POST was sent twice
    site.assert_balanced()


def test_exec_is_a_rolling_upgrade_by_one_shell_command(site: UpgradeSite) -> None:
    control = f"{sys.executable} -P {NODECTL} {site.folder}"
    command = " && ".join(f"{control} {action} {{node}}" for action in ("stop", "upgrade", "start"))
    with site.load("--kinds", "fast", "post") as load:
        output = site.upgrade("--exec", command, "--yes")
        result = load.stop()
    result.assert_clean()
    assert "Upgraded 3 of 3 nodes" in output
    versions = {node["version"] for node in site.admin("GET", "/v1/nodes")["nodes"]}
    assert versions == {f"version=v1 revision={site.version}"}
    assert "did you mean 'host'?" in site.upgrade("--exec", "ssh {hots}", code=3)
