"""The doctor beside a running balancer and real nodes: a healthy site is silent, each spoilt one is told of."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.harness import SpoilSite, doctor
from tests.support.ports import free_port
from tests.support.programs import need
from tests.support.site import ROOT, Site
from tests.support.waiting import until

pytestmark = pytest.mark.e2e


def test_a_healthy_site_has_no_finding_and_everything_was_looked_at(site: SpoilSite) -> None:
    seen = doctor(site.config_path, "--strict")
    assert (seen.code, seen.findings, seen.unseen) == (0, [], {})


@pytest.mark.parametrize(
    ("rule", "severity", "spoilt", "evidence"),
    [
        pytest.param("node-sick", "error", {"sick": "pq: connection refused"}, "pq: connection refused", id="sick"),
        pytest.param("health-token", "error", {"token": "another"}, "403", id="other token"),
        pytest.param("health-token", "error", {"token": ""}, "ManagementToken is not set", id="no token there"),
        pytest.param("versions-differ", "error", {"discovery": {"packageVersion": "3.0.0"}}, "3.0.0", id="version"),
        pytest.param("discovery-differs", "error", {"discovery": {"maxItems": 5}}, "maxItems", id="discovery"),
        pytest.param("config-differs", "error", {"exported": {"API": {"Max": 1}}}, "API differ", id="configuration"),
        pytest.param("request-id-lost", "warning", {"echoes_id": False}, "none came back", id="request id"),
        pytest.param("capacity-above-limit", "warning", {"limit": 8}, "takes 8", id="limit"),
    ],
)
def test_a_node_that_differs_is_found(
    site: SpoilSite, rule: str, severity: str, spoilt: dict[str, Any], evidence: str
) -> None:
    with site.node("api2").spoilt(**spoilt):
        found = doctor(site.config_path).only(rule)
    assert (found["severity"], found["subject"]) == (severity, "api2")
    assert evidence in found["evidence"]
    assert found["risk"]
    assert found["fix"]


def test_a_loaded_configuration_file_of_another_hash_is_found(site: SpoilSite) -> None:
    loaded = [f'arvados_config_source_timestamp_seconds{{sha256="{digit * 64}"}} 1.7e9\n' for digit in "ab"]
    with site.node("api1").spoilt(metrics=loaded[0]), site.node("api2").spoilt(metrics=loaded[1]):
        found = doctor(site.config_path).only("config-differs")
    assert "bbbbbbbbbbbb" in found["evidence"]


def test_nodes_on_different_schemas_are_found(site: SpoilSite) -> None:
    level = "arv_api_migration_version"
    with site.node("api1").spoilt(metrics=f"{level} 7\n"), site.node("api2").spoilt(metrics=f"{level} 6\n"):
        found = doctor(site.config_path).only("schema-differs")
    assert "6" in found["evidence"]


def test_discovery_that_leads_to_a_node_is_found(site: SpoilSite) -> None:
    spoilt = {"rootUrl": f"http://127.0.0.1:{site.nodes['api1'].port}/"}
    with site.node("api1").spoilt(discovery=spoilt), site.node("api2").spoilt(discovery=spoilt):
        seen = doctor(site.config_path)
    assert seen.rules == {"discovery-address"}
    assert [finding["subject"] for finding in seen.findings] == ["api1", "api2"]


def test_a_session_that_only_its_node_knows_is_found_and_a_shared_one_is_not(site: SpoilSite) -> None:
    with site.node("api1").spoilt(session="one"), site.node("api2").spoilt(session="two"):
        seen = doctor(site.config_path)
    assert seen.rules == {"session-not-shared"}
    with site.node("api1").spoilt(session="same"), site.node("api2").spoilt(session="same"):
        assert not doctor(site.config_path).findings


def test_apis_that_cannot_run_on_several_nodes_are_found(site: SpoilSite) -> None:
    resources: dict[str, Any] = {
        "resources": {"jobs": {"methods": {"create": {}}}, "repositories": {"methods": {"create": {}}}}
    }
    with site.node("api1").spoilt(discovery=resources), site.node("api2").spoilt(discovery=resources):
        seen = doctor(site.config_path)
    assert seen.rules == {"unsupported-api"}
    assert "jobs, repositories" in seen.findings[0]["evidence"]


def test_a_trash_sweep_on_every_node_is_found(site: SpoilSite) -> None:
    old = {"packageVersion": "1.3.0"}
    with site.node("api1").spoilt(discovery=old), site.node("api2").spoilt(discovery=old):
        assert doctor(site.config_path).only("job-on-every-node")["subject"] == "trash"


def test_a_node_that_hangs_costs_its_deadline_and_hides_nothing_of_the_others(site: SpoilSite) -> None:
    node = site.nodes["api2"]
    with site.node("api1").spoilt(sick="also sick"):
        node.kill(signal.SIGSTOP)
        try:
            seen = doctor(site.config_path, "--timeout", "1s")
        finally:
            node.kill(signal.SIGCONT)
    found = {finding["subject"]: finding for finding in seen.findings}
    assert {name: one["rule"] for name, one in found.items()} == {"api1": "node-sick", "api2": "node-unreachable"}
    assert "no answer within" in found["api2"]["evidence"]


def test_a_node_that_is_down_is_found_unless_it_was_drained(site: SpoilSite) -> None:
    node = site.nodes["api2"]
    node.kill()
    try:
        assert doctor(site.config_path).only("node-unreachable")["subject"] == "api2"
        site.admin("POST", "/v1/nodes/api2/drain", {"force": True})
        assert not doctor(site.config_path).findings
    finally:
        site.admin("POST", "/v1/nodes/api2/undrain", {})
        node.start()
        site.until_healthy(2)


def test_a_file_that_is_not_what_runs_is_found(site: SpoilSite) -> None:
    with other_text(site.config_path, site.config_path.read_text() + "\n"):
        found = doctor(site.config_path).only("config-not-running")
    assert found["fix"] == "arv-balance reload"


def test_a_refused_reload_is_found(site: SpoilSite) -> None:
    with other_text(site.config_path, "version: 2\n"):
        site.cli("reload", code=None)
    assert doctor(site.config_path).only("config-not-running")["severity"] == "error"
    site.cli("reload")
    assert not doctor(site.config_path).findings


@contextmanager
def other_text(path: Path, text: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def test_a_removed_node_of_the_file_is_found_and_forgetting_mends_it(site: SpoilSite) -> None:
    site.cli("nodes", "remove", "api2", "--yes", "--force")
    found = doctor(site.config_path).only("removed-but-listed")
    assert found["subject"] == "api2"
    site.cli(*found["fix"].split()[1:])
    site.until_healthy(2)
    assert not doctor(site.config_path).findings


def test_a_drain_that_was_forgotten_is_found_two_days_later(site: SpoilSite) -> None:
    site.cli("nodes", "drain", "api2", "--reason", "disk swap", "--force")
    try:
        assert not doctor(site.config_path).findings
        words = [sys.executable, "-P", "-m", "balancer", "doctor", "-c", str(site.config_path), "--json"]
        done = subprocess.run(
            [need("faketime"), "-f", "+2d", *words],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=40,
        )  # fmt: skip
        found = {finding["rule"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert (found["old-intent"]["subject"], "disk swap" in found["old-intent"]["evidence"]) == ("api2", True)
    finally:
        site.cli("nodes", "undrain", "api2")
        site.until_healthy(2)


def test_topics_that_a_site_has_nothing_of_are_left_out(site: SpoilSite) -> None:
    text = site.cli("doctor", "-c", str(site.config_path))
    topics = [line.partition("  ")[0] for line in text.splitlines() if "nothing found" in line]
    assert {"nodes", "clocks"} <= set(topics)
    assert not {"dns", "peers", "tls"} & set(topics)


def test_an_admin_socket_for_everybody_is_found(site: SpoilSite) -> None:
    socket = site.folder / "admin.sock"
    socket.chmod(0o666)
    try:
        assert doctor(site.config_path).only("admin-socket-open")["fix"] == f"chmod o= {socket}"
    finally:
        socket.chmod(0o660)


def test_a_designation_that_nobody_can_hold_is_found(site: SpoilSite) -> None:
    site.extra["designated"] = {"dns": {"order": ["api2"], "failover": "manual"}}
    site.write()
    site.cli("reload")
    node = site.nodes["api2"]
    try:
        until(lambda: site.admin("GET", "/v1/designations")["designations"][0]["node"] == "api2", what="api2 holds it")
        site.admin("POST", "/v1/nodes/api2/drain", {"force": True})
        found = doctor(site.config_path).only("designation-vacant")
        assert "api2 holds it and does not serve" in found["evidence"]
    finally:
        site.admin("POST", "/v1/nodes/api2/undrain", {})
        del site.extra["designated"]
        site.write()
        site.cli("reload")
        assert node.is_up()
        site.until_healthy(2)


def test_a_dns_writer_that_is_not_the_designated_node_is_found(site: SpoilSite) -> None:
    holder = site.admin("GET", "/v1/designations")["designations"][0]["node"]
    other = next(name for name in site.nodes if name != holder)
    template = site.folder / "host.j2"
    template.write_text("local-data: {{ hostname }}\n")
    target = {"kind": "files", "dir": str(site.folder), "template": str(template), "node": other}
    seen = doctor(site.variant(dns={"targets": {"unbound": target}}))
    assert seen.rules == {"designation-not-writer", "config-not-running"}
    assert f"{other} writes it; dns: {holder}" in seen.findings[-1]["evidence"]


def test_open_files_below_what_the_configuration_allows_are_found(site: SpoilSite) -> None:
    seen = doctor(site.variant(limits={"connections": 1_000_000}))
    assert {"open-files", "config-not-running"} <= seen.rules <= {"open-files", "config-not-running", "conntrack"}


def test_a_state_directory_that_is_gone_is_found(site: SpoilSite) -> None:
    seen = doctor(site.variant(state={"dir": str(site.folder / "gone")}))
    assert seen.rules == {"config-not-running", "state-not-writable"}


def test_without_the_balancer_what_it_knows_is_named_as_not_looked_at(site: SpoilSite) -> None:
    seen = doctor(site.config_path, "--offline")
    assert not seen.findings
    assert {"the running configuration", "run-time changes", "designations", "open files"} <= seen.unseen.keys()
    assert set(seen.unseen.values()) >= {"--offline"}


def test_nothing_was_changed_by_looking(site: SpoilSite) -> None:
    before = site.admin("GET", "/v1/status")
    events = site.admin("GET", "/v1/events")["events"]
    doctor(site.config_path)
    after = site.admin("GET", "/v1/status")
    assert [before[key] for key in ("generation", "intents", "designations")] == [
        after[key] for key in ("generation", "intents", "designations")
    ]
    assert site.admin("GET", "/v1/events")["events"] == events


def test_people_get_lines_with_evidence_risk_and_what_to_type(site: SpoilSite) -> None:
    with site.node("api2").spoilt(sick="no database"):
        text = site.cli("doctor", "-c", str(site.config_path), code=1)
    lines = text.splitlines()
    place = next(index for index, line in enumerate(lines) if "api2" in line)
    assert "no database" in lines[place]
    assert "node-sick: It takes no requests" in lines[place + 1]
    assert "→ on the node:" in lines[place + 2]
    assert "✓" in text


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[SpoilSite, Site]]:
    """Two balancers in front of the same nodes; the first asks the second, whose TCP side has no tokens."""
    here, there = SpoilSite(), Site(nodes=0, workers=1)
    try:
        here.extra["peers"] = {"lb2": {"admin": f"unix:{there.folder}/admin.sock"}}
        here.extra["designated"] = {"dns": {"failover": "manual"}}
        its_own = {key: there.config()[key] for key in ("listen", "admin", "state", "log")}
        its_own["admin"]["listen"] = f"127.0.0.1:{free_port()}"
        there.config_path.write_text(json.dumps({**here.config(), **its_own, "peers": {}}))
        here.start()
        there.serve()
        there.until_healthy(2)
        yield here, there
    finally:
        there.close()
        here.close()


def test_two_balancers_that_disagree_are_found(pair: tuple[SpoilSite, Site]) -> None:
    here, there = pair

    def differences() -> list[str]:
        (peer,) = here.admin("GET", "/v1/status")["peers"] or [{"asked_at": None, "fault": "", "differences": []}]
        return [str(text) for text in peer["differences"]] if peer["asked_at"] and not peer["fault"] else ["not asked"]

    until(lambda: not differences(), 30, "both agree")
    assert not doctor(here.config_path).findings
    there.admin("POST", "/v1/nodes/api2/drain", {"force": True})
    until(differences, 30, "they differ")
    assert doctor(here.config_path).only("peers-disagree")["subject"] == "lb2"


def test_an_admin_api_that_answers_without_a_token_is_found(pair: tuple[SpoilSite, Site]) -> None:
    assert doctor(pair[1].config_path).only("admin-without-login")["severity"] == "warning"  # this machine alone
