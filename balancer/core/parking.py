"""Requests that wait instead of failing: who may wait, in which order and how fast they go, what to tell who cannot.

Nothing of a parked request but what came with its head is read; it waits in its socket. Caps and the release rate hold
over all workers: the numbers come from the scoreboard, the token bucket's two cells live there and are changed under a
lock.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from balancer.model import Park

BURST_S = 0.05  # the bucket holds what this much time earns: enough to hide timer slack, too little to be a herd
MICRO = 1_000_000
RETRY_AFTER_MIN_S = 1
RETRY_AFTER_MAX_S = 3600
BEAT_STALE_NS = 2_000_000_000  # a worker silent for this long does not hold up the others' release


class Why(StrEnum):
    """Why requests wait."""

    PAUSED = "paused"
    ALL_DOWN = "all-down"
    FULL = "full"


class Refusal(StrEnum):
    """Why a request may not wait."""

    COUNT = "park.max requests wait already"
    BYTES = "the heads of waiting requests fill park.max_bytes"
    CLIENT = "this client has park.max_per_client requests waiting"


@dataclass(frozen=True, slots=True)
class Parked:
    """What waits now, over all workers; `by_client` counts the requesting client's own (of the asking worker)."""

    requests: int
    bytes: int
    by_client: int = 0


def admit(park: Park, now: Parked, request_bytes: int, *, client_trusted: bool) -> Refusal | None:
    """Return None when one more request may wait, else why not.

    `client_trusted`: the peer is one of trusted_proxies, behind whose one address stand many clients.
    """
    if now.requests >= park.max:
        return Refusal.COUNT
    if now.bytes + request_bytes > park.max_bytes:
        return Refusal.BYTES
    if park.max_per_client and not client_trusted and now.by_client >= park.max_per_client:
        return Refusal.CLIENT
    return None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a pause of a given length will hold at the rate seen now."""

    rate_per_s: float
    pause_s: float
    holds: int
    cap: int
    full_in_s: float | None  # None: not within the pause

    @property
    def fits(self) -> bool:
        """True when all of it may wait."""
        return self.full_in_s is None

    def __str__(self) -> str:
        rate = f"{self.rate_per_s:.1f}" if 0 < self.rate_per_s < 10 else f"{self.rate_per_s:.0f}"
        text = f"at {rate} req/s, {self.pause_s:g} s holds {self.holds}; cap {self.cap}"
        return text if self.fits else f"{text}, reached after {self.full_in_s:.0f} s: then requests get 503"


def forecast(rate_per_s: float, pause_s: float, cap: int, parked: int = 0) -> Forecast:
    """Return the forecast for pausing `pause_s` seconds from now, with `parked` waiting already."""
    holds = parked + math.ceil(rate_per_s * pause_s)
    full_in_s = None if holds <= cap else max(0.0, (cap - parked) / rate_per_s) if rate_per_s > 0 else 0.0
    return Forecast(rate_per_s, pause_s, holds, cap, full_in_s)


def retry_after_s(why: Why, ahead: int, release_per_s: float, pause_left_s: float | None, interval_s: float) -> int:
    """Return the Retry-After of a request that waited in vain or may not wait, in whole seconds.

    Args:
        why: what it waited for.
        ahead: requests that wait now and will be released before it.
        release_per_s: the release rate, 0 no limit.
        pause_left_s: seconds until the pause ends by itself.
        interval_s: between two health checks; all-down cannot end before the next one.
    """
    wait_s = ahead / release_per_s if release_per_s > 0 else 0.0
    if why is Why.PAUSED:
        wait_s += max(0.0, pause_left_s or 0.0)
    elif why is Why.ALL_DOWN:
        wait_s += interval_s
    return min(RETRY_AFTER_MAX_S, max(RETRY_AFTER_MIN_S, math.ceil(wait_s)))


@dataclass(frozen=True, slots=True)
class Bucket:
    """The token bucket for release, as it stands in the scoreboard: millionths of a token, and when it was counted."""

    tokens_micro: int
    at_ns: int


def refill(bucket: Bucket, now_ns: int, rate_per_s: float) -> Bucket:
    """Return the bucket as it is at `now_ns`."""
    earned = int(max(0, now_ns - bucket.at_ns) * rate_per_s / 1000)  # tokens/s x ns = 1e-9 tokens = 1e-3 micro
    return Bucket(min(bucket.tokens_micro + earned, _capacity_micro(rate_per_s)), max(now_ns, bucket.at_ns))


def take(bucket: Bucket, now_ns: int, rate_per_s: float, wanted: int = 1) -> tuple[int, Bucket]:
    """Return how many of `wanted` may be released now, and the bucket after it. Rate 0: no limit."""
    if rate_per_s <= 0:
        return wanted, Bucket(0, now_ns)
    bucket = refill(bucket, now_ns, rate_per_s)
    granted = min(wanted, bucket.tokens_micro // MICRO)
    return granted, Bucket(bucket.tokens_micro - granted * MICRO, bucket.at_ns)


def next_token_ns(bucket: Bucket, rate_per_s: float) -> int:
    """Return nanoseconds from `bucket.at_ns` until it holds a whole token."""
    missing = MICRO - bucket.tokens_micro
    return 0 if missing <= 0 or rate_per_s <= 0 else math.ceil(missing * 1000 / rate_per_s)


def _capacity_micro(rate_per_s: float) -> int:
    return max(MICRO, int(rate_per_s * BURST_S * MICRO))


def older_head(own_head: int, heads: Iterable[tuple[int, int, int]], now_ns: int) -> int | None:
    """Return the worker whose oldest waiting request goes before this one's, or None: this one may be released.

    Args:
        own_head: ticket of the asking worker's oldest.
        heads: (worker, ticket of its oldest or 0 for none, its heartbeat) of the others.
        now_ns: monotonic. A worker that has not beaten for 2 s is passed over: it would hold up everybody.
    """
    for worker, head, beat_ns in heads:
        if 0 < head < own_head and now_ns - beat_ns < BEAT_STALE_NS:
            return worker
    return None
