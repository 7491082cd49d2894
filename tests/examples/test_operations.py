"""What lies in examples/ for operators: accepted by the programs it is for, and naming only what there is."""

import getpass
import grp
import json
import os
import pwd
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from balancer.cli.reference import commands
from balancer.config.file import load
from tests.support.programs import need
from tests.support.site import ROOT

EXAMPLES = ROOT / "examples"
PROMETHEUS = EXAMPLES / "prometheus"
UNITS = sorted(path for path in (EXAMPLES / "systemd").iterdir() if path.suffix in (".service", ".socket", ".timer"))
NOTIFY_RELOAD = EXAMPLES / "systemd/notify-reload.conf"
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
_METRIC = re.compile(r"\b(arv_balance_[a-z0-9_]+|arv_api_[a-z0-9_]+|arvados_[a-z0-9_]+)\b(?:\{([^}]*)\})?")
_BY = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")
OF_A_SCRAPE = {"job", "instance", "le"}
# Metrics that other processes export: API nodes (as Arvados' own nodes do), and whoever sends DNS updates.
ELSEWHERE = {
    "arvados_concurrent_requests": set(),
    "arvados_queued_requests": {"queue", "priority"},
    "arv_balance_dns_updates_total": {"zone", "server", "rcode"},
    "arv_balance_dns_pending_changes": {"target", "state"},
    "arv_balance_dns_last_success_timestamp_seconds": {"zone", "server"},
}


def run(*command: str | Path, code: int | None = 0) -> str:
    """Run a checker; returns all it says."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# --- Prometheus and Grafana ----------------------------------------------------------------------------------------


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    run(need("promtool"), "check", "rules", PROMETHEUS / "rules.yml")
    assert "SUCCESS" in run(need("promtool"), "test", "rules", PROMETHEUS / "rules_test.yml")
    run(need("promtool"), "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


def test_promtool_would_see_a_rule_that_never_fires(tmp_path: Path) -> None:
    rules = (PROMETHEUS / "rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(rules.replace("> 14.4 * 0.001", "> 14.4"))
    (tmp_path / "rules_test.yml").write_text((PROMETHEUS / "rules_test.yml").read_text())
    assert "ErrorRatio" in run(need("promtool"), "test", "rules", tmp_path / "rules_test.yml", code=1)


def known_metrics() -> dict[str, set[str]]:
    """The metrics of docs/metrics.md with their labels, as they are exposed."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if not line.startswith("| `arv_"):
            continue
        name, kind, labels = (cell.strip() for cell in line.strip("|").split("|")[:3])
        names = set(re.findall(r"`([a-z0-9_]+)`", labels))
        base = name.strip("`")
        found[base] = names
        if kind == "histogram":
            found |= {f"{base}{part}": names for part in ("_bucket", "_sum", "_count")}
    return found | ELSEWHERE


