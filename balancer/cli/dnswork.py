"""What the commands of `arv-balance dns` do while an event loop runs."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from dnsupdate.follow import Read
    from dnsupdate.service import Secrets, Service
    from dnsupdate.settings import Settings
    from dnsupdate.spool import Entry
    from dnsupdate.store import Store

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
LOOK_S = 0.1
SPOOL_S = 5.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; our own errors become one message and an exit code."""
    from dnsupdate.errors import DnsUpdateError, KeyFileError, RenderError, StoreError
    from dnsupdate.local import LocalFileError

    try:
        return asyncio.run(work)
    except* StoreError as group:
        raise _failed(group, Exit.UNREACHABLE, "is PostgreSQL running, and dns.database right?") from None
    except* (KeyFileError, LocalFileError, RenderError) as group:
        raise _failed(group, Exit.CONFIG) from None
    except* DnsUpdateError as group:
        raise _failed(group, Exit.NO) from None


def counted(hosts: int) -> str:
    """Return a number of hosts in words."""
    return f"{hosts} host" if hosts == 1 else f"{hosts} hosts"


def _failed(group: BaseExceptionGroup[BaseException], code: Exit, hint: str = "") -> CommandError:
    return CommandError(str(first(group)), hint=hint, code=code)


def first(group: BaseExceptionGroup[E]) -> E:
    """Return an exception of a group, of which one is enough to know."""
    found: E | BaseExceptionGroup[E] = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


@asynccontextmanager
async def opened(settings: "Settings") -> "AsyncIterator[Store]":
    """Open the database; make the tables if they are missing."""
    from dnsupdate.local import database
    from dnsupdate.schema import migrate
    from dnsupdate.store import Store

    async with Store.open(await asyncio.to_thread(database, settings)) as store:
        async with store.connection() as connection:
            await migrate(connection)
        yield store


async def service(
    settings: "Settings", store: "Store", *, designated: bool, secrets: "Secrets | None" = None
) -> "Service":
    """Return the senders of this process."""
    from dnsupdate.service import Designation, Service, holder_name, read_files

    designation: Designation | None = None
    if designated:
        designation = Designation()
        designation.grant(0)
    found: Secrets = secrets if secrets is not None else await asyncio.to_thread(read_files, settings)
    return Service(settings, found, store, holder=holder_name(), designation=designation)


async def until_done(
    settings: "Settings", store: "Store", *, designated: bool, timeout_s: float
) -> tuple[bool, list[str]]:
    """Send until nothing waits any more; return False when that takes too long, and what troubles senders in the end.

    Targets that another process sends to are waited for.
    """
    from dnsupdate.overview import Overview
    from dnsupdate.sender import NOT_DESIGNATED, OTHER_SENDS

    def has_looked(name: str) -> bool:
        """Whether the sender has seen that all is as it should be at its target, or leaves it to another process."""
        sender = sending.senders.get(name)
        return sender is not None and (sender.status.idle or sender.status.text in (OTHER_SENDS, NOT_DESIGNATED))

    # What goes wrong is in the tables, and said at the end; as a log line it would come without its reason.
    logging.getLogger("dnsupdate").addHandler(logging.NullHandler())
    sending = await service(settings, store, designated=designated)
    mine = {name for name, target in settings.targets.items() if target.kind != "files" or designated}
    overview = Overview(settings, store)

    async def done() -> bool:
        waiting = await overview.waiting()
        kinds = {(target, state) for target, state in waiting if target in mine}
        if any(state == "pending" for _, state in kinds) or not all(map(has_looked, mine)):
            return False
        return await _all_looked_at(overview, mine)

    finished = await _while(sending.run, done, timeout_s)
    errors = {name: sender.status.error for name, sender in sending.senders.items()}
    return finished, [f"{name}: {error}" for name, error in errors.items() if error]


async def _all_looked_at(overview: Any, mine: set[str]) -> bool:
    """Whether every target has been led with these templates, and is not in trouble."""
    rows = {row["target"]: row for row in await overview.targets()}
    states = [rows[name]["server_state"] for name in mine if name in rows]
    return len(states) == len(mine) and all(not state.get("error") for state in states)


async def _while(work: Callable[[], Awaitable[None]], done: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    """Run work until something is true, or the time is over."""
    finished = False

    async def watch() -> None:
        nonlocal finished
        looks = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while looks < 3:  # a target's first step may find more to do
                    await asyncio.sleep(LOOK_S)
                    looks = looks + 1 if await done() else 0
                finished = True

    stop = _stop_signal()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_forever(work))
        watching = group.create_task(watch())
        stopping = group.create_task(_cancel_when(stop, watching))
        await asyncio.wait([watching])
        task.cancel()  # which gives leases up
        stopping.cancel()
    if stop.is_set():
        why = "what was not sent waits in the database for the next sender"
        raise CommandError("interrupted", why=why, hint="arv-balance dns show", code=Exit.INTERRUPTED)
    return finished


