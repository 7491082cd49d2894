"""How many requests run at once, and which wait: higher priority first, first come first served within one."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from apiserver.errors import UnavailableError

LOCK_PRIORITY = -(2**63)
INTERACTIVE_PRIORITY = 1


class TurnedAwayError(UnavailableError):
    """The request did not get its turn; nothing of it was done."""


@dataclass(order=True, slots=True)
class _Waiting:
    rank: tuple[int, int]  # negated priority, order of arrival
    granted: "asyncio.Future[None]" = field(compare=False)


class Limiter:
    """At most `running` requests at once and `queued` waiting; 0 running means no limit.

    When the queue is full the one of lowest priority that came last is refused.
    """

    def __init__(self, *, running: int, queued: int) -> None:
        self.max_running, self.max_queued = running, queued
        self.running = 0
        self._queue: list[_Waiting] = []
        self._arrivals = count()

    @property
    def queued(self) -> int:
        """How many wait."""
        return sum(1 for waiting in self._queue if not waiting.granted.done())

    @asynccontextmanager
    async def slot(self, priority: int, *, timeout_s: float | None, is_gone: Callable[[], bool]) -> AsyncIterator[None]:
        """Hold one of the running places while the body runs.

        Raises:
            TurnedAwayError: the queue is full, or the wait took longer than `timeout_s`.
        """
        if self.max_running and (self.running >= self.max_running or self._queue):
            await self._wait(priority, timeout_s)
        else:
            self.running += 1
        try:
            if is_gone():
                raise TurnedAwayError("the client left while it waited")
            yield
        finally:
            self._release()

    async def _wait(self, priority: int, timeout_s: float | None) -> None:
        waiting = _Waiting((-priority, next(self._arrivals)), asyncio.get_running_loop().create_future())
        self._admit(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.granted
        except BaseException as exc:
            if waiting.granted.done() and not waiting.granted.cancelled() and waiting.granted.exception() is None:
                self._release()  # granted and given up in the same moment
            else:
                self._forget(waiting)
            if isinstance(exc, TimeoutError):
                raise TurnedAwayError("the request waited too long for its turn") from exc
            raise

    def _admit(self, waiting: _Waiting) -> None:
        if len(self._queue) >= self.max_queued:
            worst = max(self._queue, default=None)
            if worst is None or worst <= waiting:
                raise TurnedAwayError("too many requests wait")
            self._forget(worst)
            worst.granted.set_exception(TurnedAwayError("a more urgent request took the place"))
        heapq.heappush(self._queue, waiting)

    def _forget(self, waiting: _Waiting) -> None:
        self._queue = [other for other in self._queue if other is not waiting]
        heapq.heapify(self._queue)

    def _release(self) -> None:
        self.running -= 1
        while self._queue and (not self.max_running or self.running < self.max_running):
            waiting = heapq.heappop(self._queue)
            if not waiting.granted.done():
                self.running += 1
                waiting.granted.set_result(None)
