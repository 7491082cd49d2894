"""API nodes that are not ours (examples/foreign_node.py): pings, DNS by hook and follow, and the doctor."""

import json
import shlex
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.harness import doctor
from tests.support.nameservers import NameServer, running, write_key
from tests.support.ports import free_port
from tests.support.postgres import database, postgres_server
from tests.support.site import ROOT, NodeProcess, Site
from tests.support.waiting import until

__all__ = ["database", "postgres_server"]

MANAGEMENT, API = "managementtokenmanagementtoken1234", "apitokenapitokenapitokenapitoken12"
NODES = "/arvados/v1/nodes"
ZONE = "cluster.example."
SPELLINGS = (
    "/arvados/v1/nodes/{uuid}/ping",
    "/arvados/v1/nodes/{uuid}/ping/",
    "/arvados/v1/nodes/{uuid}/ping.json",
    "/%61rvados/v1/node%73/{uuid}/%70ing",
    "//arvados//v1/nodes/{uuid}//ping",
    "/arvados/./v1/nodes/{uuid}/ping",
    "/arvados/v1/x/../nodes/{uuid}/ping",
)


class ForeignNode(NodeProcess):
    """One of them. `options`: store, lock and so on."""

    def launch(self) -> None:
        program = [sys.executable, "-P", str(ROOT / "examples/foreign_node.py"), "--name", self.name]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            command = [*program, "--port", str(self.port), *self.options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)


class ForeignSite(Site):
    """Three of them on two hosts: api1 and api2 share one host's locks, api3 has its own."""

    def __init__(self, *, preset: str | None = "arvados", node_options: tuple[str, ...] = (), **config: Any) -> None:
        super().__init__(workers=1)
        self.store = self.folder / "store.db"
        shared = (
            "--store", str(self.store), "--management-token-file", self.secret("management-token", MANAGEMENT),
            "--api-token-file", self.secret("api-token", API), *node_options,
        )  # fmt: skip
        hosts = {"api1": "host1", "api2": "host1", "api3": "host2"}
        self.nodes = {
            name: ForeignNode(name, node.port, self.folder, (*shared, "--lock-dir", str(self.folder / hosts[name])))
            for name, node in self.nodes.items()
        }
        (self.folder / "state").mkdir(0o700)
        self.extra = {
            "preset": preset,
            "nodes": {
                name: {"url": f"http://127.0.0.1:{node.port}", "capacity": 64} for name, node in self.nodes.items()
            },
            "health": {"token": {"file": str(self.folder / "management-token")}},
            "versions": {"path": "/discovery/v1/apis/arvados/v1/rest"},
            "internal_networks": ["127.0.0.0/8"],
            "limits": {"connections": 200, "tunnels": 100},
            "timeouts": {"upstream_idle": "250ms"},
            **config,
        }

    def secret(self, name: str, value: str) -> str:
        path = self.folder / name
        path.touch(0o600)
        path.write_text(value + "\n")
        return str(path)

    def machine(self, hostname: str) -> dict[str, Any]:
        """Make the record of a compute node, through the balancer."""
        fields = {"Authorization": f"Bearer {API}", "Content-Type": "application/x-www-form-urlencoded"}
        status, _, found = self.ask("POST", NODES, headers=fields, body=f"hostname={hostname}".encode())
        assert status == 200, found
        assert isinstance(found, dict)
        return found

    def delete(self, machine: dict[str, Any]) -> None:
        status, _, found = self.ask("DELETE", f"{NODES}/{machine['uuid']}", headers={"Authorization": f"Bearer {API}"})
        assert status == 200, found

    def ping(self, machine: dict[str, Any], address: str, spelling: str = SPELLINGS[0]) -> str:
        """Ping as a compute node does; returns which node answered."""
        secret = machine["info"]["ping_secret"]
        query = f"?ping_secret={secret}&local_ipv4={address}"
        status, fields, found = self.ask("POST", spelling.format(uuid=machine["uuid"]) + query)
        assert status == 200, found
        return fields["x-node"]

    def logged(self, event: str) -> Counter[str]:
        """How often each node did something, by the store that they share."""
        with closing(sqlite3.connect(self.store, timeout=30)) as db:
            return Counter(node for (node,) in db.execute("SELECT node FROM logs WHERE event = ?", (event,)))


Build = Callable[..., ForeignSite]


