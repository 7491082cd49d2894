"""A pause counts only once every worker holds new exchanges, also one that is stuck while it is told."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from balancer import scoreboard as sb
from balancer.control.board import Board
from balancer.control.events import EventLog
from balancer.control.intents import Intents
from balancer.control.pauses import PauseRequest, Pauses, PauseTimeoutError
from balancer.control.site import Clock, Site
from balancer.model import Drain, Park
from balancer.observe.counts import Trend

GENERATION = 7
CLOCK = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)


class PublishingSite:
    """A site with two workers that has told both of a new snapshot, whether they took it or not."""

    def __init__(self) -> None:
        workers = [SimpleNamespace(slot=slot) for slot in range(2)]
        publisher = SimpleNamespace(workers=workers, generation=GENERATION, exchanges=self.exchanges)
        self.parts = SimpleNamespace(clock=CLOCK, publisher=publisher)
        self.intents = Intents()
        limits = SimpleNamespace(timeout=30.0, release=200.0)
        self.config = SimpleNamespace(park=limits, drain=limits)
        self.snapshot = SimpleNamespace(drain=Drain(), park=Park(), routes=())

    async def change(self, edit: Callable[[Intents], Intents]) -> None:
        """See Site."""
        self.intents = edit(self.intents)

    async def exchanges(self, _node: str | None, _limit: int) -> list[dict[str, Any]]:
        """See Publisher."""
        return []


class Trusting(Pauses):
    """Believes that whoever was told holds new exchanges."""

    def _is_held(self) -> bool:
        return True


@pytest.fixture
def board() -> Iterator[Board]:
    """Nothing is in flight; worker 1 has not taken the snapshot."""
    with sb.Scoreboard.create(time.monotonic_ns()) as shared:
        shared.cells[sb.H_ROWS] = 2
        holds(shared, 0)
        yield Board(shared, (), clock_ns=time.monotonic_ns)


def holds(shared: sb.Scoreboard, slot: int) -> None:
    for cell in (sb.W_GENERATION, sb.W_PAUSED_GENERATION):
        shared.cells[sb.row(slot) + cell] = GENERATION


def pauses(board: Board, kind: type[Pauses]) -> Pauses:
    async def look() -> None:
        """There is no node to look at."""

    events = EventLog(Path("unwritten"), clock=CLOCK.now)
    return kind(site=cast("Site", PublishingSite()), board=board, trend=Trend(), events=events, look=look)


async def test_a_pause_with_a_worker_that_does_not_hold_is_undone(board: Board) -> None:
    with pytest.raises(PauseTimeoutError):
        await pauses(board, Pauses).pause(PauseRequest("root", wait_s=0.2))


async def test_a_pause_waits_for_the_worker_that_holds_last(board: Board) -> None:
    pausing = asyncio.ensure_future(pauses(board, Pauses).pause(PauseRequest("root", wait_s=20)))
    assert not (await asyncio.wait({pausing}, timeout=0.2))[0]
    holds(board.shared, 1)
    assert (await pausing)["complete"]


async def test_a_forecast_is_for_as_long_as_the_pause_or_the_waiting_lasts(board: Board) -> None:
    pausing = pauses(board, Trusting)  # park.timeout is 2 minutes
    for for_s, waits in ((20.0, "20 s holds"), (600.0, "120 s holds")):
        for dry_run in (True, False):
            document = await pausing.pause(PauseRequest("root", for_s=for_s, dry_run=dry_run))
            assert waits in document["forecast"], (for_s, dry_run)
        await pausing.resume("root", "", None)
    assert "120 s holds" in pausing.document()["forecast"]


async def test_a_pause_would_not_wait_for_a_worker_if_it_were_enough_to_have_told_it(board: Board) -> None:
    """The negative control of both."""
    assert (await pauses(board, Trusting).pause(PauseRequest("root", wait_s=0.2)))["complete"]
