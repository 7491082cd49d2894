"""`arv-balance dns` as people and cron type it: real processes, a real database, a real BIND."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dnsupdate.enqueue import enqueue, remove
from tests.dnsupdate.builders import host
from tests.dnsupdate.cli import Cli, cli, primary
from tests.dnsupdate.servers import FORWARD, REVERSE
from tests.support.nameservers import KEY, key_text

__all__ = ["cli", "primary"]  # fixtures
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(240)]  # a dozen processes a test


async def test_plan_apply_show_trace_and_nothing_left_to_do(cli: Cli) -> None:
    await cli.ping("compute7", "192.0.2.7")
    planned = cli("plan", expect=1)
    assert "+ compute7             A     192.0.2.7   ttl 60" in planned
    assert "+2 ~0 -0, 0 not possible. Nothing was sent." in planned
    script = cli("plan", "--nsupdate", expect=1)
    assert "prereq nxdomain compute7.cluster.example.\n" in script
    assert "update add 7.2.0.192.in-addr.arpa. 60 IN PTR compute7.cluster.example.\n" in script
    assert json.loads(cli("plan", "--json", expect=1))["targets"][0]["changes"][1]["after"] == [
        {"type": "A", "ttl": 60, "data": ["192.0.2.7"]}
    ]
    assert "try: --yes" in cli("apply", expect=6)
    assert "Nothing was sent" not in cli("apply", "--yes")
    assert "nothing to do" in cli("apply")
    assert cli.server.process is not None
    assert cli.server.process.dig(f"compute7.{FORWARD}") == ["192.0.2.7"]
    assert cli.server.process.dig(f"7.{REVERSE}", "PTR") == [f"compute7.{FORWARD}"]
    cli("plan")
    shown = cli("show", "compute7")
    assert "published" in shown
    traced = cli("trace", "compute7")
    assert "NOERROR in" in traced
    assert f"✓ 127.0.0.1 port {cli.server.port}  compute7.cluster.example. A 192.0.2.7" in traced
    cli("show", "nobody", expect=1)
    assert "Infinity" not in cli("show", "--json")
    async with cli.db.transaction():
        await remove(cli.db, "xarv1-7ekkf-compute7")
    cli("sync")
    assert cli.server.process.dig(f"compute7.{FORWARD}") == []


async def test_held_deletions_are_exit_six_until_they_are_released(cli: Cli) -> None:
    names = [f"c{number}" for number in range(30)]
    async with cli.db.transaction():
        await enqueue(cli.db, *(host(name, f"192.0.2.{n + 100}") for n, name in enumerate(names)))
    cli("sync")
    async with cli.db.transaction():
        await remove(cli.db, *(f"xarv1-7ekkf-{name}" for name in names))
    assert "30 hosts would lose all their records, the limit is 20" in cli("plan", expect=1)
    assert "deletions are held (main: 30 hosts)" in cli("sync", expect=6)
    assert "30 hosts would lose all their records, the limit is 20" in cli(
        "plan", expect=1
    )  # those that are held count once
    assert "nothing of c99 is held" in cli("release", "main", "c99", expect=1)
    assert "released 30 hosts" in cli("release", "main")
    assert "nothing is held" in cli("release")
    cli("sync")
    assert not any(line.startswith("c1.") for line in cli.server.hosts(FORWARD))


async def test_a_record_in_the_way_is_shown_and_adopted(cli: Cli) -> None:
    from dnsupdate.exchange import Channel
    from dnsupdate.update import Add, Update
    from tests.dnsupdate.servers import wall

    name = f"compute4.{FORWARD}"
    async with Channel(cli.server.peer(), wall) as channel:
        await channel.update(Update(FORWARD, (), (Add(name, "A", 60, ("192.0.2.200",)),)))
    await cli.ping("compute4", "192.0.2.4")
    assert "is in use and not ours" in cli("sync", expect=1)
    assert f"at the last try: {name} is in use and not ours" in cli("plan", expect=1)
    assert f"will take over {name}" in cli("adopt", "compute4")
    cli("sync")
    assert cli.server.process is not None
    assert cli.server.process.dig(name) == ["192.0.2.4"]
    cli("adopt", "nobody", expect=1)


async def test_the_servers_are_examined_and_what_is_wrong_comes_with_its_cure(cli: Cli) -> None:
    good = cli("test", "--write")
    assert "key accepted, updates allowed" in good
    assert "AAAA records can be made and removed" in good
    assert not any("arv-balance-test" in line for line in cli.server.records(FORWARD))
    assert "can be transferred" in good
    wrong = key_text(KEY).replace("MDEy", "AAAA")
    (cli.folder / "upd.key").write_text(wrong)
    bad = cli("doctor", expect=1)
    assert "has another secret for key upd." in bad
    assert "update-policy { grant upd zonesub ANY; }" in bad
    assert "pdnsutil set-meta cluster.example TSIG-ALLOW-DNSUPDATE upd" in bad


async def test_a_server_that_is_away_is_exit_five_with_the_reason_and_only_once(cli: Cli) -> None:
    await cli.ping("compute7", "192.0.2.7")
    cli.config.write_text(cli.config.read_text().replace(f"port: {cli.server.port}", "port: 1"))
    said = cli("sync", "--timeout", "2s", expect=5)
    assert "error: not done after 2 s\n  main: nothing listens at 127.0.0.1 port 1" in said
    assert "cannot send" not in said
    assert "✗ nothing listens" in cli("show")
    cli.config.write_text(cli.config.read_text().replace("port: 1,", f"port: {cli.server.port},"))
    cli("sync", "--timeout", "20s")  # another process than the one that had the trouble
    assert "✗" not in cli("show")


async def test_a_bad_section_is_exit_three_with_every_place(cli: Cli) -> None:
    text = cli.config.read_text().replace("poll: 50ms", "pol: 50ms").replace("type: PTR", "type: BOGUS")
    cli.config.write_text(text)
    said = cli("plan", expect=3)
    assert "arv-balance.yml:7:" in said
    assert "unknown key 'pol'" in said
    cli.config.write_text(text.replace("pol: 50ms", "poll: 50ms"))
    assert "arv-balance.yml:15:" in cli("plan", expect=3)


async def test_a_database_that_is_away_is_exit_four_and_the_hook_keeps_its_entry(cli: Cli, dsn: str) -> None:
    (cli.folder / "dsn").write_text("postgresql:///x?host=/nonexistent&user=postgres\n")
    assert "try: is PostgreSQL running" in cli("plan", expect=4)
    assert "kept in" in cli("hook", "--hostname", "compute8", "--ip", "192.0.2.8")
    assert "kept in" in cli("hook", "--hostname", "compute8", "--ip", "192.0.2.9")
    assert "characters other than" in cli("hook", "--hostname", "a;b", "--ip", "192.0.2.9", expect=1)
    (cli.folder / "dsn").write_text(dsn + "\n")
    assert "changed" in cli("hook", "--hostname", "compute9", "--ip", "192.0.2.99")
    rows = await cli.db.fetch("SELECT facts ->> 'hostname' AS name, facts -> 'ips' AS ips FROM dns_hosts ORDER BY 1")
    assert [(row["name"], row["ips"]) for row in rows] == [
        ("compute8", '["192.0.2.9"]'),
        ("compute9", '["192.0.2.99"]'),
    ]
    assert list((cli.folder / "spool").glob("0*.json")) == []


def shell(text: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(text, shell=True, capture_output=True, text=True, check=False, timeout=60)  # noqa: S602


async def test_the_update_command_of_the_example_reaches_the_name_server(cli: Cli) -> None:
    page = (Path(__file__).parents[2] / "examples" / "dns" / "unmodified.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("DNSServerUpdateCommand: "))
    # As an unmodified server does it: the values are put into the text, and a shell runs it.
    command = line.removeprefix("DNSServerUpdateCommand: ").replace("/etc/arv-balance/dns.yml", str(cli.config))
    command = command.replace("arv-balance", f"{sys.executable} -P -m balancer.cli", 1)
    for name, ip in (("compute8", "192.0.2.8"), ("compute9", "192.0.2.9"), ("compute8", "192.0.2.18")):
        text = command.replace("%{hostname}", name).replace("%{ip_address}", ip)
        assert shell(text).returncode == 0
    cli("sync")
    assert cli.server.process is not None
    assert cli.server.process.dig(f"compute8.{FORWARD}") == ["192.0.2.18"]
    assert cli.server.process.dig(f"9.{REVERSE}", "PTR") == [f"compute9.{FORWARD}"]
    refused = shell(command.replace("%{hostname}", "'a;$(id)'").replace("%{ip_address}", "192.0.2.10"))
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr


async def test_files_of_the_classic_strategy_are_taken_over(cli: Cli) -> None:
    folder = cli.folder / "unbound.conf.d"
    folder.mkdir()
    (folder / "compute5.conf").write_text(
        '  local-data: "compute5 IN A 192.0.2.5"\n  local-data: "compute5.x IN A 192.0.2.5"\n'
    )
    (folder / "compute6.conf").write_text('local-data: "compute6 IN A 127.40.4.0"\n')
    (folder / "bad name.conf").write_text("nonsense")
    said = cli("import", str(folder), "--dry-run", expect=1)
    assert "compute5                 192.0.2.5" in said
    assert "compute6                 unused" in said
    assert await cli.db.fetchval("SELECT count(*) FROM dns_hosts") == 0
    cli("import", str(folder), expect=1)
    assert await cli.db.fetchval("SELECT count(*) FROM dns_hosts") == 2


async def test_the_nodes_table_of_an_arvados_database_is_followed(cli: Cli, dsn: str) -> None:
    await cli.db.execute(
        "CREATE TABLE nodes (uuid text, hostname text, domain text, ip_address text, slot_number int, "
        "first_ping_at timestamp, properties jsonb, info jsonb)"
    )
    insert = (
        "INSERT INTO nodes VALUES ($1, $2, 'cluster.example', $3, $4, now(), '{}', '{\"ping_secret\": \"s3cr3t\"}')"
    )
    first, second = "xarv1-7ekkf-000000000000001", "xarv1-7ekkf-000000000000002"
    await cli.db.execute(insert, first, "compute1", "192.0.2.1", 1)
    await cli.db.execute(insert, second, "compute2", "192.0.2.2", 2)
    cli.config.write_text(cli.config.read_text() + f"  follow: {{database_file: {cli.folder}/dsn}}\n")
    assert "2 hosts changed" in cli("follow", "--once")
    assert "s3cr3t" not in str(await cli.db.fetch("SELECT facts FROM dns_hosts"))
    assert "0 hosts changed" in cli("follow", "--once")
    await cli.db.execute("DELETE FROM nodes WHERE slot_number = 2")
    assert "1 host changed" in cli("follow", "--once")
    assert await cli.db.fetchval("SELECT removed FROM dns_hosts WHERE uuid = $1", second)
