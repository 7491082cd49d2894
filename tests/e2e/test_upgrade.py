"""Upgrades of example nodes under load: nothing fails, the migration runs once, any process may be killed meanwhile."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.nodectl import ROOT
from tests.support.site import Site
from tests.support.waiting import until

NODECTL = ROOT / "tests/support/nodectl.py"
NAMES = ("api1", "api2", "api3")
KINDS = ("--kinds", "fast", "post", "down", "up", "ws")


class UpgradeSite(Site):
    """Three nodes of version 1 that commands stop and start, and their operator."""

    def __init__(self, **config: Any) -> None:
        super().__init__(
            versions={"path": "/discovery/v1/apis/arvados/v1/rest"}, drain={"timeout": "10s", "tunnel_grace": "0s"},
            park={"release": "2000/s", "max_per_client": 0}, **config,
        )  # fmt: skip
        self.operator = self.folder / "operator"
        self.version = 1

    def start(self) -> None:
        ports = {name: node.port for name, node in self.nodes.items()}
        (self.folder / "ports.json").write_text(json.dumps(ports))
        self.write()
        for name in ports:
            (self.folder / f"{name}.version").write_text("1")
            subprocess.run([sys.executable, "-P", str(NODECTL), str(self.folder), "start", name], check=True)
        self.serve()
        self.until_healthy(len(ports))

    def renew(self) -> None:
        """Begin another test: the next version is out, nothing was done yet."""
        self.version += 1
        (self.folder / "next").write_text(str(self.version))
        (self.folder / "actions").unlink(missing_ok=True)

    def close(self) -> None:
        for name in NAMES:  # before the folder goes, which holds their pids
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGKILL)
        super().close()

    def plan(self, mode: str, **more: Any) -> Path:
        def command(action: str) -> str:
            return f"{sys.executable} -P {NODECTL} {self.folder} {action} {{node}}"

        actions = {action: command(action) for action in ("stop", "upgrade", "migrate", "start")}
        path = self.folder / f"{mode}.yml"
        path.write_text(yaml.safe_dump({"mode": mode, "expect": {"revision": str(self.version)}, **actions, **more}))
        return path

    def actions(self) -> list[str]:
        path = self.folder / "actions"
        return path.read_text().splitlines() if path.exists() else []

    def command(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command of the operator."""
        environment = {
            **os.environ,
            "ARV_BALANCE_ADMIN": f"unix:{self.folder}/admin.sock",
            "XDG_STATE_HOME": str(self.operator),
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "balancer", "upgrade", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def upgrade(self, *words: str, code: int = 0) -> str:
        """Run a command to its end; returns what it printed."""
        with self.command(*words) as process:
            output, talk = process.communicate(timeout=90)
        assert process.returncode == code, (process.returncode, output, talk)
        return output + talk

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = self.admin("GET", "/v1/upgrade")
        return found

    def assert_upgraded(self) -> None:
        """All nodes run the next version and serve; the migration was applied once, in stop-all with all down."""
        until(lambda: list(self.states().values()) == ["healthy"] * 3, 20, "all serve")
        nodes = self.admin("GET", "/v1/nodes")["nodes"]
        assert {node["version"] for node in nodes} == {f"version=v1 revision={self.version}"}
        assert self.actions().count("migration-applied") == 1
        document = self.document()
        assert (document["open"], document["phase"]) == (False, "finished")
        if document["mode"] == "stop-all":
            assert "migration-began up=" in self.actions()
        assert not self.admin("GET", "/v1/pause")["paused"]
        assert not [item for item in self.admin("GET", "/v1/status")["intents"] if item["kind"] == "drain"]


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
        assert process.returncode == 0, process.communicate()
        result = load.stop()
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
    assert "| start of api2 was told to fail" in output
    assert site.states() == {"api1": "healthy", "api2": "drained", "api3": "healthy"}
    refused = site.upgrade("run", str(site.plan("rolling")), "--yes", code=6)
    assert "is not over" in refused
    site.upgrade("resume")
    site.assert_upgraded()


def test_an_abort_before_anything_was_upgraded_restores_everything(site: UpgradeSite) -> None:
    (site.folder / "fail").write_text("stop api3")
    with site.load("--kinds", "fast", "post") as load:
        assert "requests wait until" in site.upgrade("run", str(site.plan("stop-all")), "--yes", code=1)
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


def victims(site: UpgradeSite, process: "subprocess.Popen[str]") -> dict[str, Callable[[], Any]]:
    def parent() -> None:
        site.kill_parent()
        site.serve()

    return {
        "command": process.kill,
        "parent": parent,
        "control": lambda: site.kill(site.control_pid()),
        "worker": lambda: site.kill(site.worker_pids()[0]),
    }


SHORT = [("stop-all", "command", 1), ("rolling", "parent", 2), ("stop-all", "control", 3)]
LONG = [(mode, who, seed) for mode in ("stop-all", "rolling") for who in ("command", "parent", "control", "worker")
        for seed in range(10, 15)]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "who", "seed"), [*SHORT, *(pytest.param(*item, marks=pytest.mark.slow) for item in LONG)]
)
def test_an_upgrade_survives_the_death_of_any_process_at_any_step(
    site: UpgradeSite, mode: str, who: str, seed: int
) -> None:
    chance, before = random.Random(seed), site.document()["id"]
    at = chance.randrange(20)
    with site.load("--kinds", "fast", "post") as load, site.command("run", str(site.plan(mode)), "--yes") as process:
        until(lambda: done(site, before) >= at, 60, f"{at} steps are done")
        time.sleep(chance.random() * 0.3)
        victims(site, process)[who]()
        output = process.communicate(timeout=90)
        for _ in range(3):
            if site.document()["open"]:
                with site.command("resume", "--force") as again:
                    again.communicate(timeout=90)
        result = load.stop()
    assert not site.document()["open"], (site.document(), output)
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


def done(site: UpgradeSite, before: str) -> int:
    """How many steps of the present upgrade are done, -1 while that is still the one before."""
    document = site.document()
    return -1 if document["id"] == before else sum(step["state"] == "done" for step in document["steps"])


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
