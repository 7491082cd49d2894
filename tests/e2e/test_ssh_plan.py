"""The plan for Arvados packages over ssh, as it stands in the examples, by a real OpenSSH server."""

import sys
from collections.abc import Iterator

import pytest
import yaml

from tests.support.nodectl import ROOT
from tests.support.sshserver import SshServer
from tests.support.upgrades import NAMES, UpgradeSite

PLAN = yaml.safe_load((ROOT / "examples/upgrade/arvados-systemd.yml").read_text())
HOSTS = {name: f"{name}.test.example" for name in NAMES}


def arrives(key: str) -> str:
    """The command line that a host gets: what stands behind root@{host}, without the quotes around it."""
    command = PLAN[key]["run"] if key == "migrate" else PLAN[key]
    return str(command.partition("root@{host} ")[2]).strip('"')


@pytest.fixture
def site() -> Iterator[UpgradeSite]:
    made = UpgradeSite()
    try:
        made.start()
        made.renew()
        yield made
    finally:
        made.close()


def test_arvados_is_upgraded_by_ssh_as_the_example_says_and_no_request_fails(site: UpgradeSite) -> None:
    control = (sys.executable, "-P", str(site.control), str(site.folder))
    table = {arrives(action): (*control, action, "NODE") for action in ("stop", "upgrade", "migrate", "start")}
    server = SshServer(site.folder / "ssh", {host: name for name, host in HOSTS.items()}, table)
    try:
        plan = site.folder / "plan.yml"
        plan.write_text(yaml.safe_dump({**PLAN, "hosts": HOSTS, "release": "2000/s"}))
        with site.load("--kinds", "fast", "post") as load:
            output = site.upgrade("run", str(plan), "--yes", path=server.path)
            result = load.stop()
    finally:
        server.close()
    result.assert_clean()
    assert "Upgraded 3 of 3 nodes" in output
    site.assert_upgraded()
    assert "AddColumn: migrated" in next(s for s in site.document()["steps"] if s["do"] == "migrate")["output"]


def test_a_host_that_refuses_the_key_stops_the_upgrade_and_what_ssh_said_is_told(site: UpgradeSite) -> None:
    server = SshServer(site.folder / "ssh", {host: name for name, host in HOSTS.items()}, {})
    try:
        (server.folder / "user_key.pub").unlink()
        plan = site.folder / "plan.yml"
        plan.write_text(yaml.safe_dump({**PLAN, "hosts": HOSTS}))
        output = site.upgrade("run", str(plan), "--yes", code=1, path=server.path)
        assert "stop api1 failed" in output
        assert "Permission denied" in output
        site.upgrade("abort", "--yes", path=server.path, code=1)
    finally:
        server.close()
    assert site.ask()[0] == 200
