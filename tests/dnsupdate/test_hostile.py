"""Hostile names, addresses and properties, through every way in.

They reach no file outside of the directory, no command line, no message to a name server and no line of a terminal
but as what they are; what cannot be published is refused with one clean line.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import dns.message
import dns.rdata
import dns.update
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dnsupdate import commands, follow
from dnsupdate.enqueue import enqueue
from dnsupdate.errors import BadNameError, RenderError
from dnsupdate.files import FileTemplate, classic_variables
from dnsupdate.folder import Folder
from dnsupdate.host import Host, checked
from dnsupdate.message import update_wire
from dnsupdate.names import STRICT, Rules
from dnsupdate.overview import TargetPlan, plan_lines
from dnsupdate.plan import Policy, State, make
from dnsupdate.records import Renderer
from dnsupdate.snippets import parse
from dnsupdate.spool import Entry, Spool, enqueue_one
from dnsupdate.store import Store
from dnsupdate.update import Fence, apply_changes, nsupdate_script, unfenced
from tests.dnsupdate.builders import host, records
from tests.support.api import api_template
from tests.support.api import settings as api_settings
from tests.support.postgres import TestServer
from tests.support.target import Target, target_on

__all__ = ["api_template"]
pytestmark = [pytest.mark.pg, pytest.mark.timeout(300)]

NASTY = [
    *["\n", "a\nb", "compute7\n", "\r\nserver evil", "\x00", "a\x00b", "\x1b[2J", "\x85", "\u2028"],
    *["\u202etxt", "\ud800", "${HOME}"],
    *['"', "'", '" "', 'x" IN A 192.0.2.66\n local-data: "y', "\\", "\\010", "`id`", "$(id)", ";", "a;b", "|"],
    *["../../etc/passwd", "/etc/passwd", "..", ".", ".conf", "a/b", "restart.txt", "-rf", "--help", "-", "a-", "-a"],
    *["%{hostname}", "%s", "%%", "%", "{{ 7*7 }}", "{% raw %}", "{{ self }}", "#", "@", "*", "*.x", "_dnsupdate.x"],
    *["a" * 63, "a" * 64, ".".join(["a" * 60] * 4), "a" * 242, "a" * 5000, "a..b", "a.", "compute7.", " ", "a b", ""],
    *["cömpute", "\u0441ompute", "\uff11\uff19\uff12.0.2.1", "\u212a", "xn--bcher-kva", "xn--a", "ab--cd", "1.2.3.4"],
    *["192.0.2.1\n", "192.0.2.1/24", "0x7f.1", "::ffff:192.0.2.1", "fe80::1%eth0", "2001:db8::1", "192.0.2.01"],
    *["orphan:x", "orphan:cluster.example./db.cluster.example./A", "was:compute7", "hook:", "hook:a\nb"],
]  # fmt: skip
GOOD_NAME, GOOD_IP, GOOD_UUID = "compute7", "192.0.2.7", "xarv1-7ekkf-000000000000007"
texts = st.sampled_from(NASTY) | st.text(max_size=80) | st.builds("{}{}".format, st.just("a1"), st.sampled_from(NASTY))
scalars = texts | st.none() | st.integers() | st.floats() | st.booleans()
values = st.recursive(scalars, lambda one: st.lists(one, max_size=2) | st.dictionaries(texts, one, max_size=2))
PLAIN_NAME = r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*"
LINE = re.compile(r"[ -~\u2192]+")  # ASCII, and the arrow of a plan
property_test = hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


def line_of(exc: Exception) -> str:
    """Return an error's text, which is fit for a terminal."""
    text = str(exc)
    assert re.fullmatch(r"[ -~]{1,500}", text)
    return text


GOOD: dict[str, Any] = {"uuid": GOOD_UUID, "hostname": GOOD_NAME, "ips": (GOOD_IP,)}


def hosts_of(names: Any) -> "st.SearchStrategy[Host]":
    """Hosts with one hostile part, or with nothing but such."""
    parts = {
        "uuid": texts,
        "hostname": names,
        "domain": names,
        "ips": st.tuples(names),
        "slot": names,
        "properties": st.dictionaries(texts, values, min_size=1, max_size=2),
        "info": st.dictionaries(texts, values, min_size=1, max_size=2),
        "first_ping_at": names,
    }
    good = {name: st.just(one) for name, one in GOOD.items()}
    return st.one_of(st.builds(Host, **parts), *(st.builds(Host, **(good | {part: parts[part]})) for part in parts))


