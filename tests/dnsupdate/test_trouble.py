"""A server that is away or says no: nothing is lost, what can go on goes on, and each host says why it waits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.dnsupdate.builders import SECTION
from tests.dnsupdate.servers import REVERSE, Target, builtin, real
from tests.dnsupdate.site import a, forward_only, host, ptr, site
from tests.support.ports import free_port
from tests.support.postgres import until

pytestmark = pytest.mark.pg


async def test_a_thousand_hosts_wait_while_the_server_is_away_and_are_drained_after(dsn: str, tmp_path: Path) -> None:
    port = free_port()
    async with site(Target("builtin", port), dsn, tmp_path, templates=forward_only()) as one:
        await one.ping(*(host(f"compute{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1000)))
        for _ in range(5):
            await one.ping(*(host(f"compute{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1000)))
            await one.sender.cycle()
        assert await one.db.fetchval("SELECT count(*) FROM dns_dirty") == 1000
        assert "nothing listens" in str(one.sender.status.error)
        async with builtin(port=port) as back:
            one.server = back
            await one.rest(30)
            assert one.forward() == {a(f"compute{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1000)}
        assert (await one.events()).keys() >= {"not-sent", "recovered"}


@pytest.mark.parametrize("kind", ["bind", "knot"])
async def test_a_real_server_that_was_down_gets_a_thousand_hosts_when_it_is_back(
    kind: str, dsn: str, tmp_path: Path
) -> None:
    with real(kind) as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path, templates=forward_only()) as one:
            await one.ping(host("compute0", "10.0.0.1"))
            await one.rest()
            server.process.stop()
            await one.ping(*(host(f"compute{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1000)))
            await one.steps(3)
            assert await one.db.fetchval("SELECT count(*) FROM dns_dirty") == 1000
            assert "nothing listens" in str(one.sender.status.error)
            server.process.start()
            await one.rest(30)
            assert one.forward() == {a(f"compute{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1000)}
            assert (await one.events()).keys() >= {"not-sent", "recovered"}


async def test_one_host_that_the_server_refuses_does_not_stop_the_others(dsn: str, tmp_path: Path) -> None:
    with real("bind") as server:
        async with site(server, dsn, tmp_path, names={"allow_underscore": True}) as one:
            good = [host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)]
            await one.ping(*good, host("compute_bad", "192.0.2.99"))
            await one.steps(6)
            assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)}
            assert "failed" in await one.state("compute_bad")
            assert "check-names" in await one.state("compute_bad")


async def test_a_frozen_zone_fails_its_hosts_and_is_caught_up_when_thawed(dsn: str, tmp_path: Path) -> None:
    with real("bind") as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path) as one:
            await one.ping(host("compute1", "192.0.2.1"))
            await one.rest()
            server.process.control("freeze", REVERSE)
            await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
            await one.steps(4)
            assert "rndc thaw" in await one.state("compute2")
            assert a("compute2", "192.0.2.2") in one.forward()
            server.process.control("thaw", REVERSE)
            process = server.process
            await until(lambda: bool(process.dig(REVERSE, "SOA")))
            await one.rest()
            assert one.reverse() == {ptr(n, f"compute{n}") for n in (1, 2, 3)}


async def test_a_wrong_key_loses_nothing_and_is_told_at_every_host(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        work: Any = one.sender._work
        good = work.link._peers
        work.link._peers = (replace(good[0], key=replace(good[0].key, secret=b"wrong")),)
        await one.ping(host("compute1", "192.0.2.1"))
        await one.steps(4)
        assert "another secret for key upd." in await one.state("compute1")
        assert (await one.state("compute1")).startswith("failed")
        work.link._peers = good
        await one.rest()
        assert await one.state("compute1") == "published"


async def test_a_zone_that_the_server_does_not_have_stops_only_its_own_hosts(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    zones = [*SECTION["zones"], {"name": "10.in-addr.arpa", "target": "main", "networks": ["10.0.0.0/8"]}]
    async with site(practice, dsn, tmp_path, zones=zones) as one:
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "10.0.0.2"))
        await one.steps(6)
        assert await one.state("compute1") == "published"
        assert "10.in-addr.arpa. is not a zone's apex" in await one.state("compute2")
