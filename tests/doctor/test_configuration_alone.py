"""The doctor without a balancer: nodes, certificates, keys, clocks, name servers and this machine, from the file."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from balancer.cli.exits import Exit
from dnsupdate.keys import Key
from tests.doctor.harness import TOKEN, LikeArvados, Seen, SpoilSite, doctor
from tests.support import nameservers
from tests.support.ports import free_port
from tests.support.programs import lacking, need
from tests.support.site import ROOT
from tests.support.upstream import Request, Sleep, Step, Upstream, answer
from tests.support.waiting import until

pytestmark = pytest.mark.e2e
FAKETIME = str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), ""))


@pytest.fixture(scope="module")
def site() -> Iterator[SpoilSite]:
    """Two nodes, and no balancer."""
    found = SpoilSite()
    try:
        for node in found.nodes.values():
            node.launch()
        until(lambda: all(node.is_up() for node in found.nodes.values()), 20, "the nodes listen")
        yield found
    finally:
        found.close()


def examined(site: SpoilSite, *words: str, **changes: Any) -> Seen:
    return doctor(site.variant(**changes), *words)


def test_a_healthy_site_has_no_finding(site: SpoilSite) -> None:
    seen = examined(site)
    assert not seen.findings
    assert "the balancer does not answer" in seen.unseen["the running configuration"]


def test_a_node_that_closes_idle_connections_before_we_do_is_found(site: SpoilSite) -> None:
    with site.node("api2").spoilt(idle_s=0.5):
        found = examined(site, timeouts={"upstream_idle": "1500ms"}).only("keepalive-too-short")
    assert found["subject"] == "api2"
    assert "upstream_idle is 1.5s" in found["evidence"]


def test_nodes_that_were_not_watched_for_long_enough_share_a_line_that_says_how_long_is(site: SpoilSite) -> None:
    seen = examined(site, "--timeout", "1s", timeouts={"upstream_idle": "15s"})
    assert not seen.findings
    assert "to the end: --timeout 17s" in seen.unseen["idle connections of api1, api2"]


def test_a_node_that_answers_a_byte_at_a_time_costs_its_deadline(site: SpoilSite) -> None:
    def drip(_: Request) -> list[Step]:
        return [step for byte in answer(b"{}") * 50 for step in (bytes([byte]), Sleep(0.05))]

    with Upstream(drip) as slow:
        nodes = {"api3": {"url": f"http://127.0.0.1:{slow.port}", "capacity": 64}}
        found = examined(site, "--timeout", "1s", nodes=nodes).only("node-unreachable")
    assert found["subject"] == "api3"
    assert "no answer within" in found["evidence"]


def test_a_node_that_repeats_our_token_does_not_bring_it_into_the_report(site: SpoilSite) -> None:
    def repeat(request: Request) -> bytes:
        return answer(f"who are you, {request.one('Authorization')}?".encode())

    with Upstream(repeat) as node:
        seen = examined(site, nodes={"api3": {"url": f"http://127.0.0.1:{node.port}", "capacity": 64}})
    evidence = {finding["rule"]: finding["evidence"] for finding in seen.findings}
    assert "who are you" in evidence["node-sick"]
    assert TOKEN not in json.dumps([seen.findings, seen.unseen])


# --- clocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "words"), [("+30s", "ahead of ours"), ("-1h", "behind ours")])
def test_a_clock_that_is_wrong_is_found(site: SpoilSite, offset: str, words: str) -> None:
    node = LikeArvados("api3", free_port(), site.folder)
    need("faketime")
    node.wrapper = ("env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME={offset}")  # its own program would outlive a kill
    node.start()
    try:
        nodes = {"api3": {"url": f"http://127.0.0.1:{node.port}", "capacity": 64}}
        found = examined(site, nodes=nodes).only("clock-skew")
        assert found["subject"] == "api3"
        assert words in found["evidence"]
        assert not examined(site, "--skew", "2h", nodes=nodes).findings
    finally:
        node.kill()


# --- certificates and keys ---------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, *, days: float = 365.0, authority: trustme.CA | None = None) -> dict[str, str]:
    """Write a certificate and its key."""
    now = datetime.now(UTC)
    made = (authority or trustme.CA()).issue_cert(
        name, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
    )
    cert, key = folder / f"{name}-{days}.pem", folder / f"{name}-{days}.key"
    cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    key.touch(0o600)
    key.write_bytes(made.private_key_pem.bytes())
    return {"cert": str(cert), "key": str(key)}


def test_a_certificate_that_ends_soon_is_found(site: SpoilSite) -> None:
    pair = certificate(site.folder, "api.test.example", days=10)
    listen = [{"bind": f"127.0.0.1:{site.port}", "tls": pair}]
    found = examined(site, listen=listen).only("certificate-expires")
    assert (found["severity"], found["subject"]) == ("warning", pair["cert"])
    assert not examined(site, "--expiry", "5d", listen=listen).findings


def test_a_certificate_that_is_over_is_found(site: SpoilSite) -> None:
    pair = certificate(site.folder, "api.test.example", days=-1)
    seen = examined(site, listen=[{"bind": f"127.0.0.1:{site.port}", "tls": pair}])
    assert seen.only("certificate-expires")["severity"] == "error"
    assert seen.code == Exit.NO


def test_a_certificate_for_another_name_than_clients_are_sent_to_is_found(site: SpoilSite) -> None:
    pair = certificate(site.folder, "other.test.example")
    seen = examined(site, listen=[{"bind": f"127.0.0.1:{site.port}", "tls": pair}])
    assert {finding["rule"]: finding["severity"] for finding in seen.findings} == {
        "certificate-name": "error",
        "discovery-address": "warning",
    }


@pytest.mark.parametrize(("mode", "words"), [(0o644, "everyone may read"), (0o660, "its group may write")])
def test_a_private_key_for_others_is_found(site: SpoilSite, mode: int, words: str) -> None:
    pair = certificate(site.folder, "api.test.example")
    Path(pair["key"]).chmod(mode)
    found = examined(site, listen=[{"bind": f"127.0.0.1:{site.port}", "tls": pair}]).only("key-permissions")
    assert found["subject"] == pair["key"]
    assert words in found["evidence"]


@pytest.mark.parametrize(
    ("issued_for", "days", "words"),
    [("api3.test.example", 5.0, "expires in"), ("elsewhere.test.example", 365.0, "it is for elsewhere.test.example")],
)
def test_a_node_s_certificate_that_ends_soon_or_is_for_another_name_is_found(
    site: SpoilSite, issued_for: str, days: float, words: str
) -> None:
    authority = trustme.CA()
    pair = certificate(site.folder, issued_for, days=days, authority=authority)
    authority.cert_pem.write_to_path(str(site.folder / "ca.pem"))
    node = LikeArvados("api3", free_port(), site.folder, ("--cert", pair["cert"], "--key", pair["key"]))
    node.start()
    try:
        tls = {"ca": str(site.folder / "ca.pem"), "server_name": "api3.test.example"}
        seen = examined(site, nodes={"api3": {"url": f"https://127.0.0.1:{node.port}", "capacity": 64, "tls": tls}})
    finally:
        node.kill()
    found = {finding["rule"]: finding for finding in seen.findings}
    assert words in found["node-certificate"]["evidence"]
    assert found.keys() <= {"node-certificate", "node-unreachable"}


# --- name servers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bind(site: SpoilSite) -> Iterator[nameservers.NameServer]:
    need("named")
    with nameservers.running(nameservers.bind(site.folder / "bind", ["compute.test.example."])) as server:
        yield server


def dns(server: nameservers.NameServer, key: Path) -> dict[str, Any]:
    target = {"servers": ["127.0.0.1"], "port": server.port, "key_file": str(key)}
    return {"targets": {"ns1": target}, "zones": [{"name": "compute.test.example", "target": "ns1"}]}


def test_a_name_server_in_order_is_no_finding(site: SpoilSite, bind: nameservers.NameServer) -> None:
    assert not examined(site, dns=dns(bind, nameservers.write_key(site.folder))).findings


def test_a_dns_key_with_another_secret_is_found(site: SpoilSite, bind: nameservers.NameServer) -> None:
    wrong = Key(nameservers.KEY.name, nameservers.KEY.algorithm, base64.b64decode("AAAA" * 11))
    found = examined(site, dns=dns(bind, nameservers.write_key(site.folder, wrong))).only("dns")
    assert "BADSIG" in found["evidence"]
    assert found["fix"] == "copy the key file anew"


def test_a_dns_key_without_rights_is_found(site: SpoilSite, bind: nameservers.NameServer) -> None:
    found = examined(site, dns=dns(bind, nameservers.write_key(site.folder, nameservers.OTHER_KEY))).only("dns")
    assert "REFUSED" in found["evidence"]


def test_a_clock_that_the_name_server_does_not_accept_is_found(site: SpoilSite, bind: nameservers.NameServer) -> None:
    path = site.variant(dns=dns(bind, nameservers.write_key(site.folder)))
    done = subprocess.run(
        [need("faketime"), "-f", "+10m", sys.executable, "-P", "-m", "balancer", "doctor", "-c", str(path), "--json"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=40,
    )  # fmt: skip
    found = {finding["rule"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "BADTIME" in found["dns"]["evidence"]
    assert found.keys() == {"dns", "clock-skew"}  # both nodes are behind, as seen from here


def test_a_dns_key_that_everyone_may_read_is_found(site: SpoilSite, bind: nameservers.NameServer) -> None:
    key = nameservers.write_key(site.folder)
    key.chmod(0o644)
    seen = examined(site, dns=dns(bind, key))
    assert seen.rules == {"dns", "key-permissions"}  # it is not used then
    assert seen.findings[-1]["subject"] == str(key)


def test_a_name_server_that_is_away_is_found(site: SpoilSite, bind: nameservers.NameServer) -> None:
    section = dns(bind, nameservers.write_key(site.folder))
    section["targets"]["ns1"]["port"] = free_port()
    assert "nothing listens" in examined(site, dns=section).only("dns")["evidence"]


# --- the file ----------------------------------------------------------------------------------------------------


def test_parking_that_ends_before_an_upgrade_step_is_found(site: SpoilSite) -> None:
    found = examined(site, park={"timeout": "20s"}).only("park-too-short")
    assert found["fix"] == "park: {timeout: 40s} or more"


def test_what_check_warns_of_is_found(site: SpoilSite) -> None:
    found = examined(site, trusted_proxies=["0.0.0.0/0"]).only("configuration")
    assert "everybody is a trusted proxy" in found["evidence"]


def test_a_secret_that_cannot_be_used_is_found_and_the_rest_is_looked_at(site: SpoilSite) -> None:
    pair = certificate(site.folder, "api.test.example", days=10)
    seen = examined(
        site,
        health={"token": {"file": str(site.folder / "no-such-token")}},
        listen=[{"bind": f"127.0.0.1:{site.port}", "tls": pair}],
    )
    assert seen.code == Exit.NO
    assert seen.rules == {"configuration", "health-token", "certificate-expires"}
    assert "no-such-token" in seen.findings[0]["evidence"]


def test_a_listener_without_its_key_is_found(site: SpoilSite) -> None:
    pair = certificate(site.folder, "api.test.example")
    Path(pair["key"]).unlink()
    found = examined(site, listen=[{"bind": f"127.0.0.1:{site.port}", "tls": pair}]).only("configuration")
    assert found["severity"] == "error"
    assert pair["key"] in found["evidence"]


def test_pings_without_a_designated_node_are_found(site: SpoilSite) -> None:
    health = {"path": "/_health/ping", "expect": {"json": {"health": "OK"}}, "token": {"file": str(site.token)}}
    versions = {"path": "/discovery/v1/apis/arvados/v1/rest"}
    found = examined(site, preset=None, health=health, versions=versions).only("ping-not-designated")
    assert "api1, api2 take pings" in found["evidence"]


def test_a_backlog_that_the_kernel_caps_is_found(site: SpoilSite) -> None:
    found = examined(site, listen=[{"bind": f"127.0.0.1:{site.port}", "backlog": 65535}]).only("somaxconn")
    assert found["fix"] == "sysctl -w net.core.somaxconn=65535"


def test_a_capacity_that_needs_more_ports_than_there_are_is_found(site: SpoilSite) -> None:
    seen = examined(site, nodes={"api1": {"capacity": 100_000}})
    assert seen.rules == {"ephemeral-ports", "capacity-above-limit"}


def arvados_inventory(site: SpoilSite, **more: Any) -> dict[str, Any]:
    """Nodes out of an Arvados file, in place of a list."""
    urls: dict[str, Any] = {f"http://127.0.0.1:{node.port}": {} for node in site.nodes.values()}
    services = {"Controller": {"InternalURLs": urls}}
    api = {"MaxConcurrentRequests": 64}
    cluster = {"Services": services, "API": api, "ManagementToken": site.token.read_text()}
    path = site.folder / "config.yml"
    path.write_text(json.dumps({"Clusters": {"zzzzz": {**cluster, **more}}}))
    path.chmod(0o600)
    return {"from": {"arvados": str(path)}}


def inventoried(site: SpoilSite, **more: Any) -> Seen:
    document = {**site.config(), "cluster": "zzzzz", "nodes": arvados_inventory(site, **more)}
    path = site.folder / "inventory.yml"
    path.write_text(json.dumps(document))
    return doctor(path)


def test_nodes_of_an_arvados_file_in_order_are_no_finding(site: SpoilSite) -> None:
    assert not inventoried(site).findings


def test_audit_logs_that_every_node_deletes_are_found(site: SpoilSite) -> None:
    assert inventoried(site, AuditLogs={"MaxDeleteBatch": 1000}).only("job-on-every-node")["subject"] == "audit logs"


def test_dns_files_on_every_node_are_found(site: SpoilSite) -> None:
    managed = {"DNSServerConfDir": "/etc/unbound/conf.d", "DNSServerReloadCommand": "reload"}
    found = inventoried(site, Containers={"SLURM": {"Managed": managed}}).only("dns-by-host-files")
    assert "DNSServerConfDir, DNSServerReloadCommand" in found["evidence"]


def test_the_hook_as_update_command_is_the_cure_and_no_finding(site: SpoilSite) -> None:
    cure = "/usr/bin/arv-balance dns hook --hostname %{hostname} --ip %{ip_address}"
    for command, rules in (cure, set()), ("update %{hostname}", {"dns-by-host-files"}):
        managed = {"DNSServerUpdateCommand": command}
        assert inventoried(site, Containers={"SLURM": {"Managed": managed}}).rules == rules


# --- this machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rule", "words"),
    [("size=100k", "disk-almost-full", "bytes are free"), ("size=1m,ro", "state-not-writable", "read-only")],
)
def test_a_state_directory_on_a_full_or_read_only_disk_is_found(
    site: SpoilSite, options: str, rule: str, words: str
) -> None:
    state, path = site.folder / "small", site.variant(state={"dir": str(site.folder / "small")})
    state.mkdir(exist_ok=True)
    fill = f"head -c 98304 /dev/zero > {state}/fill; " if rule == "disk-almost-full" else ""
    look = f"exec {sys.executable} -P -m balancer doctor -c {path} --json"
    script = f"mount -t tmpfs -o {options} none {state} && {fill}{look}"
    done = subprocess.run(
        [need("unshare"), "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=40,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        lacking(f"no mounts in a name space of our own here: {done.stderr.strip()}")
    found = {finding["rule"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found.keys() == {rule}
    assert words in found[rule]["evidence"]


def test_a_configuration_that_cannot_be_used_ends_with_its_own_exit_code(site: SpoilSite) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "balancer", "doctor", "-c", str(site.variant(balance={"policy": "best"}))],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=40,
    )  # fmt: skip
    assert done.returncode == Exit.CONFIG
    assert "'best' is not one of" in done.stderr
