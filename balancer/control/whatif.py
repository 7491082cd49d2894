"""What another set-up would have made of the traffic in an access log: a simulation on the real choosers.

Requests arrive when they did and take at a node as long as they did; who waits, and for how long, follows from the
nodes, their capacity, the policy and the queue's limits. What it does not know: a node that slows down under more load,
and clients that send their next request only after an answer.
"""

import heapq
import json
import math
import random
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from balancer.core.selection import Candidate, make_chooser
from balancer.model import Balance, Policy

NS = 1e9


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it came (seconds), how long it took at a node, from whom."""

    at_s: float
    service_s: float
    client: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is to be tried. `capacity` 0: no limit. `speed` 2: nodes that take half as long."""

    nodes: int
    policy: Policy = Policy.LEAST_REQUESTS
    capacity: int = 0
    queue_max: int = 1024
    queue_timeout_s: float = 30.0
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Log:
    """What was read. `failed`: 5xx answers of then; `unread`: lines that are none of ours."""

    arrivals: tuple[Arrival, ...]
    p99_s: float | None
    queue_p99_s: float | None
    failed: int
    unread: int

    @property
    def span_s(self) -> float:
        """From the first arrival to the last."""
        return self.arrivals[-1].at_s - self.arrivals[0].at_s if self.arrivals else 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would have been. `refused`: 503 because the queue was full, `expired`: because it took too long."""

    requests: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    queue_p99_s: float | None
    queue_longest: int
    refused: int
    expired: int
    busy: tuple[float, ...]  # mean requests at once at each node


@dataclass(slots=True)
class _Sim:
    setup: Setup
    load: list[int]
    ends: list[tuple[float, int]] = field(default_factory=list)
    waiting: deque[Arrival] = field(default_factory=deque)
    durations: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    longest: int = 0
    refused: int = 0
    expired: int = 0


def read(lines: Iterable[str]) -> Log:
    """Read an access log in JSON. A request that no node answered counts with the median time of the others."""
    rows: list[tuple[float, float | None, str]] = []
    durations, waits, failed, unread = [], [], 0, 0
    for line in lines:
        try:
            found = json.loads(line)
            duration, waited = float(found["http.server.request.duration"]), float(found["arv.queue_s"])
            at = datetime.fromisoformat(found["timestamp"]).timestamp() - duration
            status, has_node = int(found["http.response.status_code"]), found["arv.node"].strip("-") != ""
            client = str(found["client.address"])
        except (ValueError, KeyError, TypeError, AttributeError):
            unread += 1
            continue
        if status == 101:
            continue  # a tunnel takes no place at a node
        rows.append((at, max(0.0, duration - waited) if has_node else None, client))
        durations.append(duration)
        waits.append(waited)
        failed += status >= 500
    known = [service for _, service, _ in rows if service is not None]
    usual = statistics.median(known) if known else 0.0
    arrivals = sorted(
        (Arrival(at, usual if service is None else service, client) for at, service, client in rows),
        key=lambda item: item.at_s,
    )
    return Log(tuple(arrivals), quantile(durations, 0.99), quantile(waits, 0.99), failed, unread)


def simulate(arrivals: Sequence[Arrival], setup: Setup, *, seed: int = 1) -> Outlook:
    """Return what would have been. `seed`: for policies that draw lots."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    candidates = [Candidate(slot, capacity=setup.capacity, name=f"node{slot + 1}") for slot in range(setup.nodes)]
    chooser = make_chooser(Balance(policy=setup.policy), candidates)
    sim = _Sim(setup, [0] * setup.nodes, spent=[0.0] * setup.nodes)

    def begin(arrival: Arrival, now_s: float) -> bool:
        slot = chooser.choose((), arrival.client.encode() or None, chance.random)
        if slot is None:
            return False
        chooser.claimed(slot)
        took_s = arrival.service_s / setup.speed
        heapq.heappush(sim.ends, (now_s + took_s, slot))
        sim.spent[slot] += took_s
        sim.waits.append(now_s - arrival.at_s)
        sim.durations.append(now_s - arrival.at_s + took_s)
        return True

    def free_until(until_s: float) -> None:
        """Let everything end that ends before a moment, and those go on that waited for it."""
        while sim.ends and sim.ends[0][0] <= until_s:
            now_s, slot = heapq.heappop(sim.ends)
            chooser.released(slot)
            _expire(sim, now_s)
            while sim.waiting and begin(sim.waiting[0], now_s):
                sim.waiting.popleft()
        _expire(sim, until_s)

    for arrival in arrivals:
        free_until(arrival.at_s)
        if not sim.waiting and begin(arrival, arrival.at_s):
            continue
        if len(sim.waiting) >= setup.queue_max:
            sim.refused += 1
            continue
        sim.waiting.append(arrival)
        sim.longest = max(sim.longest, len(sim.waiting))
    free_until(math.inf)
    return _outlook(sim, arrivals)


def _expire(sim: _Sim, now_s: float) -> None:
    while sim.waiting and sim.waiting[0].at_s + sim.setup.queue_timeout_s < now_s:
        sim.waiting.popleft()
        sim.expired += 1
        sim.durations.append(sim.setup.queue_timeout_s)
        sim.waits.append(sim.setup.queue_timeout_s)


def _outlook(sim: _Sim, arrivals: Sequence[Arrival]) -> Outlook:
    span_s = max(1e-9, arrivals[-1].at_s - arrivals[0].at_s) if arrivals else 1.0
    return Outlook(
        requests=len(arrivals),
        p50_s=quantile(sim.durations, 0.5),
        p95_s=quantile(sim.durations, 0.95),
        p99_s=quantile(sim.durations, 0.99),
        queue_p99_s=quantile(sim.waits, 0.99),
        queue_longest=sim.longest,
        refused=sim.refused,
        expired=sim.expired,
        busy=tuple(spent / span_s for spent in sim.spent),
    )


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` of them lie, None without any (nearest rank)."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