def expressions(value: Any) -> Iterator[str]:
    """Every PromQL expression in a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("expr", "query") and isinstance(item, str) and "arv" in item:
                yield item
            else:
                yield from expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)


def documents() -> dict[str, Any]:
    return {
        "rules": yaml.safe_load((PROMETHEUS / "rules.yml").read_text()),
        "dashboard": json.loads((EXAMPLES / "grafana/arv-balance.json").read_text()),
    }


@pytest.mark.parametrize("which", ["rules", "dashboard"])
def test_every_metric_and_label_that_is_asked_for_exists(which: str) -> None:
    known, asked = known_metrics(), list(expressions(documents()[which]))
    assert len(asked) > 20
    for expression in asked:
        used = set()
        for name, matchers in _METRIC.findall(re.sub(r'"[^"]*"', '""', expression)):
            assert name in known, f"{name} in {expression}"
            used |= known[name]
            labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)", matchers))
            assert labels <= known[name] | OF_A_SCRAPE, f"{labels - known[name]} of {name} in {expression}"
        for group in _BY.findall(expression):
            labels = {label.strip() for label in group.split(",") if label.strip()}
            assert labels <= used | OF_A_SCRAPE, expression


def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    asked = [one for one in expressions(documents()["dashboard"]) if not one.startswith("label_values")]
    rules = [
        {"record": f"panel:{number}", "expr": one.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, one in enumerate(asked)
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(need("promtool"), "check", "rules", path)


def test_the_dashboard_has_a_data_source_to_choose_and_panels_that_do_not_overlap() -> None:
    dashboard = documents()["dashboard"]
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert "uid" in dashboard
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    rules = [rule for group in documents()["rules"]["groups"] for rule in group["rules"] if "alert" in rule]
    sections = re.findall(r"^## (\S+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    anchors = {rule["annotations"]["runbook_url"] for rule in rules}
    assert anchors == {f"docs/runbooks.md#{name.lower()}" for name in sections}
    assert {rule["labels"]["severity"] for rule in rules} == {"page", "ticket"}


# --- services of the machine ----------------------------------------------------------------------------------------


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/arv-balance", "/bin/true"))
    assert len(UNITS) >= 6
    names = [str(tmp_path / unit.name.replace("@.", "@8003.")) for unit in UNITS]
    assert run(need("systemd-analyze"), "verify", *names) == ""


def test_systemd_accepts_the_drop_in_or_is_too_old_for_it(tmp_path: Path) -> None:
    unit, drop_in = tmp_path / "arv-balance.service", tmp_path / "arv-balance.service.d"
    drop_in.mkdir()
    for source, target in ((EXAMPLES / "systemd/arv-balance.service", unit), (NOTIFY_RELOAD, drop_in / "reload.conf")):
        target.write_text(source.read_text().replace("/usr/bin/arv-balance", "/bin/true"))
    (tmp_path / "arv-balance.socket").write_text((EXAMPLES / "systemd/arv-balance.socket").read_text())
    said = run(need("systemd-analyze"), "verify", unit, code=None).splitlines()
    assert all("service type, ignoring: notify-reload" in line for line in said), said


def test_systemd_would_see_a_mistake(tmp_path: Path) -> None:
    unit = tmp_path / "arv-dns.service"
    text = (EXAMPLES / "systemd/arv-dns.service").read_text().replace("/usr/bin/arv-balance", "/bin/true")
    unit.write_text(text.replace("ProtectHome=yes", "ProtectHome=maybe"))
    said = run(need("systemd-analyze"), "verify", unit, code=None)
    assert re.search("protect ?home", said, re.IGNORECASE)


@pytest.mark.parametrize("name", ["lb1.conf", "lb2.conf"])
def test_keepalived_accepts_its_configuration(tmp_path: Path, name: str) -> None:
    assert keepalived(tmp_path, (EXAMPLES / "keepalived" / name).read_text()) == ""


def test_keepalived_would_see_a_mistake(tmp_path: Path) -> None:
    text = (EXAMPLES / "keepalived/lb1.conf").read_text()
    assert "nopreemt" in keepalived(tmp_path, text.replace("nopreempt\n", "nopreemt\n"))


def keepalived(tmp_path: Path, text: str) -> str:
    """What it says of a configuration, with a user and a program that this machine has."""
    path = tmp_path / "keepalived.conf"
    text = text.replace("script_user arv-balance", "script_user nobody").replace("/usr/bin/arv-balance", "/bin/true")
    path.write_text(text.replace("interface eth0", "interface lo").replace("10.0.0.4/24\n", "10.0.0.4/24 dev lo\n"))
    said = run(need("keepalived"), "-t", "-f", path, code=None).splitlines(keepends=True)
    return "".join(line for line in said if "cannot use a loopback interface" not in line)  # ours has to be there


def test_the_two_balancers_of_keepalived_are_each_other_s_peers() -> None:
    one, two = ((EXAMPLES / "keepalived" / name).read_text() for name in ("lb1.conf", "lb2.conf"))

    def addresses(text: str) -> tuple[str, str]:
        own = re.search(r"unicast_src_ip (\S+)", text)
        peer = re.search(r"unicast_peer \{\s*(\S+)", text)
        assert own is not None
        assert peer is not None
        return own[1], peer[1]

    assert addresses(one) == tuple(reversed(addresses(two)))
    assert set(re.findall(r"virtual_router_id \d+", one + two)) == {"virtual_router_id 51"}


def test_logrotate_accepts_its_configuration(tmp_path: Path) -> None:
    user, group = getpass.getuser(), grp.getgrgid(pwd.getpwuid(os.getuid()).pw_gid).gr_name
    text = (EXAMPLES / "logrotate/arv-balance").read_text()
    (tmp_path / "access.log").write_text("{}\n")
    text = text.replace("/var/log/arv-balance", str(tmp_path)).replace("arv-balance adm", f"{user} {group}")
    (tmp_path / "rotate").write_text(text)
    said = run(need("logrotate"), "-d", "-s", tmp_path / "state", tmp_path / "rotate")
    assert "error" not in said
    assert f"considering log {tmp_path}/access.log" in said


# --- containers ------------------------------------------------------------------------------------------------------


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert run(hadolint, EXAMPLES / "docker/Dockerfile") == ""


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "docker/compose.yml").read_text())
    return found


def test_compose_names_only_secrets_volumes_and_services_that_it_declares() -> None:
    document = compose()
    Draft202012Validator(COMPOSE).validate(document)
    for name, service in document["services"].items():
        secrets = {one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())}
        assert secrets <= document["secrets"].keys(), name
        assert set(service.get("depends_on", ())) <= document["services"].keys(), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (EXAMPLES / "docker" / source).exists(), volume
            else:
                assert source in document["volumes"], volume


# The parts of the Compose specification that the example uses; anything else is a mistake of ours.
_SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {"type": "string"},
        "build": {"type": "object", "required": ["context", "dockerfile"]},
        "command": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object"},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^([\d.]+:)?\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"type": "string"}},
        "secrets": {"type": "array"},
        "healthcheck": {"type": "object"},
        "read_only": {"type": "boolean"},
        "tmpfs": {"type": "array", "items": {"type": "string", "pattern": "^/"}},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "stop_grace_period": {"type": "string", "pattern": r"^\d+s$"},
        "ulimits": {"type": "object", "required": ["nofile"]},
        "depends_on": {"type": "array", "items": {"type": "string"}},
        "restart": {"enum": ["unless-stopped", "always", "no"]},
    },
}
COMPOSE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "services": {"type": "object", "additionalProperties": _SERVICE},
        "secrets": {"type": "object", "additionalProperties": {"type": "object", "required": ["file"]}},
        "volumes": {"type": "object"},
    },
}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_accepts_the_manifests(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if not document["apiVersion"].startswith("monitoring.coreos.com/"):  # a resource of the Prometheus operator
            kubernetes_validate.validate(document, "1.33", strict=True)


def test_kubernetes_gives_a_pod_longer_than_its_drain_takes() -> None:
    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes/arv-balance.yaml").read_text()))
    config, pod = documents[0]["data"]["config.yml"], documents[1]["spec"]["template"]["spec"]
    drain = yaml.safe_load(config)["drain"]["timeout"]
    container = pod["containers"][0]
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= int(drain.removesuffix("s")) + waits
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"  # says nothing of nodes or databases


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_the_configuration_in_a_container_is_valid(kind: str, tmp_path: Path) -> None:
    if kind == "docker":
        text = (EXAMPLES / "docker/balancer.yml").read_text()
    else:
        text = next(yaml.safe_load_all((EXAMPLES / "kubernetes/arv-balance.yaml").read_text()))["data"]["config.yml"]
    (tmp_path / "config.yml").write_text(text)
    assert not load(tmp_path / "config.yml", look_at_files=False).errors


def test_the_index_names_every_file_or_its_folder() -> None:
    linked = re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text())
    assert all((EXAMPLES / target).exists() for target in linked)
    tops = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert tops == {target.split("/")[0] for target in linked} - {".."}


# --- our own commands ------------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of ours that an example runs."""
    for path in (*UNITS, *(EXAMPLES / "keepalived").glob("*.conf")):
        for line in re.findall(r"/usr/bin/arv-balance ([^\"\n]*)", path.read_text()):
            yield path.name, shlex.split(line)
    for name, service in compose()["services"].items():
        if service["image"] == "arv-balance" and "command" in service:
            yield f"compose.yml {name}", service["command"]
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            pod = document.get("spec", {}).get("template", {}).get("spec", {})
            yield from ((path.name, one["args"]) for one in pod.get("containers", ()))


def test_every_command_of_ours_in_an_example_exists_with_its_options() -> None:
    known = {words.removeprefix("arv-balance").strip(): command for words, command in commands()}
    lines = list(command_lines())
    assert len(lines) >= 10
    for where, words in lines:
        name = words[0] if " ".join(words[:2]) not in known else " ".join(words[:2])
        assert name in known, (where, words)
        options = {option for param in known[name].params for option in param.opts}
        used = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert used <= options, (where, words)
