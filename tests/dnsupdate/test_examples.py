"""What the documentation shows works: sections load, server snippets pass their checkers, tables are current."""

import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from balancer.config.loader import parse
from dnsupdate.diagnosis import TABLE
from dnsupdate.doctor import snippets
from dnsupdate.loader import load
from dnsupdate.metrics import Metrics
from dnsupdate.service import checked_template
from dnsupdate.settings import Settings
from tests.support.nameservers import KEY, key_text

ROOT = Path(__file__).parents[2]
SECTIONS = sorted((ROOT / "templates" / "dns").glob("*.yml"))


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: path.name)
def test_a_section_to_start_from_is_valid(path: Path) -> None:
    document = parse(path.read_text(), str(path), {})
    assert not document.faults
    assert isinstance(document.data, dict)
    assert isinstance(load(document.data["dns"], owner="xarv1"), Settings)


def test_the_classic_template_is_valid() -> None:
    settings = load({"owner": "xarv1"})
    text = checked_template(ROOT / "templates" / "dns" / "unbound.template", settings)
    assert text is not None


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("source", ["example", "doctor"])
def test_the_configuration_of_bind_passes_its_checker(tmp_path: Path, source: str) -> None:
    made = snippets(KEY, ("cluster.example.", "2.0.192.in-addr.arpa."))["BIND"]
    text = (ROOT / "examples" / "dns" / "named.conf").read_text() if source == "example" else made
    (tmp_path / "upd.key").write_text(key_text(KEY))
    (tmp_path / "named.conf").write_text(text.replace("/etc/bind/upd.key", str(tmp_path / "upd.key")))
    run("named-checkconf", str(tmp_path / "named.conf"))


@pytest.mark.parametrize("source", ["example", "doctor"])
def test_the_configuration_of_knot_passes_its_checker(tmp_path: Path, source: str) -> None:
    made = snippets(KEY, ("cluster.example.", "2.0.192.in-addr.arpa."))["Knot"]
    text = (ROOT / "examples" / "dns" / "knot.conf").read_text() if source == "example" else made
    (tmp_path / "knot.conf").write_text(text.replace("(of the key file)", "c2VjcmV0LXNlY3JldC1zZWNyZXQ="))
    run("knotc", "-c", str(tmp_path / "knot.conf"), "conf-check")


def test_the_script_for_powerdns_is_a_shell_script() -> None:
    run("sh", "-n", str(ROOT / "examples" / "dns" / "powerdns.sh"))


def diagnosis_table() -> str:
    """The table of docs/dns.md, from the table of the program."""
    lines = ["| what happens | what the sender does | what it says |", "|---|---|---|"]
    for row in TABLE:
        seen = row.failure.value if row.failure else ", ".join(row.rcode) or row.tsig_error or "any other code"
        if row.signed is False or (row.signed is None and row.rcode in (("NOERROR",), ("REFUSED",))):
            seen += ", unsigned"
        hint = f" *{row.hint}*" if row.hint else ""
        lines.append(f"| {seen} | {row.kind.value} | {row.text}{hint} |".replace("{timeout_s:g}", "5"))
    return "\n".join(lines)


def test_the_table_in_the_documentation_is_the_one_in_the_program() -> None:
    text = (ROOT / "docs" / "dns.md").read_text()
    between = text.partition("<!-- table:diagnosis -->\n")[2].partition("\n<!-- /table -->")[0]
    assert between == diagnosis_table(), diagnosis_table()


def test_metrics_are_counted_by_zone_server_and_answer() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, now=lambda: 1234.0)
    metrics.exchanged("main", "z.", "ns", "NOERROR", 0.02)
    metrics.exchanged("main", "z.", "ns", "REFUSED", 0.02)
    metrics.published("main", 3)
    metrics.serial("main", "z.", "ns", 17)
    metrics.show("main", records=12, states={"failed": 2})
    text = generate_latest(registry).decode()
    for line in (
        'arv_balance_dns_updates_total{rcode="NOERROR",server="ns",zone="z."} 1.0',
        'arv_balance_dns_last_success_timestamp_seconds{server="ns",zone="z."} 1234.0',
        'arv_balance_dns_serial{server="ns",zone="z."} 17.0',
        'arv_balance_dns_records{target="main"} 12.0',
        'arv_balance_dns_pending_changes{state="failed",target="main"} 2.0',
        'arv_balance_dns_pending_changes{state="held",target="main"} 0.0',
    ):
        assert line in text
