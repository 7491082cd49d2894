"""`arv-balance dns` for somebody who makes mistakes, or interrupts it: a line that helps, the right exit code."""

import json
import signal

import pytest

from dnsupdate.enqueue import enqueue
from dnsupdate.exchange import Channel
from dnsupdate.update import Add, Update
from tests.dnsupdate.builders import host
from tests.dnsupdate.cli import Cli, cli, primary
from tests.dnsupdate.servers import FORWARD, wall
from tests.support.nameservers import KEY, key_text

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
