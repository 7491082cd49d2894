"""Checks every node, for all workers: one task a node, verdicts into the scoreboard."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from balancer.control.board import Board
from balancer.control.httpclient import NoAnswerError, Target, get
from balancer.control.probe import Expectation, Result, check
from balancer.control.versions import identity
from balancer.core import health as rules
from balancer.core.versions import Reading
from balancer.model import Health

logger = logging.getLogger(__name__)

SPREAD = 0.1  # checks are moved by up to this share of the interval, so that balancers do not beat in step
STEP = 0.1  # and begin at whole multiples of this share: waking up costs as much as a check, so that many share it
VERSION_S = 15.0
VERSION_BYTES = 4 << 20  # a discovery document is some hundred kilobytes
AFTER_REFUSAL_S = 0.2  # at most this often by what workers see, however many requests fail


@dataclass(frozen=True, slots=True)
class Plan:
    """How one node is checked. `target` None: it has no address yet, `fault` says why."""

    name: str
    slot: int
    target: Target | None
    fault: str = ""
    expect: Expectation = field(default_factory=Expectation)
    thresholds: rules.Thresholds = field(default_factory=rules.Thresholds)
    is_enabled: bool = True
    interval_s: float = 2.0
    fast_interval_s: float = 0.5
    timeout_s: float = 1.0
    version_target: Target | None = None  # a JSON document that tells the version
    version_members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a node. `at` is the wall clock of the newest check, `since` of the newest change."""

    state: rules.NodeHealth = field(default_factory=rules.NodeHealth)
    result: Result | None = None
    at: datetime | None = None
    since: datetime | None = None


class Watcher(Protocol):
    """Whoever wants to know."""

    def health_changed(self, name: str, old: Health, new: Health, why: str, cause: str) -> None:
        """A node changed its state. `cause`: check, passive or version."""

    def checked(self, name: str, result: Result) -> None:
        """A check is over."""

    def version_read(self, name: str, version: str) -> None:
        """A node said its version, "" when it could not be read. Comes before the node may serve."""


@dataclass(slots=True)
class _Watch:
    plan: Plan
    seen: Seen
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    version_at_s: float = float("-inf")
    is_answering: bool = False
    is_looked_at: bool = False


