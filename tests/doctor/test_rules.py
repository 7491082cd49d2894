"""Rules by themselves: what no process can be made to show here, and what holds for all."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balancer.config.file import Loaded, load
from balancer.control.doctor.facts import (
    Disk,
    Facts,
    FileFacts,
    Idle,
    Job,
    Machine,
    NodeFacts,
    Reply,
)
from balancer.control.doctor.machine import machine
from balancer.control.doctor.manual import listing, markdown
from balancer.control.doctor.report import examine
from balancer.control.doctor.rules import RULES
from balancer.control.doctor.rules.clocks import offset
from tests.support.site import ROOT

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = tmp_path_factory.mktemp("doctor") / "arv-balance.yml"
    nodes = "nodes: {a: {url: 'http://127.0.0.1:1', capacity: 9}}"
    path.write_text(f"version: 1\nlisten: [{{bind: '127.0.0.1:80'}}]\n{nodes}\n")
    return load(path)


@pytest.fixture
def healthy(loaded: Loaded) -> Facts:
    """Facts of a site that is in order, to change one of."""
    node = NodeFacts(
        name="a", authority="127.0.0.1:1", capacity=9, idle=Idle(20.0), replies={"health": reply(0.0, 0.1)}
    )
    return Facts(
        config=loaded.require(),
        path=loaded.path,
        sha256="",
        faults=(),
        shadows=(),
        cluster=None,
        nodes=(node,),
        status=None,
        status_fault="",
        listener_certificates=(),
        files=(),
        state_dir=FileFacts("/state", "state", "", 0o700, 990, 990, is_folder=True),
        admin_socket=FileFacts("/sock", "admin socket", "", 0o660),
        disk=Disk("", 50, 100, 50, 100),
        machine=Machine(
            cpus=2, open_files=1 << 20, service_uid=990, somaxconn=4096, port_range=(1024, 65000), conntrack_max=1 << 20
        ),
        anonymous_admin=None,
        dns=None,
        jobs=None,
        jobs_fault="",
        now=NOW,
    )


def reply(began: float, ended: float, *, date: float | None = None) -> Reply:
    at = datetime.fromtimestamp(int(began if date is None else date), UTC)
    return Reply("", 200, {"date": (format_datetime(at, usegmt=True),)}, began_s=began, ended_s=ended)


def found(facts: Facts) -> Mapping[str, str]:
    return {one.rule.name: one.evidence for one in examine(facts).findings}


def test_facts_that_are_in_order_give_no_finding(healthy: Facts) -> None:
    assert found(healthy) == {}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("conntrack", {"conntrack_max": 1 << 20, "conntrack_count": 1_000_000}),
        ("conntrack", {"conntrack_max": 65536, "conntrack_count": 10}),
        ("open-files", {"open_files": 1024}),
        ("somaxconn", {"somaxconn": 128}),
        ("ephemeral-ports", {"port_range": (60000, 60999)}),
        ("state-not-writable", {"service_uid": 991}),
    ],
)
def test_limits_of_the_kernel_are_compared(healthy: Facts, rule: str, changes: dict[str, Any]) -> None:
    assert found(replace(healthy, machine=replace(healthy.machine, **changes))).keys() == {rule}


@pytest.mark.parametrize(
    ("mode", "gids", "is_found"), [(0o770, (990,), False), (0o750, (990,), True), (0o777, (), False)]
)
def test_a_state_directory_may_be_writable_by_group(
    healthy: Facts, mode: int, gids: tuple[int, ...], is_found: bool
) -> None:
    facts = replace(
        healthy,
        state_dir=replace(healthy.state_dir, mode=mode),
        machine=replace(healthy.machine, service_uid=991, service_gids=gids),
    )
    assert ("state-not-writable" in found(facts)) is is_found


@pytest.mark.parametrize(
    ("job", "is_found"),
    [
        (Job("trash_sweep", 60.0, -30.0, is_running=False, last_error=""), False),
        (Job("trash_sweep", 60.0, -3600.0, is_running=False, last_error=""), True),
        (Job("trash_sweep", 60.0, -3600.0, is_running=True, last_error=""), False),
        (Job("trash_sweep", 60.0, 30.0, is_running=False, last_error="deadlock"), True),
    ],
)
def test_a_job_is_found_when_it_is_overdue_or_failed(healthy: Facts, job: Job, is_found: bool) -> None:
    assert ("job-overdue" in found(replace(healthy, jobs=(job,)))) is is_found


@pytest.mark.parametrize(
    ("kind", "at", "until", "is_found"),
    [
        ("drain", "2025-12-30T00:00:00+00:00", None, True),
        ("pause", "2025-12-30T00:00:00+00:00", None, True),
        ("drain", "2025-12-31T23:00:00+00:00", None, False),
        ("drain", "2025-12-30T00:00:00+00:00", "2026-01-02T00:00:00+00:00", False),
        ("add", "2025-12-30T00:00:00+00:00", None, False),
    ],
)
def test_a_change_that_was_forgotten_is_found(
    healthy: Facts, kind: str, at: str, until: str | None, is_found: bool
) -> None:
    intent: dict[str, Any] = {
        "kind": kind,
        "node": "a",
        "who": "root",
        "at": at,
        "reason": "disk",
        "until": until,
        "settings": {},
    }
    config = {"sha256": "", "last_reload": None}
    status = {"intents": [intent], "config": config, "nodes": [], "designations": [], "peers": []}
    assert ("old-intent" in found(replace(healthy, status=status))) is is_found


def test_inodes_run_out_as_bytes_do(healthy: Facts) -> None:
    assert "1 of 100 inodes" in found(replace(healthy, disk=Disk("", 50, 100, 1, 100)))["disk-almost-full"]


def test_limits_are_read_where_the_kernel_shows_them(tmp_path: Path) -> None:
    files = {
        "7/limits": "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n",
        "7/status": "Name:\tpython\nUid:\t0\t990\t0\t0\nGid:\t0\t991\t0\t0\nGroups:\t4 27 \n",
        "sys/net/core/somaxconn": "4096\n",
        "sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
        "sys/net/netfilter/nf_conntrack_max": "262144\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    read = machine(7, "", tmp_path)
    assert (read.open_files, read.service_uid, set(read.service_gids)) == (1024, 990, {4, 27, 991})
    assert (read.somaxconn, read.port_range, read.conntrack_max) == (4096, (32768, 60999), 262144)
    assert read.conntrack_count is None
    assert machine(8, "", tmp_path).process == "the limits of worker 8 cannot be read"
    assert machine(None, "it does not run", tmp_path).process == "it does not run"


@pytest.mark.parametrize(
    ("most", "count", "evidence"),
    [
        (None, None, ""),  # no firewall
        ("1048576", "1000", ""),
        ("1048576", "838860", ""),
        ("1048576", "838861", "838861 of 1048576 entries are in use"),
        ("65536", None, "65536 entries; all connections together can need 80000"),
        ("nonsense", "65536", ""),
    ],
)
def test_a_table_of_connections_is_judged_by_what_the_kernel_says_of_it(
    healthy: Facts, tmp_path: Path, most: str | None, count: str | None, evidence: str
) -> None:
    folder = tmp_path / "sys/net/netfilter"
    folder.mkdir(parents=True)
    for name, text in (("max", most), ("count", count)):
        if text is not None:
            (folder / f"nf_conntrack_{name}").write_text(f"{text}\n")
    read = replace(machine(None, "", tmp_path), cpus=2)
    assert found(replace(healthy, machine=read)).get("conntrack", "") == evidence


# --- clocks ------------------------------------------------------------------------------------------------------


@given(
    lead=st.floats(-1e6, 1e6),
    trips=st.lists(st.tuples(st.floats(1e9, 2e9), st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=5),
)
def test_the_true_lead_is_always_within_the_bounds(lead: float, trips: list[tuple[float, float, float]]) -> None:
    replies = [reply(began, began + there + back, date=began + there + lead) for began, there, back in trips]
    bounds = offset(replies)
    assert bounds is not None
    assert bounds[0] - 1e-3 <= lead <= bounds[1] + 1e-3


def test_more_answers_narrow_the_bounds() -> None:
    one = offset([reply(1000.0, 1000.2, date=1000.1)])
    more = offset([reply(1000.0, 1000.2, date=1000.1), reply(1000.9, 1001.1, date=1001.0)])
    assert one is not None
    assert more is not None
    assert more[1] - more[0] < one[1] - one[0]


def test_an_answer_without_a_date_says_nothing_and_a_bad_one_neither() -> None:
    assert offset([Reply(status=200)]) is None
    assert offset([Reply(status=200, fields={"date": ("yesterday",)})]) is None


def test_a_clock_within_the_threshold_is_no_finding_and_beyond_it_is(healthy: Facts) -> None:
    def with_lead(lead: float) -> Facts:
        node = replace(healthy.nodes[0], replies={"health": reply(1000.5, 1000.6, date=1000.5 + lead)})
        return replace(healthy, nodes=(node,))

    assert "clock-skew" not in found(with_lead(2.0))
    assert "ahead of ours" in found(with_lead(4.0))["clock-skew"]
    assert "behind ours" in found(with_lead(-4.0))["clock-skew"]


# --- whatever nodes say ----------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_DISCOVERY = st.fixed_dictionaries(
    {},
    optional={
        key: _JSON | st.sampled_from(["https://[", "http://a:99999/", "https://x.example/"])
        for key in ("rootUrl", "baseUrl", "websocketUrl", "packageVersion", "resources", "revision")
    },
)
_METRICS = st.lists(
    st.sampled_from(["arvados_max_concurrent_requests NaN", "arv_api_migration_version +Inf", "x", "{} 1"])
)


@given(discovery=st.lists(_JSON | _DISCOVERY, min_size=2, max_size=3), metrics=_METRICS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_of_a_node_makes_a_rule_fail(healthy: Facts, discovery: list[Any], metrics: list[str]) -> None:
    nodes = tuple(
        NodeFacts(
            name=f"api{number}",
            authority=f"127.0.0.1:{number}",
            capacity=0,
            replies={
                "discovery": Reply(status=200, document=document),
                "exported": Reply(status=200, document=document),
                "metrics": Reply(status=200, text="\n".join(metrics)),
                "login-own": Reply(status=200, fields={"set-cookie": ("", "=", "a=b=c")}),
            },
        )
        for number, document in enumerate(discovery)
    )
    config = healthy.config.model_copy(update={"preset": "arvados"})
    examine(replace(healthy, config=config, nodes=nodes))


@pytest.mark.parametrize(
    ("idle", "is_found"),
    [
        (Idle(watched_s=1.0, promised_s=60.0), False),
        (Idle(watched_s=1.0, promised_s=5.0), True),
        (Idle(watched_s=20.0), False),
        (Idle(watched_s=1.0, closed_s=1.0), True),
    ],
)
def test_a_promise_to_keep_connections_is_believed(healthy: Facts, idle: Idle, is_found: bool) -> None:
    report = examine(replace(healthy, nodes=(replace(healthy.nodes[0], idle=idle),)))
    assert [one.rule.name for one in report.findings] == ["keepalive-too-short"] * is_found
    assert "idle connections of a" not in [item.subject for _, item in report.unseen]


# --- the manual ----------------------------------------------------------------------------------------------------


def test_every_rule_is_told_once_in_the_manual_and_the_manual_is_up_to_date() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert (ROOT / "docs/doctor.md").read_text() == markdown()
    assert [line.split()[0] for line in listing()] == [rule.name for rule in RULES]


def test_every_rule_says_what_it_looks_at_the_risk_and_the_fix() -> None:
    for rule in RULES:
        assert rule.looks_at.endswith("."), rule.name
        assert rule.risk.endswith("."), rule.name
        assert rule.fix, rule.name


def seeded() -> Iterator[str]:
    """Rules that a test names."""
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    yield from (rule.name for rule in RULES if f'"{rule.name}"' in texts)


def test_every_rule_has_a_test() -> None:
    assert set(seeded()) == {rule.name for rule in RULES}
