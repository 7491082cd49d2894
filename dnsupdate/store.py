"""The sender's side of the tables.

Every transaction of a sender begins with the renewal of its lease: a sender that was stopped for too long changes
nothing, whatever it believes.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from dnsupdate.booking import ORPHAN, Booking, Due, Known, Lease, Triple, dues_of
from dnsupdate.connections import BROKEN, Connections
from dnsupdate.errors import LeaseLostError
from dnsupdate.plan import Key
from dnsupdate.queries import load
from dnsupdate.records import Contribution

if TYPE_CHECKING:
    from dnsupdate.connections import Connection

_SQL = load("sender")
_NUDGE = load("enqueue")["nudge"]
_UNSURE_NAMES = 500


class Store:
    """What a sender reads and writes. `async with Store.open(dsn) as store`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.connection = connections.borrow

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[Self]:
        """Open a small pool.

        Raises:
            StoreError: the database does not answer.
        """
        async with Connections.open(dsn) as connections:
            yield cls(connections)

    @asynccontextmanager
    async def leased(self, lease: Lease, use: str = "") -> "AsyncIterator[Connection]":
        """A transaction that happens only while the lease is ours.

        Raises:
            LeaseLostError: it is not; nothing was written.
        """
        async with self.connection(use) as connection, connection.transaction():
            if await connection.fetchval(_SQL["renew"], lease.target, lease.epoch, lease.seconds) is None:
                raise _lost(lease)
            yield connection

    async def warm_up(self, target: str) -> None:
        """Open what a sender uses at once, its statements planned: in the midst of a burst each would take 10 ms.

        They are run for an epoch that never was, so that nothing happens.
        """
        nobody = Lease(target, "", -1, 0.0)
        async with self._connections.borrow_at_once("read", "book", "note", "note") as borrowed:
            if not borrowed:
                return  # others are at work, and will be slower beside each other anyway
            read, book, *notes = borrowed
            await read.fetch(_SQL["due"], target, 0, "{}", nobody.epoch)
            await read.fetch(_SQL["known_at"], target, "", "", 0)
            await book.fetchval(_SQL["book"], *_book_columns(nobody, Booking(contributions={}, settled=frozenset())))
            for note in notes:
                await note.fetchval(_SQL["note_ahead"], target, nobody.epoch, "")
                await note.fetchval(_SQL["note_sending"], target, nobody.epoch, "", nobody.seconds)

    async def register(self, target: str, kind: str) -> None:
        """Make a target known; a new one gets all hosts as dirty."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute(_SQL["lock_changes"])
            if await connection.fetchval(_SQL["register"], target, kind):
                await connection.execute(_SQL["mark_all"], target)

    async def acquire(
        self, target: str, holder: str, seconds: float, designation: int | None = None
    ) -> tuple[Lease, dict[str, Any]] | None:
        """Take a lease that nobody holds, with what is remembered of the server; None: somebody does.

        `designation`: for a directory, the epoch with which this node was designated; a newer one takes the lease from
        an older one, an older one gets nothing.
        """
        async with self.connection() as connection:
            if designation is None:
                row = await connection.fetchrow(_SQL["acquire"], target, holder, seconds)
            else:
                row = await connection.fetchrow(_SQL["acquire_designated"], target, holder, seconds, designation)
        return None if row is None else (Lease(target, holder, row["epoch"], seconds), json.loads(row["server_state"]))

    async def renew(self, lease: Lease) -> None:
        """Keep the lease.

        Raises:
            LeaseLostError: too late.
        """
        async with self.leased(lease):
            return

    async def raise_epoch(self, lease: Lease, *, above: int = 0) -> Lease:
        """Take a new number for the fence: what was sent with the old one can no longer be applied.

        Raises:
            LeaseLostError: the lease is over.
        """
        async with self.connection() as connection:
            epoch = await connection.fetchval(
                _SQL["raise_epoch"], lease.target, lease.holder, lease.epoch, above + 1, lease.seconds
            )
        if epoch is None:
            raise _lost(lease)
        return Lease(lease.target, lease.holder, epoch, lease.seconds)

    async def give_up(self, lease: Lease) -> None:
        """Let the next sender begin."""
        async with self.connection() as connection:
            await connection.execute(_SQL["give_up"], lease.target, lease.holder, lease.epoch)

    async def remember(self, lease: Lease, state: Mapping[str, Any]) -> None:
        """Keep something about the server; a key replaces the same key."""
        async with self.leased(lease) as connection:
            await connection.execute(_SQL["set_state"], lease.target, lease.epoch, json.dumps(state))

    async def due(self, lease: Lease, limit: int, without: Sequence[str] = ()) -> list[Due]:
        """Return hosts that are to be looked at, oldest first; without those, which are being worked on.

        When none is, messages that were noted as being on their way have been lost, and what they were to change is
        unsure from now on.

        Raises:
            LeaseLostError: the lease is over. It is not renewed here: a renewal waits for the disk.
        """
        async with self.connection("read") as connection:
            taken = json.dumps(dict.fromkeys(without))
            rows = await connection.fetch(_SQL["due"], lease.target, limit, taken, lease.epoch)
        if not rows:
            raise _lost(lease)
        if rows[0]["has_sending"] and not without:
            async with self.leased(lease) as connection:
                await connection.execute(_SQL["note_lost"], lease.target)
        return dues_of(rows)

    async def known(self, target: str, hosts: Sequence[str], wanted: Iterable[Key], *, count: bool) -> Known:
        """Return what is known at the names that these hosts have or want, and about unsure ones.

        `count`: the brake will be asked, so also what it goes by.
        """
        async with self.connection("read") as connection:
            places = (target, "\n".join(hosts), _lines(wanted), _UNSURE_NAMES)
            rows = await connection.fetch(_SQL["known_at"], *places)
            counts = await connection.fetchrow(_SQL["counts"], target) if count else None
        doubts = [row for row in rows if row["rdata"] is None]
        return Known(
            published=tuple(_contribution(target, row) for row in rows if row["rdata"] is not None),
            unsure=frozenset((row["zone"], row["name"], row["rdtype"]) for row in doubts if row["rdtype"] is not None),
            adopted=frozenset((row["zone"], row["name"]) for row in doubts if row["rdtype"] is None),
            published_hosts=counts["published"] if counts is not None else 0,
            held_hosts=counts["held"] if counts is not None else 0,
        )

    async def note_sending(self, lease: Lease, triples: Iterable[Triple], *, ahead: bool = False) -> int:
        """Write down, on the disk, what messages are about to change; return the note's number, for the booking.

        `ahead`: another batch is on its way. The lease must be there and is not renewed: its booking would wait.
        """
        async with self.connection("note") as connection:
            which = "note_ahead" if ahead else "note_sending"
            more = () if ahead else (lease.seconds,)
            note = await connection.fetchval(_SQL[which], lease.target, lease.epoch, _lines(triples), *more)
        if note is None:
            raise _lost(lease)
        return int(note)

    async def note_unsure(self, lease: Lease, triples: Iterable[Triple]) -> None:
        """What the table says about these may be wrong."""
        async with self.leased(lease) as connection:
            await connection.execute(_SQL["note_unsure"], lease.target, *_columns(triples, 3))

    async def book(self, lease: Lease, booking: Booking, *, backoff: tuple[float, float]) -> None:
        """Write down what became of a batch. `backoff`: first and longest seconds until a host is looked at again.

        Does not wait for the disk: a crash of the database that loses this leaves the note of what was sent, which was
        written down durably before it left, and the hosts dirty.
        """
        if booking.is_plain:
            async with self.connection("book") as connection:
                if await connection.fetchval(_SQL["book"], *_book_columns(lease, booking)) is None:
                    raise _lost(lease)
            return
        async with self.leased(lease, "book") as connection:
            await connection.execute(_SQL["need_not_wait"])
            target = lease.target
            if booking.contributions:
                gone = [key for key in booking.contributions if key in booking.had]
                if gone:
                    await connection.execute(_SQL["unpublish"], target, *_columns(gone, 2))
                rows = [one for found in booking.contributions.values() for one in found]
                await connection.execute(_SQL["publish"], target, *_publish_columns(rows))
            if booking.settled:
                await connection.execute(_SQL["forget_unsure"], target, *_triple_columns(booking.settled))
            await connection.execute(_SQL["forget_sending"], target, booking.sending)
            if booking.done:
                done = [due.uuid for due in booking.done], [due.gen for due in booking.done]
                await connection.execute(_SQL["clean"], target, *done)
            await self._put_off(connection, target, booking, backoff)
            if booking.adopted:
                await connection.execute(_SQL["unadopt"], target, *_columns(booking.adopted, 2))
            if booking.frees:
                await connection.execute(_SQL["wake_conflicts"], target)
            for trace in booking.traces:
                await connection.execute(
                    _SQL["trace"], target, trace.zone, list(trace.hosts), trace.message_id, lease.epoch, lease.holder,
                    trace.seconds, trace.rcode,
                )  # fmt: skip

    async def _put_off(
        self,
        connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
        target: str,
        booking: Booking,
        backoff: tuple[float, float],
    ) -> None:
        failed = booking.failed or {}
        rows = [(due.uuid, due.gen, *failed[due.uuid]) for due in booking.batch if due.uuid in failed]
        if rows:
            await connection.execute(_SQL["put_off"], target, *_columns(rows, 4), *backoff)
        if booking.robbed:
            uuids, errors = [one.host for one in booking.robbed], [one.text for one in booking.robbed]
            await connection.execute(_SQL["robbed"], target, uuids, errors, backoff[0])

    async def event(self, target: str, kind: str, text: str) -> None:
        """Write down something that an operator should know."""
        async with self.connection() as connection:
            await connection.execute(_SQL["event"], target, kind, text)
            await connection.execute(_SQL["trim_events"])
            await connection.execute(_SQL["trim_messages"])

    async def nudge(self) -> None:
        """Tell all senders that there is something to do."""
        async with self.connection() as connection:
            await connection.execute(_NUDGE)

    async def zone(self, lease: Lease, zone: str) -> tuple[tuple[Contribution, ...], frozenset[Triple]]:
        """Return all that we have in a zone, and all that is unsure there."""
        async with self.connection() as connection:
            published = await connection.fetch(_SQL["published_zone"], lease.target, zone)
            unsure = await connection.fetch(_SQL["unsure_zone"], lease.target, zone)
        return (
            tuple(_contribution(lease.target, row) for row in published),
            frozenset((row["zone"], row["name"], row["rdtype"]) for row in unsure),
        )

    async def doubt_zone(self, lease: Lease, zone: str) -> None:
        """Nothing that the table says about a zone can be trusted any more; everything is sent again."""
        async with self.leased(lease) as connection:
            await connection.execute(_SQL["doubt_zone"], lease.target, zone)

    async def mark_all(self, lease: Lease) -> None:
        """Look at every host again: the templates are others."""
        async with self.connection() as connection, connection.transaction():
            # In the order of `register`, which other processes call as they start: the lock, then the lease's row.
            await connection.execute(_SQL["lock_changes"])
            if await connection.fetchval(_SQL["renew"], lease.target, lease.epoch, lease.seconds) is None:
                raise LeaseLostError(f"the lease of {lease.target} with epoch {lease.epoch} is over")
            await connection.execute(_SQL["mark_all"], lease.target)

    async def redo(self, lease: Lease, uuids: Iterable[str]) -> None:
        """Look at these hosts again: what is there is not what they have published."""
        async with self.leased(lease) as connection:
            await connection.execute(_SQL["redo"], lease.target, list(uuids))

    async def note_orphans(self, lease: Lease, orphans: Iterable[Triple]) -> None:
        """Have names deleted that carry our marker and belong to no host."""
        async with self.leased(lease) as connection:
            uuids = [f"{ORPHAN}{zone}/{name}/{types}" for zone, name, types in orphans]
            await connection.execute(_SQL["orphans"], lease.target, uuids)

    async def sweep(self, *, missing_after_s: float | None, prefill: Sequence[str], domain: str) -> int:
        """Notice hosts that stopped pinging, fill in names, bury what is gone; return how many hosts became dirty."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute(_SQL["lock_changes"])
            rows = list(await connection.fetch(_SQL["prefill"], list(prefill), domain)) if prefill else []
            if missing_after_s is not None:
                rows += await connection.fetch(_SQL["missing"], missing_after_s)
            uuids, gens = [row["uuid"] for row in rows], [row["gen"] for row in rows]
            await connection.execute(_SQL["mark_dirty"], uuids, gens)
            await connection.execute(_SQL["bury_for_good"], [f"was:{name}" for name in prefill])
        return len(rows)

    @asynccontextmanager
    async def nudges(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever somebody says that there is something to do."""
        wake = asyncio.Event()
        async with self.connection() as connection:
            heard = lambda *_: wake.set()  # noqa: E731 -- the same object is needed twice
            await connection.add_listener("dns", heard)
            try:
                yield wake
            finally:
                # Of a dead connection nothing can be removed, and saying so would hide why the listening ends.
                with suppress(*BROKEN):
                    await connection.remove_listener("dns", heard)


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"the lease of {lease.target} with epoch {lease.epoch} is over")


def _book_columns(lease: Lease, booking: Booking) -> list[Any]:
    # By its key: the plan may have the same record twice, with two TTLs, and this statement does not look for that.
    news = [
        one
        for found in booking.contributions.values()
        for one in (
            found if len(found) < 2 else {(each.rdtype, each.rdata, each.host): each for each in found}.values()
        )
    ]
    traces = [(one.zone, "\n".join(one.hosts), one.message_id, one.seconds, one.rcode) for one in booking.traces]
    return [
        lease.target,
        lease.epoch,
        lease.seconds,
        "\n".join(
            [
                f"{zone}\t{name}\t{rdtype}\t{rdata}\t{ttl}\t{host}\t{gen}\t{shared}\t{yields}"
                for _, zone, name, rdtype, rdata, ttl, host, gen, shared, yields in news
            ]
        ),
        booking.sending,
        "\n".join([due.uuid for due in booking.done]),
        "\n".join([str(due.gen) for due in booking.done]),
        lease.holder,
        *_columns(traces, 5),
    ]


def _lines(rows: Iterable[tuple[str, ...]]) -> str:
    """Return rows as the queries take them apart. No value has a tab or a newline: none can be in a record's text."""
    return "\n".join(["\t".join(row) for row in rows])


def _contribution(target: str, row: asyncpg.Record) -> Contribution:
    return Contribution(
        target=target,
        zone=row["zone"],
        name=row["name"],
        rdtype=row["rdtype"],
        rdata=row["rdata"],
        ttl=row["ttl"],
        host=row["node_uuid"],
        gen=row["gen"],
        shared=row["shared"],
        yields=row["yields"],
    )


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    found = list(rows)
    return [[row[at] for row in found] for at in range(width)]


def _triple_columns(triples: Iterable[Triple]) -> list[list[str]]:
    """Return zones, names, and the triples as the queries spell them."""
    found = list(triples)
    zones, names = {zone for zone, _, _ in found}, {name for _, name, _ in found}
    return [sorted(zones), sorted(names), [" ".join(triple) for triple in found]]


def _publish_columns(rows: Sequence[Contribution]) -> list[list[Any]]:
    return _columns(
        [
            (one.zone, one.name, one.rdtype, one.rdata, one.ttl, one.host, one.gen, one.shared, one.yields)
            for one in rows
        ],
        9,
    )
