"""Pause and resume: new exchanges wait, and `pause` is done once nothing is under way any more."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from balancer import scoreboard as sb
from balancer.control.board import Board
from balancer.control.events import EventLog
from balancer.control.intents import Intent, Intents, Kind, intent_document
from balancer.control.site import Site
from balancer.core import drain
from balancer.core.parking import forecast
from balancer.errors import BalanceError, RefusedError
from balancer.model import Drain
from balancer.observe.counts import Trend

LOOK_S = 0.02
ASK_AFTER_S = 0.2  # then workers are asked which of the exchanges are of exempt routes
CUT_S = 5.0  # a worker that has not cut by then is stuck
NAMED = 20


class PauseTimeoutError(BalanceError):
    """What was under way did not end in time; the pause was undone. `exchanges` names it."""

    def __init__(self, message: str, exchanges: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.exchanges = exchanges


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """Who asks. `for_s`: until it ends by itself; `wait_s`: for what is under way; None: as configured.

    `cut`: end by force what is under way after `wait_s`, instead of giving up.
    """

    who: str
    reason: str = ""
    for_s: float | None = None
    wait_s: float | None = None
    cut: bool = False
    dry_run: bool = False


class Pauses:
    """Holds and releases all traffic but that of routes with `park: false`."""

    def __init__(
        self, *, site: Site, board: Board, trend: Trend, events: EventLog, look: Callable[[], Awaitable[None]]
    ) -> None:
        self._site = site
        self._board = board
        self._trend = trend
        self._events = events
        self._look = look  # checks all nodes once
        self._reached: Intent | None = None  # the pause that was complete once

    async def pause(self, request: PauseRequest) -> dict[str, Any]:
        """Hold new exchanges; return when all workers do so and nothing is in flight.

        Raises RefusedError when it is paused already, PauseTimeoutError after undoing it.
        """
        _refuse_second(self._site.intents)
        for_s = self._site.config.park.timeout if request.for_s is None else request.for_s
        wait_s = self._site.config.drain.timeout if request.wait_s is None else request.wait_s
        now = self._site.parts.clock.now()
        intent = Intent(Kind.PAUSE, request.who, now, reason=request.reason, until=now + timedelta(seconds=for_s))
        if request.dry_run:
            return self.document(for_s)
        await self._site.change(lambda intents: _refuse_second(intents).with_(intent))
        self._event("paused", f"traffic is paused for at most {for_s:g} s", request.who, request.reason)
        await self._empty(intent, wait_s, request)
        self._reached = intent
        self._event("pause-complete", "nothing is in flight", request.who, request.reason)
        return self.document()

    async def resume(self, who: str, reason: str, per_s: float | None, *, dry_run: bool = False) -> dict[str, Any]:
        """Let what waits go on, at `per_s` requests a second (None: as configured); `dry_run` only says what would.

        Nodes are checked first: what is known of them is of before whatever the pause was for.
        """
        if self._site.intents.get(Kind.PAUSE) is None:
            return {**self.document(), "changed": False}
        rate = per_s or float(self._site.config.park.release)
        if dry_run:
            return self._released(self._board.total(sb.W_PARKED), rate)
        await self._look()
        parked = self._board.total(sb.W_PARKED)
        now = self._site.parts.clock.now()
        until = now + timedelta(seconds=max(1, math.ceil(2 * parked / rate)))
        release = Intent(Kind.RATE, who, now, reason=reason, until=until, settings={"per_s": rate})
        await self._site.change(
            lambda intents: (intents.with_(release) if per_s else intents).without(Kind.PAUSE),
        )
        self._board.poke()
        self._event("resumed", f"traffic goes on, {parked} requests waited; {rate:g} a second", who, reason)
        return self._released(parked, rate)

    def _released(self, parked: int, rate: float) -> dict[str, Any]:
        return {**self.document(), "changed": True, "released": parked, "rate_per_s": rate}

    async def _empty(self, intent: Intent, wait_s: float, request: PauseRequest) -> None:
        """Wait until nothing is under way. Tunnels are closed by the workers themselves, after their grace."""
        clock, limits = self._site.parts.clock, Drain(wait_s, self._site.snapshot.drain.tunnel_grace_s)
        began, has_cut = clock.monotonic(), False
        while True:
            if self._site.intents.get(Kind.PAUSE) != intent:
                raise RefusedError("the pause was ended before everything under way had finished")
            elapsed_s = clock.monotonic() - began
            closed = elapsed_s >= limits.tunnel_grace_s
            may_cut = request.cut and elapsed_s < wait_s + CUT_S
            left = await self._remaining(elapsed_s)
            step = drain.decide(left, limits, elapsed_s, may_cut=may_cut, tunnels_closed=closed)
            match step.kind:
                case drain.StepKind.DONE:
                    return
                case drain.StepKind.GIVE_UP:
                    raise await self._give_up(request.who, wait_s, left)
                case drain.StepKind.CUT if not has_cut:
                    has_cut = True
                    count = await self._site.parts.publisher.cut(None)
                    text = f"{count} exchanges and tunnels were cut after {wait_s:g} s"
                    self._events.add("pause-cut", text, actor=request.who, level="warning")
                case _:
                    await asyncio.sleep(LOOK_S)

    async def _remaining(self, elapsed_s: float) -> drain.Remaining:
        """Return what is under way; at least one exchange while a worker may still begin any."""
        busy, tunnels = self._board.busy(), self._board.total(sb.W_TUNNELS)
        if not self._is_held():
            return drain.Remaining(max(1, busy), tunnels)
        if busy and elapsed_s > ASK_AFTER_S and not all(route.park for route in self._site.snapshot.routes):
            held_back = await self._site.parts.publisher.held_back()
            busy = busy if held_back is None else held_back
        return drain.Remaining(busy, tunnels)

    def _is_held(self) -> bool:
        """Return whether every worker holds new exchanges."""
        publisher = self._site.parts.publisher
        workers = [address.slot for address in publisher.workers]
        cells = self._board.shared.cells
        held = all(cells[sb.row(slot) + sb.W_PAUSED_GENERATION] >= publisher.generation for slot in workers)
        return held and self._board.is_acknowledged(publisher.generation, workers)

    def is_complete(self) -> bool:
        """Return whether every worker holds new exchanges and nothing else is under way."""
        if self._reached is not None and self._site.intents.get(Kind.PAUSE) == self._reached:
            return self._is_held()  # what runs now is of exempt routes
        runs = self._board.busy() + self._board.total(sb.W_TUNNELS)
        return self._is_held() and runs == 0

    def document(self, for_s: float | None = None) -> dict[str, Any]:
        """Return whether traffic is paused, how far that is, and what it will come to.

        `for_s`: of a pause that is only thought of. Nothing waits beyond its end, nor longer than `park.timeout`.
        """
        pause = self._site.intents.get(Kind.PAUSE)
        if pause is not None and pause.until is not None:
            for_s = math.ceil((pause.until - self._site.parts.clock.now()).total_seconds())
        park, parked = self._site.snapshot.park, self._board.total(sb.W_PARKED)
        waits_s = park.timeout_s if for_s is None else min(park.timeout_s, max(0.0, for_s))
        return {
            "schema": "arv-balance/pause/v1",
            "paused": pause is not None,
            "complete": pause is not None and self.is_complete(),
            "pause": intent_document(pause) if pause else None,
            "busy": self._board.busy(),
            "tunnels": self._board.total(sb.W_TUNNELS),
            "parked": parked,
            "drain_s": float(self._site.config.drain.timeout),
            "forecast": str(forecast(self._trend.cluster().per_s, waits_s, park.max, parked)),
        }

    async def _give_up(self, who: str, wait_s: float, left: drain.Remaining) -> PauseTimeoutError:
        found = await self._site.parts.publisher.exchanges(None, NAMED)
        exchanges = [item for item in found if item["state"] != "parked"]
        await self._site.change(lambda intents: intents.without(Kind.PAUSE))
        self._board.poke()
        text = f"the pause was undone: {left} still under way after {wait_s:g} s"
        self._event("pause-undone", text, who, "")
        return PauseTimeoutError(text, exchanges)

    def _event(self, kind: str, text: str, who: str, reason: str) -> None:
        self._events.add(kind, text, actor=who, reason=reason)


def _refuse_second(intents: Intents) -> Intents:
    standing = intents.get(Kind.PAUSE)
    if standing is not None:
        raise RefusedError(f"traffic is paused already, by {standing.who} since {standing.at:%H:%M:%S}")
    return intents
