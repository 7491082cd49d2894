"""Who may wait, what is promised about it, and how they leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.claims import fits, needs_lock
from balancer.core.parking import (
    BURST_S,
    Bucket,
    Parked,
    Refusal,
    Why,
    admit,
    forecast,
    next_token_ns,
    older_head,
    refill,
    retry_after_s,
    take,
)
from balancer.model import Park

PARK = Park(max=10, max_bytes=1000, max_per_client=2)
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("now", "size", "trusted", "refusal"),
    [
        (Parked(9, 0), 1, False, None),
        (Parked(10, 0), 1, False, Refusal.COUNT),
        (Parked(1, 900), 100, False, None),
        (Parked(1, 900), 101, False, Refusal.BYTES),
        (Parked(2, 0, by_client=1), 1, False, None),
        (Parked(2, 0, by_client=2), 1, False, Refusal.CLIENT),
        (Parked(2, 0, by_client=2), 1, True, None),
        (Parked(10, 0, by_client=2), 1, True, Refusal.COUNT),
    ],
)
def test_caps_are_exact_and_a_trusted_proxy_has_no_share(
    now: Parked, size: int, trusted: bool, refusal: Refusal | None
) -> None:
    assert admit(PARK, now, size, client_trusted=trusted) is refusal


def test_without_a_cap_one_client_may_fill_all_places() -> None:
    assert admit(Park(max_per_client=0), Parked(100, 0, by_client=100), 1, client_trusted=False) is None


def test_a_forecast_says_whether_the_pause_fits() -> None:
    good = forecast(14, 120, 5000)
    assert good.fits
    assert str(good) == "at 14 req/s, 120 s holds 1680; cap 5000"
    assert str(forecast(0.115, 120, 5000)) == "at 0.1 req/s, 120 s holds 14; cap 5000"
    full = forecast(100, 120, 5000, parked=1000)
    assert (full.holds, full.full_in_s) == (13000, 40.0)
    assert str(full).endswith("cap 5000, reached after 40 s: then requests get 503")
    assert forecast(0, 10, 5, parked=6).full_in_s == 0.0


@pytest.mark.parametrize(
    ("why", "ahead", "rate", "left", "seconds"),
    [
        (Why.PAUSED, 0, 200, 12.2, 13),
        (Why.PAUSED, 1000, 200, 12.2, 18),
        (Why.PAUSED, 0, 200, -5.0, 1),
        (Why.ALL_DOWN, 0, 200, None, 2),
        (Why.FULL, 5000, 200, None, 25),
        (Why.FULL, 0, 0, None, 1),
        (Why.PAUSED, 0, 200, 1e9, 3600),
    ],
)
def test_retry_after_is_the_time_until_it_could_work(
    why: Why, ahead: int, rate: float, left: float | None, seconds: int
) -> None:
    assert retry_after_s(why, ahead, rate, left, 2.0) == seconds


@given(
    st.floats(0.5, 5000),
    st.lists(st.tuples(st.integers(0, 2 * SECOND), st.integers(1, 100)), min_size=1, max_size=60),
)
def test_no_stretch_of_time_releases_more_than_rate_and_burst(rate: float, script: list[tuple[int, int]]) -> None:
    bucket, now = Bucket(0, 0), 0
    released: list[tuple[int, int]] = []
    for step, wanted in script:
        now += step
        granted, bucket = take(bucket, now, rate, wanted)
        assert 0 <= granted <= wanted
        released.append((now, granted))
    burst = max(1.0, rate * BURST_S)
    for first, (start, _) in enumerate(released):
        for last in range(first, len(released)):
            total = sum(granted for _, granted in released[first : last + 1])
            assert total <= burst + rate * (released[last][0] - start) / SECOND + 1e-3


@given(st.floats(0.5, 5000), st.integers(0, 999_999))
def test_the_next_token_is_there_when_promised_and_not_before(rate: float, tokens: int) -> None:
    bucket = Bucket(tokens, 7)
    wait = next_token_ns(bucket, rate)
    assert take(bucket, 7 + wait + 2000, rate)[0] == 1
    assert take(bucket, 7 + max(0, wait - 2000), rate)[0] == 0 or wait <= 2000


def test_a_bucket_loses_no_token_to_a_clock_read_earlier_than_the_last() -> None:
    assert refill(Bucket(500_000, 100), 50, 10) == Bucket(500_000, 100)
    assert take(Bucket(0, 0), 5, 0, 7)[0] == 7


def test_only_the_oldest_of_live_workers_goes() -> None:
    now = 10 * SECOND
    assert older_head(5, [(1, 9, now), (2, 0, now)], now) is None
    assert older_head(9, [(1, 5, now), (2, 11, now)], now) == 1
    assert older_head(9, [(1, 5, now - 2 * SECOND), (2, 11, now)], now) is None  # a stuck worker holds nobody up


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("capacity", [1, 3, 8])
def test_without_lock_the_limit_holds_whatever_the_order_of_raising_and_reading(workers: int, capacity: int) -> None:
    """The worst order: all raise, then all sum."""
    for load in range(capacity + 1):
        standing = sum(fits(load + workers, capacity) for _ in range(workers))
        assert load + standing <= capacity or standing == 0
        if not needs_lock(load, capacity, workers):
            assert standing == workers  # far from the limit nobody gives back in vain


def test_no_capacity_is_no_limit() -> None:
    assert fits(10**6, 0)
    assert not needs_lock(10**6, 0, 4)
