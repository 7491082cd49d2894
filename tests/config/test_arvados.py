"""Nodes from an Arvados config.yml, and nothing else of it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from balancer.cli import build
from balancer.config import arvados
from balancer.config.errors import Severity
from balancer.config.file import load
from balancer.config.secrets import reveal
from balancer.config.section import ClusterSecret
from tests.config.support import NOW, written

CANARY = re.compile("canary[0-9]+")
FILE = """\
Clusters:
  xarv1:
    ManagementToken: canary01
    SystemRootToken: canary02
    PostgreSQL:
      Connection: {host: db, password: canary03, "canary04": x}
    Collections: {BlobSigningKey: canary05}
    API:
      MaxConcurrentRequests: 64
      MaxConcurrentRailsRequests: 16
      RequestTimeout: 7m
      Extra: canary06
    TLS: {Insecure: true, Key: canary07}
    Services:
      SAMPLE: {InternalURLs: {"http://canary08": {}}}
      RailsAPI: {InternalURLs: {"http://localhost:8004": {}}}
      Controller:
        ExternalURL: "https://api.example.org"
        InternalURLs:
          SAMPLE: {ListenURL: "http://canary09"}
          "http://10.0.0.11:8003/": {ListenURL: "http://canary10:9999"}
          "https://ctl2.example.org": {}
          "http://10.0.0.13:8003": {}
          "http://10.0.0.13:8103": {}
          "http://user:canary11@10.0.0.14": {}
          "ftp://10.0.0.15": {}
    Users: {AutoAdminUserWithEmail: canary12}
    Login: {LDAP: {SearchBindPassword: canary13}}
"""
OURS = """\
preset: arvados
listen: [{{bind: "127.0.0.1:1"}}]
internal_networks: [10.0.0.0/8]
nodes:
  from: {{arvados: {file}, service: Controller}}
  overrides:
    10.0.0.11: {{weight: 50, capacity: 3}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, "arvados.yml", FILE)


def test_nodes_are_the_keys_of_internal_urls(file: Path) -> None:
    cluster = arvados.read(str(file))
    assert [(node.name, str(node.url), node.capacity) for node in cluster.nodes] == [
        ("10.0.0.11", "http://10.0.0.11:8003", 16),
        ("ctl2.example.org", "https://ctl2.example.org:443", 16),
        ("10.0.0.13-8003", "http://10.0.0.13:8003", 16),
        ("10.0.0.13-8103", "http://10.0.0.13:8103", 16),
    ]
    assert (cluster.id, cluster.request_timeout_s, cluster.tls_insecure) == ("xarv1", 420.0, True)
    assert cluster.external_host == "api.example.org"
    assert [note.partition(":")[0] for note in cluster.skipped] == ["left out", "left out"]


@pytest.mark.parametrize(
    ("api", "capacity"),
    [
        ("MaxConcurrentRequests: 8", 8),
        ("MaxConcurrentRequests: 8\n      MaxConcurrentRailsRequests: 0", 8),
        ('MaxConcurrentRequests: "8"\n      MaxConcurrentRailsRequests: 9', 8),
        ("MaxItems: 1", 0),
    ],
)
def test_capacity_is_the_smaller_limit_that_the_file_sets(tmp_path: Path, api: str, capacity: int) -> None:
    text = re.sub(r"MaxConcurrentRequests: 64\n *MaxConcurrentRailsRequests: 16", api, FILE)
    assert arvados.read(str(written(tmp_path, "a.yml", text))).nodes[0].capacity == capacity


def test_only_what_is_named_is_kept(file: Path) -> None:
    assert len(CANARY.findall(repr(yaml.safe_load(FILE)))) == 13, "a reader that keeps all would be seen"
    assert not CANARY.search(repr(arvados.read(str(file))))


def test_the_management_token_is_read_only_when_it_is_asked_for(file: Path) -> None:
    config = written(file.parent, "ours.yml", OURS.format(file=file))
    loaded = load(config, env={}, now=NOW)
    token = loaded.require().health.token
    assert token == ClusterSecret(arvados=str(file))
    assert reveal(token) == "canary01"
    assert "canary01" not in repr(loaded)