def is_plain(facts: Any) -> bool:
    """Whether what was taken can be misread by nobody."""
    name, domain = facts["hostname"], facts["domain"]
    return (
        (name is None or re.fullmatch(PLAIN_NAME, name) is not None)
        and (domain == "" or re.fullmatch(PLAIN_NAME, domain) is not None)
        and all(re.fullmatch(r"[0-9a-f:.]{3,39}", ip) for ip in facts["ips"])
    )


def taken(given_: Host, rules: Rules = STRICT) -> Host | None:
    """Return the host as the database would have it; None when it is refused, as it should be."""
    try:
        good = checked(given_, rules)
    except BadNameError as exc:
        line_of(exc)
        return None
    assert is_plain(good.facts())
    assert re.fullmatch(r"(hook:)?[A-Za-z0-9][A-Za-z0-9._-]*", good.uuid)
    json.dumps(good.facts(), allow_nan=False).encode()
    return good


# -- the ways in


@dataclass
class Base:
    """A database for tests that are no coroutines."""

    runner: asyncio.Runner
    store: Store
    db: "asyncpg.Connection[asyncpg.Record]"
    dsn: str

    def facts(self) -> list[tuple[str, Any]]:
        rows = self.runner.run(self.db.fetch("DELETE FROM dns_hosts RETURNING uuid, facts"))
        return [(row["uuid"], json.loads(row["facts"])) for row in rows]


@pytest.fixture(scope="module")
def base(postgres_server: TestServer, dns_template: str) -> Iterator[Base]:
    name = asyncio.run(postgres_server.create(dns_template))
    with asyncio.Runner() as runner:
        context = Store.open(postgres_server.dsn(name))
        store = runner.run(context.__aenter__())
        db = runner.run(asyncpg.connect(postgres_server.dsn(name)))
        yield Base(runner, store, db, postgres_server.dsn(name))
        runner.run(db.close())
        runner.run(context.__aexit__(None, None, None))
    asyncio.run(postgres_server.drop(name))


@property_test
@given(entry=st.builds(Entry, hostname=texts, ip=texts | st.none(), at=st.none(), uuid=texts, domain=texts))
def test_the_hook_takes_what_is_plain_and_says_in_one_line_why_not(base: Base, tmp_path: Path, entry: Entry) -> None:
    async def work() -> None:
        now: datetime = await base.db.fetchval("SELECT clock_timestamp()")
        given_ = Entry(entry.hostname, entry.ip, now, entry.uuid, entry.domain)
        Spool(tmp_path, STRICT).check(given_)
        await enqueue_one(base.db, given_, STRICT)

    try:
        base.runner.run(work())
    except BadNameError as exc:
        line_of(exc)
        assert base.facts() == []
    else:
        ((_, facts),) = base.facts()
        assert facts["hostname"]
        assert is_plain(facts)
    assert list(tmp_path.iterdir()) == []


@property_test
@given(bad=hosts_of(texts | st.integers() | st.lists(texts, max_size=1)))
def test_a_followed_node_that_is_hostile_is_left_out_with_a_line_and_the_others_are_taken(
    base: Base, bad: Host
) -> None:
    async def read() -> follow.Reading:
        now: datetime = await base.db.fetchval("SELECT clock_timestamp()")
        good = host("good", "192.0.2.200", uuid="xarv1-7ekkf-000000000000001")
        return follow.Reading((bad, good), now)

    found = base.runner.run(follow.once(read, base.store, STRICT))
    assert all(re.fullmatch(r"[ -~]{1,600}", text) for text in found.refused)
    facts = dict(base.facts())
    assert all(is_plain(one) for one in facts.values())
    assert facts["xarv1-7ekkf-000000000000001"]["hostname"] == "good"
    assert len(facts) == 2 - len(found.refused) or bad.uuid == "xarv1-7ekkf-000000000000001"


@pytest.fixture(scope="module")
def node(postgres_server: TestServer, api_template: str) -> Iterator[tuple[Target, str]]:
    name = asyncio.run(postgres_server.create(api_template))
    with target_on(api_settings(postgres_server.dsn(name))) as found:
        yield found, postgres_server.dsn(name)
    asyncio.run(postgres_server.drop(name))


def fed(target: Target, method: str, path: str, body: Any) -> tuple[int, str]:
    """Send JSON that may hold what no JSON library of ours would write."""
    return target.send(method, path, "", json.dumps(body).encode(), "application/json")


