"""What was on its way when a sender died is found by the next, by the note that was written before it left."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dnsupdate.booking import Booking, Lease
from dnsupdate.message import TooBigError, update_request, update_wire, write_ahead
from dnsupdate.store import Store
from dnsupdate.update import Add, NoName, Update
from tests.dnsupdate.chaos_sender import Blind
from tests.dnsupdate.servers import FORWARD, Target
from tests.dnsupdate.site import host, make_sender, site
from tests.support.nameservers import KEY

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(Store):
    """The process ends when an answer is to be booked: the server has applied the message, the tables do not know."""

    async def book(self, *_args: Any, **_more: Any) -> None:
        raise asyncio.CancelledError


async def left_behind(server: Target, dsn: str, folder: Path, *, noted: bool) -> set[str]:
    """Kill a sender between answer and booking, remove its host, let another work that compares no zones."""
    async with site(server, dsn, folder) as one, Killed.open(dsn) as store:
        killed = make_sender(one.settings, store, "api0", one.counting)
        await one.ping(host("compute1", "192.0.2.1"))
        with pytest.raises(asyncio.CancelledError):
            await killed.run()
        assert one.forward() == {f"compute1.{FORWARD} 60 A 192.0.2.1"}
        assert await one.db.fetchval("SELECT count(*) FROM dns_sending") == 1
        assert await one.db.fetchval("SELECT count(*) FROM dns_published") == 0
        await one.gone("compute1")
        if not noted:
            await one.db.execute("DELETE FROM dns_sending")
        one.sender._work.repair = Blind()  # type: ignore[attr-defined]
        await one.rest()
        assert await one.db.fetchval("SELECT count(*) FROM dns_sending") == 0
        assert await one.db.fetchval("SELECT count(*) FROM dns_unsure") == 0
        return one.forward()


@pytest.mark.pg
async def test_a_name_that_a_killed_sender_added_goes_with_its_host(practice: Target, dsn: str, tmp_path: Path) -> None:
    assert await left_behind(practice, dsn, tmp_path, noted=True) == set()


@pytest.mark.pg
async def test_without_the_note_it_would_stay(practice: Target, dsn: str, tmp_path: Path) -> None:
    assert await left_behind(practice, dsn, tmp_path, noted=False) == {f"compute1.{FORWARD} 60 A 192.0.2.1"}


class Rival(Store):
    """Somebody has written what is to be booked, in spite of the lease."""

    rivals = 1

    async def book(self, lease: Lease, booking: Booking, *, backoff: tuple[float, float]) -> None:
        if self.rivals and booking.contributions:
            self.rivals -= 1
            async with self.connection() as connection:
                await connection.execute(
                    "INSERT INTO dns_published (target, zone, name, rdtype, rdata, ttl, node_uuid, gen) SELECT 'main', "
                    "zone, name, rdtype, rdata, ttl, node_uuid, gen FROM unnest($1::dns_published[])",
                    [
                        (
                            "main",
                            one.zone,
                            one.name,
                            one.rdtype,
                            one.rdata,
                            one.ttl,
                            one.host,
                            one.gen,
                            False,
                            False,
                            NOW,
                        )
                        for found in booking.contributions.values()
                        for one in found
                    ],
                )
        await super().book(lease, booking, backoff=backoff)


@pytest.mark.pg
async def test_a_booking_that_meets_rows_that_should_not_be_there_is_done_again(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one, Rival.open(dsn) as store:
        sender = make_sender(one.settings, store, "api0", one.counting)
        await one.ping(host("compute1", "192.0.2.1"))
        errors = set()
        for _ in range(8):
            await sender.cycle()
            errors.add(sender.status.error)
        assert any("UniqueViolation" in error for error in errors if error is not None)
        assert sender.status.error is None
        assert await one.state("compute1") == "published"
        assert await one.db.fetchval("SELECT count(*) FROM dns_sending") == 0
        assert one.forward() == {f"compute1.{FORWARD} 60 A 192.0.2.1"}
        await sender._stop()


@pytest.mark.pg
async def test_a_record_that_two_templates_make_with_two_ttls_is_booked_once(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    record = {"name": "{{ fqdn }}.", "each": "ipv4", "type": "A", "data": "{{ item }}"}
    templates = {"one": {"records": [record | {"ttl": 60}]}, "two": {"records": [record | {"ttl": 90}]}}
    async with site(practice, dsn, tmp_path, templates=templates) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        assert one.forward() == {f"compute1.{FORWARD} 60 A 192.0.2.1"}
        assert await one.db.fetchval("SELECT count(*) FROM dns_published") == 1


def test_a_message_written_ahead_is_the_same_and_is_signed_when_it_is_sent() -> None:
    made = [Update(FORWARD, (NoName(f"a.{FORWARD}"),), (Add(f"a.{FORWARD}", "A", 60, ("192.0.2.1",)),)) for _ in "ab"]
    write_ahead(made[0])
    assert update_wire(made[0], 4711) == update_wire(made[1], 4711)
    first = update_request(made[0], 1, key=KEY, fudge_s=60, clock=lambda: 1e9)
    second = update_request(made[0], 2, key=KEY, fudge_s=60, clock=lambda: 2e9)
    assert first.wire[:2] != second.wire[:2]
    assert first.mac != second.mac


def test_a_message_that_is_too_big_is_not_written_ahead() -> None:
    text = f'"{"x" * 200}"'
    big = Update(FORWARD, (), tuple(Add(f"a{number}.{FORWARD}", "TXT", 60, (text,)) for number in range(400)))
    with pytest.raises(TooBigError):
        write_ahead(big)
    assert big.octets == []
