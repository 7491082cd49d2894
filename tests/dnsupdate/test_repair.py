"""Zones that somebody changed or put back are brought up to date again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dnsupdate.exchange import Channel
from dnsupdate.update import Add, Delete, Update
from tests.dnsupdate.servers import FORWARD, Target, real, wall
from tests.dnsupdate.site import a, host, site, zone_of

pytestmark = pytest.mark.pg


async def test_a_zone_that_was_emptied_is_filled_again_within_one_look(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        empty = zone_of(practice).copy()
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2)))
        await one.rest()
        zone_of(practice).restore(empty)
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1"), a("compute2", "192.0.2.2")}
        assert "its fence is gone" in (await one.events())["zone-reset"]


async def test_a_zone_restored_from_an_old_copy_is_brought_up_to_date(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
        await one.rest()
        old = zone_of(practice).copy()
        await one.sender._stop()
        await one.ping(host("compute1", "192.0.2.11"), host("compute4", "192.0.2.4"))
        await one.gone("compute2")
        await one.rest()
        zone_of(practice).restore(old)
        await one.rest()
        assert one.forward() == {
            a("compute1", "192.0.2.11"), a("compute3", "192.0.2.3"), a("compute4", "192.0.2.4")
        }  # fmt: skip
        assert "epoch 1 instead of 2" in (await one.events())["zone-reset"]


@pytest.mark.parametrize("kind", ["bind", "knot"])
async def test_a_server_restored_from_old_zone_files_is_brought_up_to_date(kind: str, dsn: str, tmp_path: Path) -> None:
    with real(kind) as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path) as one:
            await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
            await one.rest()
            server.process.stop()
            data = server.process.folder / "data"
            for journal in [*data.glob("*.jnl"), *data.glob("journal/*")]:  # BIND's, Knot's
                if journal.is_file():
                    journal.unlink()  # the zone files are those of the start
            server.process.start()
            await one.rest()
            assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)}
            assert "zone-reset" in await one.events()


async def test_a_record_that_somebody_changed_is_repaired(fresh: Target, dsn: str, tmp_path: Path) -> None:
    async with site(fresh, dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
        await one.rest()
        name, other = f"compute1.{FORWARD}", f"compute2.{FORWARD}"
        byhand = Update(FORWARD, (), (Delete(name, "A"), Delete(other, "A"), Add(other, "A", 77, ("192.0.2.99",))))
        async with Channel(fresh.peer(), wall) as channel:
            await channel.update(byhand)
        await one.rest()
        assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)}
        assert "nothing instead of 192.0.2.1" in (await one.events())["drift"]


async def test_without_the_right_to_transfer_names_are_asked_one_by_one_and_it_is_said(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, target={"reconcile": "10ms"}) as one:
        work: Any = one.sender._work
        nobody = replace(work._config.peers[0], key=replace(work._config.peers[0].key, secret=b"wrong"))
        work.repair._transfer_peers = (nobody,)
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "192.0.2.2"))
        await one.rest()
        zone_of(practice).drop(f"compute1.{FORWARD}", "A")
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1"), a("compute2", "192.0.2.2")}
        assert "will never be deleted" in (await one.events())["no-transfer"]
