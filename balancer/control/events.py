"""What changed, when, by whom: a bounded ring for readers and a rotated file for later."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

RING = 2000
FILE_BYTES = 8 << 20  # then events.jsonl becomes events.jsonl.1; two generations are kept
VIEWER_BACKLOG = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. `number` grows by one and survives restarts."""

    number: int
    at: str  # RFC 3339, UTC
    kind: str
    text: str
    actor: str = "arv-balance"
    node: str = ""
    reason: str = ""
    level: str = "info"  # info | warning | error


class EventLog:
    """`add` never blocks and never fails; `run` writes behind it."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=RING)
        self._unwritten: deque[Event] = deque(maxlen=RING)
        self._wake = asyncio.Event()
        self._viewers: set[asyncio.Queue[Event]] = set()
        self._number = 0
        self.lost = 0  # not written: the disk refused

    def load(self) -> None:
        """Take the end of the file into the ring."""
        for path in (self._older, self._path):
            for line in _tail(path):
                try:
                    event = Event(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # a line cut by a crash; the next append starts a fresh one
                self._ring.append(event)
                self._number = max(self._number, event.number)

    def add(self, kind: str, text: str, **facts: str) -> Event:
        """Record an event (`actor`, `node`, `reason`, `level` as facts), log it and tell all viewers."""
        self._number += 1
        event = Event(number=self._number, at=self._clock().isoformat(), kind=kind, text=text, **facts)
        self._ring.append(event)
        self._unwritten.append(event)
        self._wake.set()
        for viewer in self._viewers:
            if not viewer.full():  # a viewer that does not read misses events and sees the gap in the numbers
                viewer.put_nowait(event)
        extra = {"action": kind, "node": event.node, "actor": event.actor, "reason": event.reason}
        logger.log(getattr(logging, event.level.upper()), "%s", text, extra=extra)
        return event

    def recent(self, *, limit: int = RING, after: int = 0, node: str = "", kind: str = "") -> list[Event]:
        """Return the newest events that fit, oldest first."""
        fits = [
            event
            for event in self._ring
            if event.number > after and (not node or event.node == node) and (not kind or event.kind == kind)
        ]
        return fits[-limit:] if limit else []

    @asynccontextmanager
    async def follow(self) -> AsyncIterator["asyncio.Queue[Event]"]:
        """Give a queue into which new events go while the context lasts."""
        queue: asyncio.Queue[Event] = asyncio.Queue(VIEWER_BACKLOG)
        self._viewers.add(queue)
        try:
            yield queue
        finally:
            self._viewers.discard(queue)

    async def run(self) -> None:
        """Write events to the file until cancelled, then write the rest."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._write()
        finally:
            await asyncio.shield(self._write())

    async def _write(self) -> None:
        batch = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if batch:
            await asyncio.to_thread(self._append, batch)

    def _append(self, batch: list[Event]) -> None:
        lines = "".join(json.dumps(asdict(event), separators=(",", ":")) + "\n" for event in batch)
        try:
            if self._path.exists() and self._path.stat().st_size > FILE_BYTES:
                self._path.replace(self._older)
            with self._path.open("a", encoding="utf-8") as file:
                if file.tell() and not _ends_a_line(self._path):
                    file.write("\n")
                file.write(lines)
        except OSError as exc:
            if not self.lost:
                logger.error("events cannot be written", extra={"path": str(self._path), "error": str(exc)})
            self.lost += len(batch)

    @property
    def _older(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")


def event_document(event: Event) -> dict[str, Any]:
    """Return the JSON form; the same in the file and in the admin API."""
    return asdict(event)


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - RING * 512))
            return file.read().decode(errors="replace").splitlines()[-RING:]
    except OSError:
        return []


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
