"""`arv-balance dns` for somebody who makes mistakes, or interrupts it: a line that helps, the right exit code."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import termios
from asyncio.subprocess import PIPE, STDOUT
from contextlib import suppress
from pathlib import Path

import pytest

from balancer.cli import dnsconfig
from balancer.cli.exits import CommandError, Exit
from dnsupdate.enqueue import enqueue
from dnsupdate.exchange import Channel
from dnsupdate.local import LocalFileError, database
from dnsupdate.update import Add, Update
from tests.dnsupdate.builders import host, settings
from tests.dnsupdate.cli import CONFIG, Cli, cli, primary
from tests.dnsupdate.servers import FORWARD, wall
from tests.support.nameservers import KEY, key_text
from tests.support.postgres import until

__all__ = ["cli", "primary"]  # fixtures
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_held_names_without_a_host_are_shown_by_name_and_can_be_released_by_it(cli: Cli) -> None:
    marks = [Add(f"_dnsupdate.lost{n}.{FORWARD}", "TXT", 60, ('"v=1 o=xarv1"',)) for n in range(21)]
    lost = [Add(f"lost{n}.{FORWARD}", "A", 60, ("192.0.2.50",)) for n in range(21)]
    async with Channel(cli.server.peer(), wall) as channel:
        assert (await channel.update(Update(FORWARD, (), (*lost, *marks))))[0].diagnosis.is_applied
    assert "deletions are held" in cli("sync", expect=6)
    assert "held: see `arv-balance dns plan`" in cli("show")
    planned = cli("plan", expect=1)
    assert f"! lost7.{FORWARD}: held: 21 hosts and names without a host would lose all their records" in planned
    assert "released 1 host" in cli("release", "main", f"lost7.{FORWARD}")
    assert "  - lost7                A" in cli("plan", expect=1)
    cli("release")
    cli("sync")
    assert not any(line.startswith("lost") for line in cli.server.hosts(FORWARD))


async def test_sync_is_done_only_when_the_server_has_said_that_all_is_there(cli: Cli) -> None:
    cli("sync")
    assert cli.server.process is not None
    cli.server.process.signal(signal.SIGSTOP)
    try:
        said = cli("sync", "--timeout", "2s", expect=5)  # nothing waits in the tables; only the server knows
    finally:
        cli.server.process.signal(signal.SIGCONT)
    assert "not done after 2 s" in said


async def test_two_hosts_of_one_name_are_told_apart_by_uuid(cli: Cli) -> None:
    await cli.ping("twin", "192.0.2.61")
    async with cli.db.transaction():
        await enqueue(cli.db, host("twin", "192.0.2.62", uuid="xarv1-7ekkf-newer"))
    said = cli("sync", expect=1)
    assert "twin at main: conflict: twin.cluster.example. is claimed by xarv1-7ekkf-newer" in said
    shown = cli("show")
    assert "twin (xarv1-7ekkf-twin)" in shown
    assert "twin (xarv1-7ekkf-newer)" in shown
    assert "! twin (xarv1-7ekkf-twin): twin.cluster.example. is claimed by" in cli("plan", expect=1)


async def test_trace_says_what_keeps_it_from_seeing_a_record_not_that_there_is_none(cli: Cli) -> None:
    await cli.ping("seen", "192.0.2.71")
    cli("sync")
    assert "A 192.0.2.71" in cli("trace", "seen")
    (cli.folder / "upd.key").write_text(key_text(KEY).replace("MDEy", "AAAA"))
    traced = cli("trace", "seen")
    assert "has another secret for key upd. (BADSIG)" in traced
    assert "A nothing" not in traced


async def test_trace_says_that_no_template_makes_records_for_a_host(cli: Cli) -> None:
    cli.config.write_text(cli.config.read_text().replace("compute:\n", 'compute:\n      when: "{{ slot }}"\n'))
    await cli.ping("login", "192.0.2.72")
    cli("sync")
    assert "records    none: no template makes any for it" in cli("trace", "login")


async def test_the_plan_names_the_port_of_a_server(cli: Cli) -> None:
    assert f"target main (127.0.0.1 port {cli.server.port}, fence epoch" in cli("plan")
    assert json.loads(cli("plan", "--json"))["targets"][0]["server"] == f"127.0.0.1 port {cli.server.port}"


TYPOS = [
    ("servers: [127.0.0.1]", "servers: 127.0.0.1", "dns.targets.main.servers: must be a list, in brackets: [...]"),
    ("poll: 50ms", "fudge: abc", "dns.targets.main.fudge: must be a whole number"),
    ("poll: 50ms", "batch: 0", "dns.targets.main.batch: must be at least 1"),
    (
        "poll: 50ms",
        "brake: {share: much%}",
        "brake.share: a share is a number and a percent sign: 30%",
    ),
    ("poll: 50ms", "brake: {names: 5}", "unknown key 'names'"),
    ("poll: 50ms", "conflict: adpot", "did you mean 'adopt'?"),
    ("each: ipv4, type: A", "each: ipv5, type: A", "must be one of ips, ipv4, ipv6"),
    ("  domain: cluster.example", "  owner: X-1", "dns.owner: must be 1 to 32 lower-case letters and digits"),
    ('"{{ fqdn }}."', '"{{ fqd }}."', "'fqd' is undefined; did you mean 'fqdn'?"),
    ("ptr(item)", "prt(item)", "'prt' is undefined; did you mean 'ptr'?"),
    ("  targets:", "  targtes:", "did you mean 'targets'?"),
]


@pytest.mark.parametrize(("right", "wrong", "words"), TYPOS)
def test_a_mistake_in_the_section_is_told_in_words_of_the_file(
    tmp_path: Path, right: str, wrong: str, words: str
) -> None:
    text = CONFIG.format(folder=tmp_path, port=53, key=tmp_path / "upd.key")
    assert right in text
    path = tmp_path / "arv-balance.yml"
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(CommandError) as caught:
        dnsconfig.settings(path)
    assert words in str(caught.value)
    assert caught.value.code is Exit.CONFIG


BAD_FILES = [(b"\xff\xfe", "is not text"), (b"", "is empty"), (None, "No such file or directory")]


@pytest.mark.parametrize(("content", "words"), BAD_FILES)
def test_a_file_of_the_section_that_cannot_be_read_is_told_with_its_key(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "dsn"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LocalFileError, match=f"dns.database_file: .*{words}"):
        database(settings(database_file=str(path)))


async def test_words_of_the_command_line_that_mean_nothing_are_usage_errors(cli: Cli) -> None:
    for words in (["plan"], ["test"], ["adopt", "compute1"]):
        assert "did you mean 'main'?" in cli(*words, "--target", "mian", expect=2)
    assert "did you mean 'main'?" in cli("release", "mian", expect=2)
    assert "Invalid value for '--events'" in cli("show", "--events", "-1", expect=2)


def interruptible() -> None:
    """What runs in the background of a shell is not, and neither is what it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def interrupted(cli: Cli, number: signal.Signals, heard: str, *words: str) -> tuple[int | None, str]:
    """Start a command, interrupt it once it has said something, return exit code and output."""
    command = [sys.executable, "-P", "-m", "balancer.cli", "dns", *words, "--config", str(cli.config)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=PIPE,
        stderr=STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        while heard and heard not in said:
            said += (await process.stdout.readline()).decode()
        if not heard:
            await until(lambda: cli.db.fetchval("SELECT 1 FROM dns_lease WHERE until > clock_timestamp()"))
        process.send_signal(number)
        rest, _ = await process.communicate()
    return process.returncode, said + rest.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_sync_gives_its_lease_up_and_says_what_is_left(cli: Cli, number: signal.Signals) -> None:
    await cli.ping("compute7", "192.0.2.7")
    cli.config.write_text(cli.config.read_text().replace(f"port: {cli.server.port}", "port: 1"))
    code, said = await interrupted(cli, number, "", "sync")
    assert (code, said.splitlines()[0]) == (130, "error: interrupted")
    assert "what was not sent waits in the database for the next sender" in said
    assert await cli.db.fetchval("SELECT count(*) FROM dns_lease WHERE until > clock_timestamp()") == 0
    assert await cli.db.fetchval("SELECT count(*) FROM dns_dirty") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_follow_tells_of_trouble_once_and_ends_when_told_to(cli: Cli, number: signal.Signals) -> None:
    follow = "  follow: {database: 'postgresql://x@127.0.0.1:1/x?sslmode=disable', interval: 10ms}\n"
    cli.config.write_text(cli.config.read_text() + follow)
    code, said = await interrupted(cli, number, "follow: the nodes' database", "follow")
    assert code == 0
    assert said.count("follow:") == 1, said


async def test_the_doctor_prints_configuration_only_where_that_mends_something(cli: Cli) -> None:
    text = cli.config.read_text()
    cli.config.write_text(text.replace(f"port: {cli.server.port}", "port: 1"))
    assert "update-policy {" not in cli("doctor", expect=1)
    cli.config.write_text(text.replace("cluster.example", "elsewhere.example"))
    assert 'zone "elsewhere.example" { type primary;' in cli("doctor", expect=1)
    cli.config.write_text(text)
    assert "our clock agrees with the server's" in cli("doctor")


async def test_a_directory_has_no_plan_and_says_so_and_its_template_is_named_when_it_is_not_there(cli: Cli) -> None:
    cli("sync")
    folder = cli.folder / "conf.d"
    folder.mkdir()
    text = cli.config.read_text().partition("  targets:")[0]
    local = f"{{kind: files, dir: {folder}, template: {cli.folder}/host.template, poll: 50ms}}"
    cli.config.write_text(f"{text}  targets: {{local: {local}}}\n")
    template = cli.folder / "host.template"
    assert f"error: {template}: No such file or directory\n" in cli("sync", "--designated", expect=3)
    template.write_text("%{hostname} %{ip_address}\n")
    assert "target local is a directory: there is no plan of it" in cli("plan")
    await cli.ping("compute7", "192.0.2.7")
    cli("sync", "--designated")  # what another configuration's target waits for is not ours
    assert (folder / "compute7.conf").read_text() == "compute7 192.0.2.7\n"
    assert "target main (not in this configuration): nobody sends; 0 records; 1 pending" in cli("show")


async def test_control_c_at_the_question_sends_nothing(cli: Cli) -> None:
    await cli.ping("asked", "192.0.2.80")
    command = [sys.executable, "-P", "-m", "balancer.cli", "dns", "apply", "--config", str(cli.config)]
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=own_terminal
    )
    os.close(theirs)
    said = await asyncio.to_thread(answered, ours, b"Send this?", b"\x03")
    assert await process.wait() == Exit.INTERRUPTED
    assert "error: interrupted\r\n  nothing was sent" in said
    assert cli.server.process is not None
    assert cli.server.process.dig(f"asked.{FORWARD}") == []


