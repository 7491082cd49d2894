"""PowerDNS on SQLite: refuses everything with one word, deletes before it adds, is slow with large messages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsupdate.exchange import Channel
from dnsupdate.update import Add, Update
from tests.dnsupdate.servers import FORWARD, REVERSE, Target, real, wall
from tests.dnsupdate.site import host, site

pytestmark = [pytest.mark.pg, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def powerdns() -> Iterator[Target]:
    with real("powerdns") as target:
        yield target


async def test_hosts_are_followed_through_create_swap_rename_and_delete_and_a_second_run_sends_nothing(
    powerdns: Target, dsn: str, tmp_path: Path
) -> None:
    batch = {"batch": 25, "brake": {"hosts": 50, "share": 1}, "timeout": "7s"}
    async with site(powerdns, dsn, tmp_path, target=batch) as one:
        ips = {f"compute{n}": f"192.0.2.{n}" for n in range(1, 61)}

        async def check() -> None:
            await one.rest(60)
            assert one.forward() == {f"{name}.{FORWARD} 60 A {ip}" for name, ip in ips.items()}
            assert one.reverse() == {
                f"{ip.rpartition('.')[2]}.{REVERSE} 60 PTR {name}.{FORWARD}" for name, ip in ips.items()
            }

        await one.ping(*(host(name, ip) for name, ip in ips.items()))
        await check()
        assert powerdns.process is not None
        assert powerdns.process.dig(f"compute7.{FORWARD}") == ["192.0.2.7"]
        ips["compute1"], ips["compute2"] = ips["compute2"], ips["compute1"]
        await one.ping(host("compute1", ips["compute1"]))
        await one.ping(host("compute2", ips["compute2"]))
        ips["computex"] = ips.pop("compute3")
        await one.ping(host("computex", ips["computex"], uuid="xarv1-7ekkf-compute3"))
        for number in range(50, 60):
            del ips[f"compute{number}"]
        await one.gone(*(f"compute{number}" for number in range(50, 60)))
        await check()
        before = len(one.counting.exchanges)
        await one.db.execute("INSERT INTO dns_dirty (target, node_uuid, gen) SELECT 'main', uuid, gen FROM dns_hosts")
        await check()
        assert len(one.counting.exchanges) == before


async def test_a_foreign_record_is_a_conflict_and_stays(powerdns: Target, dsn: str, tmp_path: Path) -> None:
    async with Channel(powerdns.peer(), wall) as channel:
        (made,) = await channel.update(Update(FORWARD, (), (Add(f"compute4.{FORWARD}", "A", 60, ("203.0.113.5",)),)))
        assert made.diagnosis.is_applied
    async with site(powerdns, dsn, tmp_path) as one:
        await one.ping(host("compute4", "192.0.2.4"), host("compute5", "192.0.2.5"))
        await one.rest(30)
        assert "is in use and not ours" in await one.state("compute4")
        assert await one.state("compute5") == "published"
        assert f"compute4.{FORWARD} 60 A 203.0.113.5" in one.forward()