def test_an_inventory_becomes_nodes_with_overrides(file: Path) -> None:
    loaded = load(written(file.parent, "ours.yml", OURS.format(file=file)), env={}, now=NOW)
    config = loaded.require()
    assert config.cluster == "xarv1"
    assert {name: (node.weight, node.capacity) for name, node in config.node_map.items()} == {
        "10.0.0.11": (50, 3),
        "ctl2.example.org": (100, 16),
        "10.0.0.13-8003": (100, 16),
        "10.0.0.13-8103": (100, 16),
    }
    assert [fault.message for fault in loaded.warnings] == [
        "response 310s is below Arvados' API.RequestTimeout 7m",
        f"TLS.Insecure is on in {file}",
        f"left out: a node's URL cannot hold credentials (in {file})",
        f"left out: 'ftp://10.0.0.15' is not a node's URL (in {file})",
    ]


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("service: Controller", "service: Controler", "nodes.from.service", "no service Controler in cluster xarv1"),
        ("service: Controller", "cluster: other", "nodes.from.cluster", "has no cluster other"),
        ("arvados.yml", "nothing.yml", "nodes.from.arvados", "cannot read"),
        ("arvados.yml", "ours.yml", "nodes.from.arvados", "is not an Arvados configuration"),
        ("10.0.0.11:", "10.0.0.12:", "nodes.overrides.10.0.0.12", "there is no node '10.0.0.12'"),
    ],
)
def test_what_is_wrong_with_an_inventory_is_said_at_its_key(
    file: Path, old: str, new: str, path: str, message: str
) -> None:
    ours = OURS.format(file=file).replace(old, new)
    loaded = load(written(file.parent, "ours.yml", ours), env={}, now=NOW)
    found = [fault for fault in loaded.faults if fault.severity is Severity.ERROR]
    assert [fault.path for fault in found] == [path]
    assert message in found[0].message


def test_of_several_clusters_one_is_named(tmp_path: Path) -> None:
    text = FILE + FILE.partition("\n")[2].replace("xarv1", "xarv2")
    file = written(tmp_path, "arvados.yml", text)
    config = written(tmp_path, "ours.yml", OURS.format(file=file))
    (error,) = load(config, env={}, now=NOW).errors
    assert error.message == f"{file} holds 2 clusters"
    config.write_text("cluster: xarv2\n" + config.read_text())
    assert load(config, env={}, now=NOW).require().cluster == "xarv2"


@pytest.mark.parametrize(
    "text", ["Clusters: {x: {ManagementToken: canary01", "\tcanary01: {", "- canary01", "canary01"]
)
def test_a_broken_file_is_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(arvados.ArvadosError) as caught:
        arvados.read(str(written(tmp_path, "arvados.yml", text)))
    assert not CANARY.search(f"{caught.value!r} {caught.value.hint} {caught.value.__cause__}")


@pytest.mark.parametrize(
    "command",
    [
        ["config", "discover", "{file}"],
        ["config", "discover", "{file}", "--json"],
        ["config", "discover", "{file}", "--service", "Nobody"],
        ["config", "discover", "{file}", "--cluster", "nobody"],
        ["config", "init", "-", "--from-arvados", "{file}"],
        ["config", "show", "{ours}"],
        ["config", "show", "{ours}", "--json", "--origin"],
        ["config", "diff", "{ours}", "{ours}"],
        ["check", "{ours}"],
        ["check", "{ours}", "--format", "json"],
        ["check", "{file}"],
        ["check", "{file}", "--format", "json"],
        ["check", "{file}", "--format", "github"],
        ["check", "{flow}"],
    ],
    ids=" ".join,
)
def test_no_secret_of_the_file_is_in_any_output(file: Path, command: list[str]) -> None:
    ours = written(file.parent, "ours.yml", OURS.format(file=file))
    flow = written(file.parent, "flow.yml", json.dumps(yaml.safe_load(FILE)))
    arguments = [part.format(file=file, ours=ours, flow=flow) for part in command]
    result = CliRunner().invoke(build(), arguments)
    said = f"{result.output} {result.stderr} {result.exception!r} {result.exception}"
    assert not CANARY.search(said), said


def test_discover_prints_nodes_for_people_and_programs(file: Path) -> None:
    table = CliRunner().invoke(build(), ["config", "discover", str(file)])
    assert table.stdout.splitlines()[:2] == [
        "NODE              URL                           CAPACITY",
        "10.0.0.11         http://10.0.0.11:8003         16",
    ]
    data = json.loads(CliRunner().invoke(build(), ["config", "discover", str(file), "--json"]).stdout)
    assert data["nodes"][1] == {"name": "ctl2.example.org", "url": "https://ctl2.example.org:443", "capacity": 16}
