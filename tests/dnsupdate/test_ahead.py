"""Batches that are made ready while others are on their way: what is lost, changed or held meanwhile ends right."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dnsupdate.authority import Fault
from dnsupdate.booking import Booking, Due, Lease
from dnsupdate.store import Store
from tests.dnsupdate.chaos_sender import Blind
from tests.dnsupdate.servers import FORWARD, Target
from tests.dnsupdate.site import Site, a, forward_only, host, make_sender, site
from tests.support.postgres import until

pytestmark = pytest.mark.pg
ONE_BY_ONE = {"batch": 1, "timeout": "300ms"}


async def ping_three(one: Site) -> None:
    """One after the other, so that they are sent in that order."""
    for n in (1, 2, 3):
        await one.ping(host(f"compute{n}", f"192.0.2.{n}"))


async def three_of_which_two_wait(one: Site) -> None:
    """Three hosts, a batch each: the first is sent, the others are ready, and their notes are on the disk."""
    await one.sender.cycle()
    await ping_three(one)
    await one.sender.cycle()
    await until(lambda: one.db.fetchval("SELECT count(*) = 3 FROM dns_sending"))
    assert one.forward() == {a("compute1", "192.0.2.1")}


class KilledAtTheSecond(Store):
    """The process ends when the first answer is to be booked: by then the second batch is at the server."""

    async def book(self, lease: Lease, booking: Booking, *, backoff: tuple[float, float]) -> None:
        async with self.connection() as connection:
            await until(lambda: connection.fetchval("SELECT count(*) > 2 FROM dns_sending"))
        raise asyncio.CancelledError


async def left_by_a_kill(server: Target, dsn: str, folder: Path, *, unnoted: str) -> set[str]:
    """Kill a sender with several notes open, remove the hosts, let another go on that compares no zones."""
    async with site(server, dsn, folder, target=ONE_BY_ONE) as one, KilledAtTheSecond.open(dsn) as store:
        killed = make_sender(one.settings, store, "api0", one.counting)
        await ping_three(one)
        with pytest.raises(asyncio.CancelledError):
            await killed.run()
        assert a("compute1", "192.0.2.1") in one.forward()
        assert await one.db.fetchval("SELECT count(*) FROM dns_sending") > 2
        await one.gone("compute1", "compute2", "compute3")
        await one.db.execute("DELETE FROM dns_sending WHERE record_sets LIKE $1", f"%{unnoted}.%")
        one.sender._work.repair = Blind()  # type: ignore[attr-defined]
        await one.rest()
        assert await one.db.fetchval("SELECT count(*) FROM dns_sending") == 0
        assert await one.db.fetchval("SELECT count(*) FROM dns_unsure") == 0
        return one.forward()


async def test_of_several_batches_of_a_killed_sender_nothing_stays(practice: Target, dsn: str, tmp_path: Path) -> None:
    assert await left_by_a_kill(practice, dsn, tmp_path, unnoted="nobody") == set()


async def test_without_the_note_of_one_of_them_its_name_would(practice: Target, dsn: str, tmp_path: Path) -> None:
    assert a("compute1", "192.0.2.1") in await left_by_a_kill(practice, dsn, tmp_path, unnoted="compute1")


class Forgetful(Store):
    """Gives a host out again that is in a batch already."""

    async def due(self, lease: Lease, limit: int, without: Sequence[str] = ()) -> list[Due]:
        return await super().due(lease, limit, [uuid for uuid in without if "compute2" not in uuid])


async def renamed_while_ready(server: Target, dsn: str, folder: Path, kind: type[Store]) -> set[str]:
    """Give a host another name while the batch with its first one waits to be sent."""
    async with site(server, dsn, folder, target=ONE_BY_ONE, templates=forward_only()) as one, kind.open(dsn) as store:
        one.sender = make_sender(one.settings, store, "api1", one.counting)
        one.sender._work.repair = Blind()  # type: ignore[attr-defined]
        await one.sender.cycle()
        await ping_three(one)
        await one.sender.cycle()
        await until(lambda: one.db.fetchval("SELECT count(*) > 1 FROM dns_sending"))
        await one.ping(host("compute9", "192.0.2.9", uuid="xarv1-7ekkf-compute2"))
        await one.rest()
        found = one.forward()
        await one.sender._stop()
        return found


async def test_a_host_that_gets_another_name_while_it_waits_has_only_that(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    right = {a("compute1", "192.0.2.1"), a("compute3", "192.0.2.3"), a("compute9", "192.0.2.9")}
    assert await renamed_while_ready(practice, dsn, tmp_path, Store) == right


async def test_it_would_keep_the_old_one_if_it_were_planned_beside_itself(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    assert a("compute2", "192.0.2.2") in await renamed_while_ready(practice, dsn, tmp_path, Forgetful)


async def test_when_an_answer_is_lost_what_is_ready_is_thrown_away_and_looked_at_again(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, target=ONE_BY_ONE, templates=forward_only()) as one:
        await three_of_which_two_wait(one)
        epoch = one.sender.status.epoch
        assert practice.authority is not None
        practice.authority.faults.queue.append(Fault("drop"))
        await one.sender.cycle()
        assert one.sender.status.error is not None
        assert not one.sender._work._ahead.has_more  # type: ignore[attr-defined]
        await one.rest()
        assert one.sender.status.epoch == epoch + 1
        assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)}
        assert await one.db.fetchval("SELECT count(*) FROM dns_sending") == 0
        assert await one.db.fetchval("SELECT count(*) FROM dns_unsure") == 0


async def test_hosts_that_are_held_count_for_the_batch_that_follows_at_once(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    target = {"batch": 7, "brake": {"hosts": 6, "share": 1}}
    async with site(practice, dsn, tmp_path, target=target, templates=forward_only()) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)))
        await one.rest()
        await one.gone(*(f"compute{n}" for n in range(1, 11)))
        await one.rest()
        assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)}


async def test_a_note_ahead_does_not_wait_for_the_booking_beside_it(dsn: str) -> None:
    async with Store.open(dsn) as store:
        await store.register("main", "rfc2136")
        taken = await store.acquire("main", "api1", 15)
        assert taken is not None
        async with store.leased(taken[0]):
            async with asyncio.timeout(5):
                assert await store.note_sending(taken[0], {(FORWARD, f"a.{FORWARD}", "A")}, ahead=True) > 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await store.note_sending(taken[0], {(FORWARD, f"b.{FORWARD}", "A")})


def _is_gone(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has taken it back
        return True


async def test_a_connection_that_broke_while_it_was_kept_is_replaced(dsn: str) -> None:
    async with Store.open(dsn) as store:
        async with store.connection() as first:
            pid = await first.fetchval("SELECT pg_backend_pid()")
        async with store.connection() as again:
            assert await again.fetchval("SELECT pg_backend_pid()") == pid
        other = await asyncpg.connect(dsn)
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        await other.close()
        await until(lambda: _is_gone(first))
        async with store.connection() as new:
            assert await new.fetchval("SELECT pg_backend_pid()") != pid


async def test_what_warms_a_sender_up_changes_nothing(dsn: str) -> None:
    async with Store.open(dsn) as store, store.connection() as connection:
        await store.register("main", "rfc2136")
        before = await connection.fetch("SELECT * FROM dns_lease")
        await store.warm_up("main")
        assert await connection.fetch("SELECT * FROM dns_lease") == before
        for table in ("dns_dirty", "dns_published", "dns_sending", "dns_unsure", "dns_messages"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_statement_is_planned_once_however_many_are_at_work(dsn: str) -> None:
    async with Store.open(dsn) as store:
        pids = set()
        for _ in range(3):
            async with store.connection("read"), store.connection("note"), store.connection("book") as book:
                pids.add(await book.fetchval("SELECT pg_backend_pid()"))
            async with store.connection("book") as book:
                pids.add(await book.fetchval("SELECT pg_backend_pid()"))
        assert len(pids) == 1


async def test_more_users_than_connections_all_get_one_in_turn(dsn: str) -> None:
    async with Store.open(dsn) as store:
        await store.register("main", "rfc2136")

        async def use() -> int:
            async with store.connection("read") as connection:
                return int(await connection.fetchval("SELECT 1 FROM pg_sleep(0.05)"))

        async with asyncio.timeout(8), asyncio.TaskGroup() as group:
            warm = [group.create_task(store.warm_up("main")) for _ in range(3)]
            users = [group.create_task(use()) for _ in range(20)]
        assert [one.result() for one in users] == [1] * 20
        assert all(one.done() for one in warm)
