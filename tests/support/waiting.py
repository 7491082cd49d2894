"""Wait for what must become true."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], within_s: float = 30.0, what: str = "") -> T:
    """Return the first true value of `condition`; AssertionError after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within_s} s: {what or condition}")
        time.sleep(0.01)
    return value