class Prober(AbstractAsyncContextManager["Prober"]):
    """Holds what is known of the nodes' health. `set_plans` starts and ends their checks."""

    def __init__(self, *, board: Board, watcher: Watcher, now: Callable[[], datetime]) -> None:
        self._board = board
        self._watcher = watcher
        self._now = now
        self._watches: dict[str, _Watch] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._watches.values():
            if watch.task is not None:
                watch.task.cancel()
        await self._tasks.__aexit__(kind, exc, trace)

    def seen(self, name: str) -> Seen:
        """Return what is known of a node."""
        watch = self._watches.get(name)
        return watch.seen if watch is not None else Seen()

    def plan(self, name: str) -> Plan | None:
        """Return how a node is checked, None for one that is not known."""
        watch = self._watches.get(name)
        return watch.plan if watch is not None else None

    def set_plans(self, plans: Mapping[str, Plan]) -> None:
        """Check exactly these nodes. One whose plan changed keeps its state and is checked at once."""
        for name in self._watches.keys() - plans.keys():
            task = self._watches.pop(name).task
            if task is not None:
                task.cancel()
        for name, plan in plans.items():
            watch = self._watches.get(name)
            if watch is None:
                watch = self._watches[name] = _Watch(plan, self._remembered(plan))
                watch.task = self._tasks.create_task(self._run(watch), name=f"probe {name}")
            elif watch.plan != plan:
                watch.plan = plan
                watch.wake.set()

    def _remembered(self, plan: Plan) -> Seen:
        """Start with what an earlier control process wrote; workers have been running on it."""
        health, limits = self._board.health(plan.slot), plan.thresholds
        is_up = health in {Health.HEALTHY, Health.MISMATCHED}
        state = rules.NodeHealth(
            health=health,
            counter=limits.rise + limits.fall - 1 if is_up else 0,
            differs=health is Health.MISMATCHED,
        )
        return Seen(
            state, since=None if health is Health.CHECKING else self._now() - self._board.healthy_for(plan.slot)
        )

    def check_now(self, name: str) -> None:
        """Check a node without waiting for its turn."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.wake.set()

    async def look(self) -> None:
        """Check all enabled nodes at once, past `fall`; returns after the slowest one's timeout at the latest."""
        async with asyncio.TaskGroup() as looks:
            for watch in self._watches.values():
                if watch.plan.is_enabled and watch.plan.target is not None:
                    looks.create_task(self._look(watch, watch.plan, watch.plan.target))

    async def _look(self, watch: _Watch, plan: Plan, target: Target) -> None:
        result = await check(target, plan.expect, timeout_s=plan.timeout_s)
        if watch.plan is plan and self._watches.get(plan.name) is watch:
            self._take(watch, result, rules.after_look(watch.seen.state, plan.thresholds, passed=result.ok))
            watch.wake.set()

    def live_refused(self, name: str) -> None:
        """A worker's connection was refused: count it, and look for ourselves at once."""
        watch = self._watches.get(name)
        if watch is not None:
            state = rules.after_connects(watch.seen.state, watch.plan.thresholds, refused=1, worked=False)
            self._change(watch, state, "connection refused", "passive")
            watch.wake.set()

    def set_differs(self, name: str, *, differs: bool, why: str) -> None:
        """Say whether a node's version differs where it must not."""
        watch = self._watches.get(name)
        if watch is not None and watch.seen.state.differs != differs:
            state = rules.after_version(watch.seen.state, watch.plan.thresholds, differs=differs)
            self._change(watch, state, why, "version")

    async def _run(self, watch: _Watch) -> None:
        while True:
            watch.wake.clear()
            plan = watch.plan
            if plan.target is None:
                result = Result(ok=False, text=plan.fault)
            else:
                result = await check(plan.target, plan.expect, timeout_s=plan.timeout_s)
            if result.ok and self._wants_version(watch):
                await self._read_version(watch)
            watch.is_answering, watch.is_looked_at = result.ok, True
            if watch.plan is plan:  # else it was asked at an address that is no longer the node's
                self._take(
                    watch,
                    result,
                    rules.after_check(watch.seen.state, plan.thresholds, passed=result.ok, refused=result.refused),
                )
            await self._pause(watch)

    def _wants_version(self, watch: _Watch) -> bool:
        """Before a node may serve, and then now and then."""
        if watch.plan.version_target is None:
            return False
        is_new = watch.seen.state.health is not Health.HEALTHY
        return is_new or time.monotonic() - watch.version_at_s > VERSION_S

    async def _read_version(self, watch: _Watch) -> None:
        plan, version = watch.plan, ""
        if plan.version_target is None:
            return
        with suppress(NoAnswerError, ValueError):  # unreadable is unknown, and said so by ""
            status, body = await get(plan.version_target, timeout_s=plan.timeout_s, limit=VERSION_BYTES)
            if status == 200:
                version = identity(json.loads(body), plan.version_members)
        watch.version_at_s = time.monotonic()
        watch.is_answering, watch.is_looked_at = True, True  # only now does its version count
        self._watcher.version_read(plan.name, version)

    def readings(self, versions: Mapping[str, str]) -> dict[str, Reading]:
        """Return what the interlock of versions has to know of each node."""
        return {
            name: Reading(
                version=versions.get(name, ""),
                enabled=watch.plan.is_enabled,
                answers=watch.is_answering,
                looked_at=watch.is_looked_at,
            )
            for name, watch in self._watches.items()
        }

    async def _pause(self, watch: _Watch) -> None:
        plan = watch.plan
        hurried = rules.in_transition(watch.seen.state, plan.thresholds)
        interval_s = min(plan.fast_interval_s, plan.interval_s) if hurried else plan.interval_s
        spread = 1 + SPREAD * (random.random() * 2 - 1)  # noqa: S311 - not a secret
        began = time.monotonic()
        step_s = interval_s * STEP
        try:
            async with asyncio.timeout_at(round((began + interval_s * spread) / step_s) * step_s):
                await watch.wake.wait()
        except TimeoutError:
            return
        rest = AFTER_REFUSAL_S - (time.monotonic() - began)
        if rest > 0 and watch.plan is plan:
            await asyncio.sleep(min(rest, interval_s))

    def _take(self, watch: _Watch, result: Result, state: rules.NodeHealth) -> None:
        plan, seen = watch.plan, watch.seen
        watch.seen = Seen(seen.state, result, self._now(), seen.since)
        self._change(watch, state, result.text, "check")
        self._board.verdict(plan.slot, state.health, check_ok=result.ok)
        self._watcher.checked(plan.name, result)

    def _change(self, watch: _Watch, state: rules.NodeHealth, why: str, cause: str) -> None:
        old = watch.seen.state.health
        if state is not watch.seen.state:
            watch.seen = replace(watch.seen, state=state)
        if state.health is not old:
            watch.seen = replace(watch.seen, since=self._now())
            self._board.word(watch.plan.slot, state.health)
            self._watcher.health_changed(watch.plan.name, old, state.health, why, cause)