@property_test
@given(name=texts, domain=texts, ip=texts, instance=texts, properties=st.dictionaries(texts, values, max_size=2))
def test_an_api_node_answers_422_or_has_a_host_that_is_plain(
    node: tuple[Target, str], name: str, domain: str, ip: str, instance: str, properties: Any
) -> None:
    target, dsn = node
    made = target.good("POST", "nodes", {"node": {}})
    ping = {"ping_secret": made["info"]["ping_secret"], "local_ipv4": ip, "instance_id": instance}
    replies = [
        fed(target, "POST", f"nodes/{made['uuid']}/ping", ping),
        fed(target, "PUT", f"nodes/{made['uuid']}", {"node": {"hostname": name}}),
        fed(target, "PUT", f"nodes/{made['uuid']}", {"node": {"domain": domain, "ip_address": ip}}),
        fed(target, "PUT", f"nodes/{made['uuid']}", {"node": {"properties": properties}}),
    ]
    for status, text in replies:
        assert status in (200, 400, 422), text
        assert status == 200 or all(one.isprintable() for one in json.loads(text)["errors"]), text
    assert target.call("DELETE", f"nodes/{made['uuid']}")[0] == 200

    async def stored() -> list[Any]:
        db = await asyncpg.connect(dsn)
        try:
            return await db.fetch("DELETE FROM dns_hosts RETURNING facts")
        finally:
            await db.close()

    assert all(is_plain(json.loads(row["facts"])) for row in asyncio.run(stored()))


@property_test
@given(name=texts, content=texts, ip=texts)
def test_an_old_file_gives_a_plain_host_or_a_reason(name: str, content: str, ip: str) -> None:
    text = f'local-data: "{name} IN A {ip}"\n{content}\nlocal-data: "{name}.x 60 IN AAAA {ip}"\n'
    try:
        found = parse(f"{name}.conf", text, STRICT)
    except BadNameError as exc:
        line_of(exc)
    else:
        assert is_plain({"hostname": found.hostname, "domain": "", "ips": found.ips})


# -- the ways out

SETTINGS = records(
    {"name": "{{ fqdn }}.", "each": "ips", "type": "{{ 'A' if item.version == 4 else 'AAAA' }}", "data": "{{ item }}"},
    {"name": "{{ fqdn }}.", "type": "TXT", "data": "{{ txt(properties.note, hostname) }}",
     "when": "{{ 'note' in properties }}"},
    {"name": "{{ fqdn }}.", "type": "TXT", "data": "{{ properties.raw }}", "when": "{{ 'raw' in properties }}"},
    {"name": "{{ properties.alias }}.cluster.example.", "type": "CNAME", "data": "{{ fqdn }}.",
     "when": "{{ 'alias' in properties }}"},
    {"name": "to.{{ fqdn }}.", "type": "{{ properties.type if 'type' in properties else 'PTR' }}",
     "data": "{{ properties.to }}", "when": "{{ 'to' in properties }}"},
)  # fmt: skip
TYPES = st.sampled_from(["PTR", "CNAME", "MX", "SRV", "TXT", "SOA", "TYPE65534", "HTTPS"]) | texts
TARGETS = st.builds("{}{}.".format, st.sampled_from(["", "10 ", "0 0 53 ", "x."]), texts) | texts
WAYS = st.fixed_dictionaries(
    {}, optional={"note": texts | values, "raw": texts, "alias": texts}
) | st.fixed_dictionaries({"to": TARGETS}, optional={"type": TYPES})


@property_test
@given(properties=WAYS)
def test_templates_send_records_that_can_be_read_in_one_way_only(properties: Any) -> None:
    good = taken(host(GOOD_NAME, domain="cluster.example", uuid=GOOD_UUID, properties=properties))
    if good is None:
        return
    rendered = Renderer(SETTINGS).render(good)
    assert all(re.fullmatch(r"[ -~]{1,900}", str(fault)) for fault in (*rendered.faults, *rendered.warnings))
    if rendered.faults:
        return  # nothing of such a host is published
    policy = Policy("xarv1")
    plan = make(rendered.contributions, frozenset({good.uuid}), State(), policy)
    for zone, changes in plan.zones().items():
        update = apply_changes(zone, changes, Fence(owner="xarv1", epoch=1), policy, 60)
        read = dns.message.from_wire(update_wire(update, 7))
        assert isinstance(read, dns.update.UpdateMessage)
        for rrset in (*read.prerequisite, *read.update):
            assert re.fullmatch(PLAIN_NAME + r"\.", rrset.name.to_text())
            for rdata in rrset:
                assert LINE.fullmatch(rdata.to_text())
                target = getattr(rdata, "target", getattr(rdata, "exchange", None))
                assert target is None or re.fullmatch(rf"({PLAIN_NAME})?\.", target.to_text().lower())
    wanted = sorted((one.name, one.rdtype, one.rdata) for one in rendered.contributions)
    script = nsupdate_script([unfenced(zone, changes, policy, 60) for zone, changes in plan.zones().items()])
    assert sorted(read_script(script)) == wanted
    shown = plan_lines(TargetPlan("main", "rfc2136", "192.0.2.53", "nobody", 1, plan, {}, {good.uuid: GOOD_NAME}))
    assert all(LINE.fullmatch(line) for line in shown)


