"""The control process: puts its pieces together, runs them in one group, ends when the parent is gone."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from balancer import scoreboard as sb
from balancer import snapshot as codec
from balancer.control import logs
from balancer.control.board import Board
from balancer.control.child import Child, from_environment
from balancer.control.control import Control, Outside
from balancer.control.events import EventLog
from balancer.control.intents import IntentStore
from balancer.control.link import Link, close_all
from balancer.control.publisher import Publisher, PublishError
from balancer.control.reload import InvalidConfigError
from balancer.control.site import Clock
from balancer.control.statefile import StateFile
from balancer.control.upgrade.journal import Journal
from balancer.errors import BalanceError, ConfigError, WireError
from balancer.model import Snapshot

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 3


class ParentGoneError(WireError):
    """The parent closed its end: there is nothing left to control."""


def main() -> int:
    """Run the control process; returns the exit code."""
    logs.configure("info", journald="JOURNAL_STREAM" in os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's
    ends: list[BalanceError] = []
    try:
        child = from_environment(os.environ)
        asyncio.run(run(child))
    except* BalanceError as group:
        ends = list(_leaves(group))
    return _exit_code(ends)


def _leaves(group: BaseExceptionGroup[BalanceError]) -> Iterator[BalanceError]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


def _exit_code(ends: Sequence[BalanceError]) -> int:
    if any(isinstance(exc, ParentGoneError) for exc in ends):
        return 0
    for exc in ends:
        said = exc.report if isinstance(exc, InvalidConfigError) else f"error: {exc}"
        sys.stderr.write(f"{said}\n")
    if any(isinstance(exc, ConfigError | PublishError) for exc in ends):
        return EXIT_CONFIG
    return EXIT_FAILED if ends else 0


async def run(child: Child) -> None:
    """Control until the parent is gone. Raises ParentGoneError then, ConfigError when nothing can be started."""
    now, monotonic = (lambda: datetime.now(UTC)), time.monotonic
    clock = Clock(now=now, monotonic=monotonic)
    events, intents = await asyncio.to_thread(_state, child, clock)
    shared = sb.Scoreboard(child.scoreboard_fd)
    board = Board(shared, child.wakes, clock_ns=time.monotonic_ns)
    parent_sock = socket.socket(fileno=child.parent_fd)
    async with AsyncExitStack() as stack:
        stack.callback(shared.close)
        parent = await stack.enter_async_context(Link(parent_sock))
        publisher = Publisher(parent=parent, board=board, notify=lambda message: control.from_worker(message))  # noqa: PLW0108 - made below
        publisher.adopt(_published(child.snapshot_fds), child.snapshot_fds)
        control = Control(
            Outside(
                config=child.config,
                parent=parent,
                publisher=publisher,
                board=board,
                events=events,
                intents=intents,
                designations=state_file(child, "designations.json", clock),
                versions=state_file(child, "versions.json", clock),
                sessions=state_file(child, "sessions.json", clock),
                upgrade=Journal(child.run_dir.parent / "upgrade.jsonl"),
                clock=clock,
                workers=child.overrides.get("workers"),
                last_good=child.run_dir / "config.last-good",
            )
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(_listen(parent, control), name="parent")
        publisher.run_in(tasks)
        publisher.set_workers(child.workers)
        await stack.enter_async_context(control)
        await control.start(tasks)
        await asyncio.Event().wait()


async def _listen(parent: Link, control: Control) -> None:
    try:
        async for message, fds in parent.messages():
            close_all(fds)
            control.from_parent(message)
    except WireError as exc:
        raise ParentGoneError(str(exc)) from exc


def _state(child: Child, clock: Clock) -> tuple[EventLog, IntentStore]:
    """Open what is kept in the state directory, which holds the runtime folder."""
    state_dir = child.run_dir.parent
    events = EventLog(state_dir / "events.jsonl", clock=clock.now)
    events.load()
    intents = IntentStore(state_file(child, "intents.json", clock))
    loaded = intents.load()
    if loaded.damage:
        kept = f"; the bad file is kept as {loaded.aside}" if loaded.aside else ""
        text = f"intents cannot be read, so none of them stands: {loaded.damage}{kept}"
        events.add("intents-unreadable", text, level="error")
    return events, intents


def state_file(child: Child, name: str, clock: Clock) -> StateFile:
    """Return a document of the state directory."""
    return StateFile(child.run_dir.parent / name, stamp=lambda: clock.now().strftime("%Y%m%dT%H%M%S"))


def _published(fds: Sequence[int]) -> Snapshot | None:
    if not fds:
        return None
    size = os.fstat(fds[0]).st_size
    try:
        return codec.decode(os.pread(fds[0], size, 0))
    except WireError as exc:
        logger.warning("the running snapshot is of another version; slots begin anew", extra={"error": str(exc)})
        return None
