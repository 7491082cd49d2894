"""Batches that are made ready while others are at the server: one after the other, and only a few.

Each is planned in the knowledge of all before it that are not booked: neither their hosts nor their names are in it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from dnsupdate.batch import Batch
from dnsupdate.booking import Lease
from dnsupdate.errors import DnsUpdateError
from dnsupdate.plan import Key, Plan

_PLACES = 2  # a batch takes about as long to be made ready as the server takes for one: one would often come too late


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch that can be sent as soon as `noted` has ended. `keys`: all names that it is about."""

    batch: Batch
    plan: Plan
    keys: frozenset[Key]
    noted: "asyncio.Task[None]"


def begun(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Begin something that outlives the step; `Ahead` sees its failure, when the batch is taken or dropped."""
    return asyncio.create_task(work)  # noqa: TID251 -- a TaskGroup would end with the step


class Ahead:
    """What will be sent next, in order. `make` returns the batch that follows those it is given, None: none can yet."""

    def __init__(self, make: Callable[[Lease, list[Ready]], Awaitable[Ready | None]]) -> None:
        self._make = make
        self._ready: deque[Ready] = deque()
        self._open: list[Ready] = []
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def has_more(self) -> bool:
        """Whether a batch is ready, or may be soon."""
        return bool(self._ready) or (self._task is not None and not self._task.done())

    def sent(self, ready: Ready) -> None:
        """This one is on its way to the server; until it is booked, others keep clear of it."""
        self._open.append(ready)

    def booked(self, ready: Ready) -> None:
        """The tables tell of this one from now on."""
        self._open = [one for one in self._open if one is not ready]

    def fill(self, lease: Lease, size: int) -> None:
        """Have batches made until all places are taken. `size`: a smaller batch is the last for now."""
        if self._task is None or (self._task.done() and self._task.exception() is None):
            self._task = begun(self._fill(lease, size))

    async def _fill(self, lease: Lease, size: int) -> None:
        try:
            last = self._ready[-1] if self._ready else self._open[-1]
            while len(self._ready) < _PLACES and len(last.batch.due) >= size:
                made = await self._make(lease, [*self._open, *self._ready])
                if made is None:
                    return
                last = made
                self._ready.append(made)
                self._changed.set()
        finally:
            self._changed.set()

    async def take(self) -> Ready | None:
        """Return the next batch; waits while one is being made. None: there is none."""
        while not self._ready and self.has_more:
            self._changed.clear()
            await self._changed.wait()
        if self._ready:
            return self._ready.popleft()
        if self._task is not None:
            task, self._task = self._task, None
            task.result()
        return None

    async def drop(self) -> None:
        """Let what is being made come to its end, then forget everything: the notes are found by the next reading."""
        task, self._task = self._task, None
        results = await asyncio.gather(*([task] if task is not None else []), return_exceptions=True)
        waiting, self._open = [*self._open, *self._ready], []
        self._ready.clear()
        results += await asyncio.gather(*(one.noted for one in waiting), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, DnsUpdateError):
                raise result

    async def close(self) -> None:
        """Cut off what is being made: nothing of it was sent."""
        for task in (self._task, *(one.noted for one in (*self._open, *self._ready))):
            if task is not None:
                task.cancel()
        await self.drop()
