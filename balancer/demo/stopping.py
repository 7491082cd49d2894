"""Ctrl-C and SIGTERM: they break a start off, and end a show that runs."""

import asyncio
import signal
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class StopSign:
    """`asked` is set by the first signal. Until `started` the task that made this is cancelled, too."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._starting = asyncio.current_task()

    def started(self) -> None:
        """From now on whoever waits for `asked` sees to the end."""
        self._starting = None

    def _ask(self) -> None:
        self.asked.set()
        if self._starting is not None:
            self._starting.cancel()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take the signals during the context."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ask)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


async def whole(work: Awaitable[T]) -> T:
    """Wait for work that must not be left half-way: a cancellation takes effect after it."""
    task = asyncio.ensure_future(work)  # noqa: TID251 - awaited here in any case
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
