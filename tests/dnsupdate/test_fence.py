"""Messages that come late, senders that were overtaken, a database that went back: the fence tells them apart."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from dnsupdate.authority import Fault
from dnsupdate.booking import Booking, Lease
from dnsupdate.errors import LeaseLostError
from dnsupdate.plan import Change, Guard, RRset
from dnsupdate.sender import Sender
from dnsupdate.update import apply_changes
from tests.dnsupdate.servers import FORWARD, Target, builtin, real
from tests.dnsupdate.site import a, host, ptr, site, zone_of
from tests.support.postgres import until

pytestmark = pytest.mark.pg


@pytest.mark.parametrize("fault", ["drop", "close", "unsigned", "servfail", "late"])
async def test_an_answer_that_leaves_it_open_raises_the_fence_and_the_newest_value_stays(
    dsn: str, tmp_path: Path, fault: str
) -> None:
    async with builtin() as server, site(server, dsn, tmp_path, target={"timeout": "200ms"}) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        epoch = one.sender.status.epoch
        assert server.authority is not None
        server.authority.faults.queue += [Fault(fault, 0.6)] * 2
        await one.ping(host("compute1", "192.0.2.2"))
        await one.steps(2)
        await one.ping(host("compute1", "192.0.2.3"))
        await one.rest()
        await asyncio.sleep(
            0.7 if fault == "late" else 0
        )  # the put-off message is applied now, or refused by the fence
        assert one.forward() == {a("compute1", "192.0.2.3")}
        assert one.reverse() == {ptr(3, "compute1")}
        assert one.sender.status.epoch > epoch


async def test_a_change_that_was_taken_back_while_unknown_is_sent_again(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, target={"timeout": "200ms"}) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        assert practice.authority is not None
        practice.authority.faults.queue.append(Fault("stall", 0.3))  # applied, but the answer comes too late
        await one.ping(host("compute1", "192.0.2.2"))
        await one.sender.cycle()
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await until(lambda: one.forward() == {a("compute1", "192.0.2.1")})
        assert one.reverse() == {ptr(1, "compute1")}


async def test_a_second_process_takes_over_when_the_lease_ends_and_the_first_can_write_nothing_then(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        second = one.other()
        assert await leads_after_a_cycle(second) is False
        old: Lease = one.sender._lease  # type: ignore[assignment]
        await one.db.execute("UPDATE dns_lease SET until = clock_timestamp() - interval '1 s'")
        assert await leads_after_a_cycle(second) is True
        booking = Booking(contributions={}, settled=frozenset())
        with pytest.raises(LeaseLostError):
            await one.store.book(old, booking, backoff=(1, 1))
        assert await leads_after_a_cycle(one.sender) is False
        await second._stop()


async def leads_after_a_cycle(sender: Sender) -> bool:
    await sender.cycle()
    return sender.status.leads


async def test_a_sender_that_was_overtaken_changes_nothing_at_the_server(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        work: Any = one.sender._work
        second = one.other()
        await one.db.execute("UPDATE dns_lease SET until = '-infinity'")
        await second.cycle()

        change = Change(
            FORWARD, f"late.{FORWARD}", Guard.ABSENT, (), (RRset("A", 60, ("192.0.2.9",)),), ("A",), frozenset()
        )
        update = apply_changes(FORWARD, [change], work.fences[FORWARD], work._config.policy, 60)
        (reply,) = await work.link.update(update)
        assert reply.diagnosis.seen.rcode == "NXRRSET"
        assert one.forward() == {a("compute1", "192.0.2.1")}
        await second._stop()


async def test_a_database_that_went_back_is_noticed_by_the_fence(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await one.sender._stop()
        await one.db.execute("UPDATE dns_lease SET epoch = 0")
        zone_of(practice).drop(f"xarv1._dnsupdate-fence.{FORWARD}")
        zone_of(practice).put(f"xarv1._dnsupdate-fence.{FORWARD}", 0, "TXT", '"v=1 cluster=xarv1 epoch=9"')
        await one.ping(host("compute1", "192.0.2.2"))
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.2")}
        assert one.sender.status.epoch == 10
        assert "older copy" in (await one.events())["fence-ahead"]


async def test_a_stopped_server_delays_and_its_old_messages_do_no_harm(dsn: str, tmp_path: Path) -> None:
    with real("knot") as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path, target={"timeout": "300ms"}) as one:
            await one.ping(host("compute1", "192.0.2.1"))
            await one.rest()
            server.process.signal(signal.SIGSTOP)
            for number in (2, 3, 4):
                await one.ping(host("compute1", f"192.0.2.{number}"))
                await one.steps(2)
            server.process.signal(signal.SIGCONT)
            await one.rest(20)
            assert one.forward() == {a("compute1", "192.0.2.4")}
            assert one.reverse() == {ptr(4, "compute1")}