def read_script(script: str) -> Iterator[tuple[str, str, str]]:
    """Return the records that a script adds; every line must be one of ours."""
    known = re.compile(r"(zone|prereq (yx|nx)(rrset|domain)|update delete) [ -~]+|send")
    for line in script.splitlines():
        add = re.fullmatch(r"update add (\S+) (\d+) IN (\S+) ([ -~]+)", line)
        assert add or known.fullmatch(line), line
        if add and not add[1].startswith("_dnsupdate."):
            rdata = dns.rdata.from_text("IN", add[3], add[4], relativize=False)
            yield add[1], add[3], rdata.to_text()


NAMES = st.sampled_from(["compute7", "compute_7", "a" * 63, ".".join(["a" * 60] * 3 + ["b" * 59]), "xn--bcher-kva"])
IPS = st.sampled_from([(), ("192.0.2.7",), ("2001:db8::7", "192.0.2.8")])
CLASSIC = 'local-data: "%{hostname} IN A %{ip_address}"\nlocal-data-ptr: "%{ip_address} %{hostname}.%{uuid_prefix}"\n'
JINJA = 'local-data: "{{ hostname }} IN A {{ ip_address }}"\nlocal-data: "{{ hostname }} TXT {{ properties.note }}"\n'
CONTENT = re.compile(
    r'(local-data: "[a-z0-9._-]+ IN A [0-9.]*"|local-data-ptr: "[0-9.]* [a-z0-9._-]+"'
    r"|local-data: \"[a-z0-9._-]+ TXT [^\"\\\n\x00-\x1f\x7f-\U0010ffff]*\")"
)


@pytest.mark.parametrize("rules", [STRICT, Rules(allow_underscore=True)], ids=["strict", "underscore"])
@property_test
@given(given_=hosts_of(texts) | st.builds(Host, uuid=st.just(GOOD_UUID), hostname=NAMES, ips=IPS, properties=WAYS))
def test_a_host_file_is_in_its_directory_and_has_the_lines_of_its_template(
    rules: Rules, tmp_path: Path, given_: Host
) -> None:
    good = taken(given_, rules)
    if good is None or good.hostname is None:
        return
    folder = tmp_path / "unbound.conf.d"
    folder.mkdir(exist_ok=True)
    variables = Renderer(SETTINGS).variables(good)
    for template in (FileTemplate(CLASSIC, is_classic=True), FileTemplate(JINJA, is_classic=False)):
        try:
            content = template.render(variables)
        except RenderError as exc:
            line_of(exc)
            continue
        assert all(CONTENT.fullmatch(line) for line in content.splitlines()), content
        Folder(folder, rules=rules).write({good.hostname: content})
        assert [path.name for path in folder.iterdir()] == [f"{good.hostname}.conf"]
        Folder(folder, rules=rules).write({good.hostname: None})
    assert [path.name for path in tmp_path.iterdir()] == ["unbound.conf.d"]
    argv = commands.filled(["update", "%{hostname}", "--ip=%{ip_address}"], classic_variables(variables))
    assert argv == ["update", good.hostname, f"--ip={variables['ip_address']}"]


@pytest.mark.parametrize("note", [{"it's": 1}, {"\n": None}, {"a": "b"}, ["it's"], [["a"]], {"a": {'"': 1}}])
def test_the_text_that_python_makes_of_a_table_or_list_is_never_in_a_file(note: Any) -> None:
    variables = Renderer(SETTINGS).variables(Host(uuid=GOOD_UUID, hostname="compute7", properties={"note": note}))
    for source in ("{{ properties }}", "{{ properties.note }}", "x{{ properties.note ~ 1 }}", "{{ info|string }}"):
        with pytest.raises(RenderError, match="has no text: name one of its entries"):
            FileTemplate(source, is_classic=False).render(variables)


def test_entries_of_tables_and_lists_are_used_by_name_without_those_of_unfit_keys() -> None:
    properties = {"tags": ["a", "b"], "rack": {"row": "7", 'x"': "y"}}
    variables = Renderer(SETTINGS).variables(Host(uuid=GOOD_UUID, hostname="compute7", properties=properties))
    source = "{{ properties.tags|join(' ') }} {{ properties.rack.row }} {{ properties.rack|length }}"
    assert FileTemplate(source, is_classic=False).render(variables) == "a b 7 1"


