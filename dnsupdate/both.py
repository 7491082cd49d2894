"""Two things at once, each to its end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from dnsupdate.errors import DnsUpdateError
from dnsupdate.fences import AheadError
from dnsupdate.link import TroubleError

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


class _Failed:
    def __init__(self, error: Exception) -> None:
        self.error = error


async def _caught(work: Coroutine[Any, Any, A]) -> A | _Failed:
    try:
        return await work
    except _EXPECTED as exc:
        return _Failed(exc)