def own_terminal() -> None:
    """Control-C at standard input is meant for us."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def answered(terminal: int, question: bytes, answer: bytes) -> str:
    """Read a terminal to its end; give the answer when the question is there."""
    said, asked = b"", False
    with suppress(OSError):  # it ends with its process
        while found := os.read(terminal, 4096):
            said += found
            if question in said and not asked:
                asked = True
                os.write(terminal, answer)
    os.close(terminal)
    return said.decode()


async def test_the_plan_has_names_that_will_be_filled_in_and_hosts_that_will_be_found_missing(cli: Cli) -> None:
    keys = ["absent: {placeholder: 127.40.4.0}", "prefill: 'node[31-32]'", "missing_after: 1h", "records:"]
    cli.config.write_text(cli.config.read_text().replace("records:", "\n      ".join(keys)))
    await cli.ping("stale", "192.0.2.91")
    await cli.db.execute("UPDATE dns_hosts SET last_ping_at = last_ping_at - interval '2 h'")
    planned = cli("plan", expect=1)
    for name in ("node31", "node32", "stale"):
        assert f"  + {name:<20} A     127.40.4.0   ttl 60" in planned
    cli("apply", "--yes")
    assert cli.server.process is not None
    assert cli.server.process.dig(f"node31.{FORWARD}") == ["127.40.4.0"]
    assert cli.server.process.dig(f"stale.{FORWARD}") == ["127.40.4.0"]
    cli("plan")


async def test_a_hook_reaches_the_database_also_when_nothing_can_be_kept(cli: Cli) -> None:
    cli.config.write_text(cli.config.read_text().replace(f"{cli.folder}/spool", "/proc/nothing"))
    assert "compute8: changed" in cli("hook", "--hostname", "compute8", "--ip", "192.0.2.8")
    (cli.folder / "dsn").write_text("postgresql://x@127.0.0.1:1/x?sslmode=disable\n")
    said = cli("hook", "--hostname", "compute8", "--ip", "192.0.2.9", expect=1)
    assert "error: neither handed on nor kept: database: ConnectionRefusedError" in said
    assert "/proc/nothing: No such file or directory" in said


async def test_what_follow_and_authority_cannot_use_is_one_line(cli: Cli) -> None:
    token = cli.folder / "token"
    token.write_text("not a certificate\n")
    text = cli.config.read_text()
    for file, words in ((token, "no certificate or crl found"), ("/nonexistent", "No such file or directory")):
        follow = f"  follow: {{api: 'https://127.0.0.1:1', token_file: {token}, ca_file: {file}}}\n"
        cli.config.write_text(text + follow)
        said = cli("follow", "--once", expect=1)
        assert f"error: dns.follow.ca_file: {file}" in said
        assert words in said
    cli.config.write_text(text.replace("main: {servers", "main: {kind: builtin, servers"))
    assert "error: cannot serve" in cli("authority", "--bind", "203.0.113.1", expect=1)


async def test_sync_says_what_in_the_database_kept_it_from_being_done(cli: Cli) -> None:
    await cli.ping("compute7", "192.0.2.7")
    cli("sync")
    await cli.db.execute("ALTER TABLE dns_unsure RENAME TO elsewhere")
    await cli.ping("compute7", "192.0.2.8")
    said = cli("sync", "--timeout", "2s", expect=5)
    assert 'main: database: UndefinedTableError: relation "dns_unsure" does not exist' in said
