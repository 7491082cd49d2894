"""Two things at once, each to its end."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from dnsupdate.booking import Lease
from dnsupdate.errors import DnsUpdateError
from dnsupdate.fences import AheadError
from dnsupdate.link import TroubleError
from dnsupdate.store import Store

A = TypeVar("A")
B = TypeVar("B")
_EXPECTED = (DnsUpdateError, TroubleError, AheadError)


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run both to their ends and return what they return; then raise the first's error, else the second's.

    Neither is cut off by an expected failure of the other: what one of them was about to write down is written.
    """
    async with asyncio.TaskGroup() as group:
        one = group.create_task(_caught(first))
        other = group.create_task(_caught(second))
    results = one.result(), other.result()
    for result in results:
        if isinstance(result, _Failed):
            raise result.error
    return results  # type: ignore[return-value]  # no _Failed is left


async def leased(store: Store, lease: Lease, work: Coroutine[Any, Any, A]) -> A:
    """Renew the lease while `work` goes on, however long; return what it returns.

    Raises:
        LeaseLostError: it was lost all the same; the work was done to its end.
    """
    ended = asyncio.Event()

    async def marked() -> A:
        try:
            return await work
        finally:
            ended.set()

    async def kept() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(lease.seconds / 3):
                    await ended.wait()
                    return
            await store.renew(lease)

    result, _ = await both(marked(), kept())
    return result


class _Failed:
    def __init__(self, error: Exception) -> None:
        self.error = error


async def _caught(work: Coroutine[Any, Any, A]) -> A | _Failed:
    try:
        return await work
    except _EXPECTED as exc:
        return _Failed(exc)