async def _forever(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, instead of ending the process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def stopped_by_signal(work: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> None:
    """Run tasks until SIGTERM or SIGINT; they are cancelled then, which gives leases up."""
    stop = _stop_signal()
    async with asyncio.TaskGroup() as group:
        inner = group.create_task(_grouped(work))
        stopping = group.create_task(_cancel_when(stop, inner))
        await asyncio.wait([inner])
        stopping.cancel()


async def _grouped(work: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        await work(group)


async def _cancel_when(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    await stop.wait()
    task.cancel()


async def daemon(settings: "Settings", *, designated: bool) -> None:
    """Send, hand the spool on and follow, until told to stop."""
    from balancer.control import logs

    logs.configure("info", journald="JOURNAL_STREAM" in os.environ)
    async with opened(settings) as store:
        sending = await service(settings, store, designated=designated)

        async def all_of_it(group: asyncio.TaskGroup) -> None:
            group.create_task(_service(sending))
            group.create_task(_drain(settings, store))
            if settings.follow is not None:
                group.create_task(following(settings, store, once=False))
            sys.stderr.write(f"sending to {', '.join(settings.targets)}\n")

        await stopped_by_signal(all_of_it)


async def _service(sending: "Service") -> None:
    await sending.run()


async def _drain(settings: "Settings", store: "Store") -> None:
    from dnsupdate.errors import StoreError
    from dnsupdate.spool import Spool, SpoolError, hand_on

    spool, told = Spool(settings.spool.dir, settings.rules), ""
    while True:
        try:
            with contextlib.suppress(StoreError):
                async with store.connection() as connection:
                    await hand_on(spool, connection, settings.rules)
        except SpoolError as exc:
            if str(exc) != told:
                sys.stderr.write(f"spool: {exc}\n")
            told = str(exc)
        await asyncio.sleep(SPOOL_S)


@asynccontextmanager
async def _reader(settings: "Settings", store: "Store") -> "AsyncIterator[Read]":
    from dnsupdate.follow import client, from_api, from_database
    from dnsupdate.local import LocalFileError, secret

    follow = settings.follow
    if follow is None:
        raise LocalFileError("dns.follow is missing: {database_file: ...} or {api: ..., token_file: ...}")
    if follow.api is not None:
        if follow.token_file is None:
            raise LocalFileError("dns.follow.token_file is missing: a file with an administrator's token")
        token = await asyncio.to_thread(secret, follow.token_file, "dns.follow.token_file")
        async with client(str(follow.ca_file) if follow.ca_file else None) as session:
            yield from_api(session, follow.api, token, store)
        return
    dsn = follow.database
    if follow.database_file is not None:
        dsn = await asyncio.to_thread(secret, follow.database_file, "dns.follow.database_file")
    if dsn is None:
        raise LocalFileError("dns.follow needs database_file, database or api")
    yield from_database(dsn)


async def following(settings: "Settings", store: "Store", *, once: bool) -> int:
    """Follow the nodes; return how many changed in the last look."""
    from dnsupdate.errors import StoreError
    from dnsupdate.follow import FollowError
    from dnsupdate.follow import once as look

    told = ""
    async with _reader(settings, store) as read:
        while True:
            try:
                found = await look(read, store, settings.rules)
            except (FollowError, StoreError) as exc:
                if once:
                    raise
                if str(exc) != told:
                    sys.stderr.write(f"follow: {exc}\n")
                told = str(exc)
            else:
                if told:
                    sys.stderr.write("follow: the nodes can be read again\n")
                told = ""
                for text in found.refused:
                    sys.stderr.write(f"refused: {text}\n")
                if found.changed or found.removed:
                    sys.stderr.write(f"{counted(found.changed)} changed, {found.removed} removed\n")
                if once:
                    return found.changed + found.removed
            await asyncio.sleep(settings.follow.interval if settings.follow is not None else 5.0)


async def hooked(settings: "Settings", entry: "Callable[[Any], Entry]", *, timeout_s: float) -> str:
    """Hand a hook's entry on, after those that were kept; keep it when the database does not answer in time.

    `entry`: makes the entry for a database time.
    """
    from dnsupdate.enqueue import Nudger
    from dnsupdate.errors import StoreError
    from dnsupdate.local import database
    from dnsupdate.queries import load
    from dnsupdate.spool import Spool, SpoolError, enqueue_one, hand_on
    from dnsupdate.store import Store

    spool = Spool(settings.spool.dir, settings.rules)
    spool.check(entry(await asyncio.to_thread(spool.estimated_now)))
    dsn = await asyncio.to_thread(database, settings)
    try:
        async with asyncio.timeout(timeout_s), Store.open(dsn) as store, store.connection() as connection:
            now = await connection.fetchval(load("overview")["now"])
            await asyncio.to_thread(spool.note_clock, now)
            with contextlib.suppress(SpoolError):  # what others have kept; ours goes to the database
                await hand_on(spool, connection, settings.rules)
            changed = await enqueue_one(connection, entry(now), settings.rules)
            await Nudger(clock=asyncio.get_running_loop().time).nudge(connection)
    except (StoreError, TimeoutError) as exc:
        reason = str(exc) or "the database did not answer in time"
        try:
            path = await asyncio.to_thread(lambda: spool.put(entry(spool.estimated_now())))
        except SpoolError as trouble:
            raise SpoolError(f"neither handed on nor kept: {reason}; {trouble}") from exc
        return f"kept in {path}: {reason}"
    return "changed" if changed else "nothing changed"