def test_the_longest_name_has_a_file(tmp_path: Path) -> None:
    name = ".".join(["a" * 60] * 3 + ["b" * 59])
    assert len(name) == 242
    Folder(tmp_path).write({name: "x\n"})
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.conf"]


# -- as people type it

CONFIG = """\
cluster: xarv1
dns:
  database_file: {folder}/dsn
  domain: cluster.example
  spool: {{dir: {folder}/spool}}
  targets: {{main: {{servers: [127.0.0.1], port: 1, key_file: {folder}/upd.key}}}}
  zones: [{{name: cluster.example, target: main}}]
  templates: {{compute: {{records: [{{name: "{{{{ fqdn }}}}.", each: ipv4, type: A, data: "{{{{ item }}}}"}}]}}}}
"""


@pytest.fixture
def site(base: Base, tmp_path: Path) -> Path:
    (tmp_path / "dsn").write_text(base.dsn + "\n")
    (tmp_path / "c.yml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def run(site: Path, *words: "str | bytes") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-P", "-m", "balancer.cli", "dns", *words, "-c", str(site / "c.yml")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert re.fullmatch(rb"[\n -~]*", done.stdout + done.stderr), done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    "words",
    [
        ["--hostname", "a\x1b[2J\nb"], ["--hostname", b"\xff\xfe"], ["--hostname", "-rf"], ["--hostname", ""],
        ["--hostname", "c\u0435ll"], ["--hostname", "ok", "--ip", "$(id)"], ["--hostname", "ok", "--uuid", "orphan:x"],
        ["--hostname", "ok", "--uuid", b"\xff"], ["--hostname", "ok", "--domain", "../x"],
    ],
)  # fmt: skip
def test_the_hook_refuses_hostile_words_with_a_clear_error(base: Base, site: Path, words: list[Any]) -> None:
    done = run(site, "hook", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert base.facts() == []
    assert not (site / "spool").exists() or not list((site / "spool").glob("0*"))


def test_a_hook_that_spells_a_name_otherwise_means_the_same_host(base: Base, site: Path) -> None:
    run(site, "hook", "--hostname", "Compute7", "--ip", "192.0.2.7")
    run(site, "hook", "--hostname", "compute7", "--ip", "192.0.2.8")
    assert [(uuid, facts["ips"]) for uuid, facts in base.facts()] == [("hook:compute7", ["192.0.2.8"])]


def test_a_directory_full_of_traps_is_imported_without_them(base: Base, site: Path) -> None:
    folder = site / "old"
    folder.mkdir()
    (folder / "good.conf").write_text('local-data: "good IN A 192.0.2.7"\n')
    (folder / "evil.conf").write_text('local-data: "evil IN A $(id)"\n')
    (folder / "esc\x1b[2J\n.conf").write_text("x")
    Path(os.fsdecode(bytes(folder) + b"/\xff.conf")).write_text("x")
    (folder / "dir.conf").mkdir()
    os.mkfifo(folder / "pipe.conf")
    (folder / "link.conf").symlink_to("/etc/passwd")
    (folder / "gone.conf").symlink_to("/nonexistent")
    done = run(site, "import", str(folder))
    assert done.returncode == 1
    assert len(re.findall(rb"^left out: '", done.stderr, re.MULTILINE)) == 7
    assert b"left out: 'evil.conf': '$(id)' is not an IPv4 or IPv6 address" in done.stderr
    assert [facts["hostname"] for _, facts in base.facts()] == ["good"]
    assert run(site, "import", str(site / "nonexistent")).returncode == 2
    assert run(site, "import", str(site / "spool" / "..")).returncode in (1, 2)


PRINTING = [
    *[["plan"], ["plan", "--nsupdate"], ["plan", "--json"], ["show"], ["show", "\x1b[2J"], ["trace", "\n\x1b"]],
    *[["adopt", "\x1b[2J\u0441"], ["release", "main", "\x1b[2J"], ["plan", "-t", "\x1b[2J"]],
]


async def test_hosts_that_were_taken_are_shown_and_planned_without_a_trace_of_what_they_brought(
    base: Base, site: Path
) -> None:
    connection = await asyncpg.connect(base.dsn)
    async with connection.transaction():
        await enqueue(connection, host("c1", properties={"note": "\x1b[2J\n"}, uuid="hook:c1"))
    await connection.close()
    for words in PRINTING:
        await asyncio.to_thread(run, site, *words)