@pytest.fixture
def foreign() -> Iterator[Build]:
    """Make running sites that end with the test."""
    with ExitStack() as ends:

        def make(**options: Any) -> ForeignSite:
            site = ForeignSite(**options)
            ends.callback(site.close)
            site.start()
            return site

        yield make


# --- DNS beside them ----------------------------------------------------------------------------------------------


class Dns:
    """The builtin name server, a sender, and the section that both read."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        (folder / "dsn").touch(0o600)
        (folder / "dsn").write_text(dsn + "\n")
        port = free_port()
        target = {
            "kind": "builtin", "servers": ["127.0.0.1"], "port": port, "key_file": str(write_key(folder)),
            "poll": "100ms", "retry": {"first": "50ms", "most": "200ms"},
        }  # fmt: skip
        record = {"name": "{{ fqdn }}.", "each": "ipv4", "type": "A", "data": "{{ item }}"}
        self.section: dict[str, Any] = {
            "database_file": str(folder / "dsn"),
            "domain": ZONE.rstrip("."),
            "spool": {"dir": str(folder / "spool")},
            "targets": {"main": target},
            "zones": [{"name": ZONE.rstrip("."), "target": "main"}],
            "templates": {"compute": {"records": [record]}},
        }
        self.config = self.write("dns.yml")
        command = self.command("authority")
        self.server = NameServer("builtin", folder / "ns", port, command, (ZONE,), log=folder / "ns.log")
        self.server.folder.mkdir()

    def write(self, name: str, **more: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps({"cluster": "zzzzz", "dns": {**self.section, **more}}))
        return path

    def command(self, *words: str, config: Path | None = None) -> list[str]:
        program = [sys.executable, "-P", "-m", "balancer.cli", "dns"]
        return [*program, *words, "--config", str(config or self.config)]

    @contextmanager
    def started(self, *words: str, config: Path | None = None) -> Iterator[Path]:
        """A `dns` command that runs meanwhile; yields the file with what it says."""
        log = self.folder / f"{words[0]}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(self.command(*words, config=config), stdout=said, stderr=said, cwd=ROOT)
        try:
            yield log
        finally:
            process.terminate()
            process.wait(20)

    def until_served(self, hostname: str, *addresses: str) -> None:
        def served() -> bool:
            return self.server.dig(f"{hostname}.{ZONE}") == list(addresses)

        until(served, 60, f"{hostname} is served as {addresses or 'nothing'}")


@pytest.fixture
def dns(database: str, tmp_path: Path) -> Iterator[Dns]:
    """The name server with its zone, and a sender."""
    made = Dns(tmp_path, database)
    with running(made.server), made.started("run"):
        yield made


# --- what a user sees ---------------------------------------------------------------------------------------------


def test_pings_reach_the_designated_node_alone_and_the_next_one_when_it_is_killed(foreign: Build) -> None:
    site = foreign()
    machine = site.machine("compute1")
    assert {site.ping(machine, "192.0.2.1", spelling) for spelling in SPELLINGS for _ in range(3)} == {"api1"}
    assert site.logged("ping") == {"api1": 3 * len(SPELLINGS)}
    site.nodes["api1"].kill()
    until(lambda: site.ask("POST", SPELLINGS[0].format(uuid="x"))[1].get("x-node") == "api2", 20, "api2 takes pings")
    assert {site.ping(machine, "192.0.2.1", spelling) for spelling in SPELLINGS for _ in range(3)} == {"api2"}
    assert site.logged("ping") == {name: 3 * len(SPELLINGS) for name in ("api1", "api2")}
    site.nodes["api1"].start()
    site.until_healthy(3)
    assert {site.ping(machine, "192.0.2.1") for _ in range(5)} == {"api2"}  # nothing goes back by itself


def test_without_the_route_pings_reach_several_nodes(foreign: Build) -> None:
    """The negative control of the test above."""
    site = foreign(preset=None)
    machine = site.machine("compute1")
    assert len({site.ping(machine, "192.0.2.1") for _ in range(30)}) > 1


def test_their_job_runs_once_a_host_and_not_once_a_site(foreign: Build) -> None:
    runs = foreign().logged("sweep")
    assert runs["api1"] + runs["api2"] == 1
    assert runs["api3"] == 1


def test_no_shell_sees_the_update_command_and_its_failure_fails_no_ping(foreign: Build, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps(sys.argv[2:])); sys.exit(3)"
    words = [sys.executable, "-c", program, str(seen), "%{hostname}", "ip=%{ip_address}; exit", "$(id)"]
    site = foreign(node_options=("--update-command", shlex.join(words)))
    site.ping(site.machine("compute1"), "192.0.2.1")
    assert json.loads(seen.read_text()) == ["compute1", "ip=192.0.2.1; exit", "$(id)"]
    assert "update command for compute1" in (site.folder / "api1.log").read_text()


@pytest.mark.pg
def test_the_hook_as_their_update_command_brings_records_also_after_a_fail_over(foreign: Build, dns: Dns) -> None:
    words = dns.command("hook", "--hostname", "%{hostname}", "--ip", "%{ip_address}")
    site = foreign(node_options=("--update-command", shlex.join(words)))
    first, second = site.machine("compute1"), site.machine("compute2")
    assert site.ping(first, "192.0.2.1") == "api1"
    dns.until_served("compute1", "192.0.2.1")
    site.nodes["api1"].kill()
    assert site.ping(second, "192.0.2.2") == "api2"
    dns.until_served("compute2", "192.0.2.2")
    third = site.machine("compute3")
    site.ping(third, "192.0.2.1")  # the address of compute1, which is gone
    dns.until_served("compute3", "192.0.2.1")
    dns.until_served("compute1")
    site.delete(second)
    dns.until_served("compute2")


@pytest.mark.pg
def test_follow_reads_their_list_through_the_balancer_and_brings_records(foreign: Build, dns: Dns) -> None:
    site = foreign()
    source = {"api": f"http://127.0.0.1:{site.port}", "token_file": str(site.folder / "api-token"), "interval": "200ms"}
    with dns.started("follow", config=dns.write("follow.yml", follow=source)) as log:
        first, second = site.machine("compute1"), site.machine("compute2")
        site.ping(first, "192.0.2.1")
        site.ping(second, "192.0.2.2")
        dns.until_served("compute1", "192.0.2.1")
        dns.until_served("compute2", "192.0.2.2")
        site.nodes["api1"].kill()
        site.delete(second)
        dns.until_served("compute2")
        dns.until_served("compute1", "192.0.2.1")
    said = log.read_text()
    assert "Traceback" not in said
    assert first["info"]["ping_secret"] not in said
    assert API not in said


def inventory(site: ForeignSite) -> Path:
    """Let the balancer's nodes come from a config.yml that says what these nodes do."""
    urls: dict[str, Any] = {f"http://127.0.0.1:{node.port}": {} for node in site.nodes.values()}
    cluster = {
        "Services": {"Controller": {"InternalURLs": urls}},
        "API": {"MaxConcurrentRequests": 64},
        "ManagementToken": MANAGEMENT,
        "AuditLogs": {"MaxAge": "336h", "MaxDeleteBatch": 100},
        "Containers": {"SLURM": {"Managed": {"DNSServerUpdateCommand": "update %{hostname} %{ip_address}"}}},
    }
    arvados = Path(site.secret("config.yml", json.dumps({"Clusters": {"zzzzz": cluster}})))
    path = site.folder / "inventory.yml"
    path.write_text(json.dumps({**site.config(), "cluster": "zzzzz", "nodes": {"from": {"arvados": str(arvados)}}}))
    return path


def test_the_doctor_tells_what_such_nodes_bring_and_takes_no_offence_at_generated_at(foreign: Build) -> None:
    site = foreign()
    path = "/discovery/v1/apis/arvados/v1/rest"
    assert len({node.ask("GET", path)["generatedAt"] for node in site.nodes.values()}) == 3
    # From outside nobody sees a file lock.
    assert doctor(site.config_path, "--strict").findings == []
    # With their config.yml it is known what they do on their own hosts.
    found = {finding["rule"]: finding for finding in doctor(inventory(site)).findings}
    assert found.keys() == {"job-on-every-node", "dns-by-host-files", "config-not-running"}
    assert "3 nodes" in found["dns-by-host-files"]["evidence"]
    # The silence is not blindness: what else differs is found, and pings that no route takes to one node.
    site.nodes["api3"].kill()
    site.nodes["api3"].options += ("--version", "2.0.5")
    site.nodes["api3"].start()
    assert "versions-differ" in doctor(site.config_path).rules
    without = site.folder / "without.yml"
    without.write_text(json.dumps({**site.config(), "preset": None}))
    assert "ping-not-designated" in doctor(without).rules
