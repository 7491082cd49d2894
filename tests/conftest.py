"""Guards that hold in every test: no blocking call in async code, no lost exception, loopback only."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, derandomize=True)
settings.load_profile("dev")


# A shell starts what it runs in the background with SIGINT ignored, and so would be all that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # What is loaded by now stays, so a collection after each test looks only at what the test made: 0.2 s less each.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx(["balancer", "apiserver", "dnsupdate"]) as guard:
        # asyncpg looks for ~/.pgpass and certificates when it opens a connection; nothing of ours can change that.
        for function in ("os.stat", "io.TextIOWrapper.read", "io.BufferedReader.read"):
            if function in guard.functions:
                guard.functions[function].can_block_in("asyncpg/connect_utils.py", {"_read_password_file"})
        yield


@pytest.fixture(autouse=True)
def _no_lost_exceptions(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    gc.collect()
    lost = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name == "asyncio" and record.levelno >= logging.ERROR
    ]
    assert not lost, lost


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before  # the fixture ends in a task of its own


def _loopback_only(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple) and not ip_address(args[1][0]).is_loopback:
        raise AssertionError(f"a test tried to reach {args[1]}")  # not an OSError: a prober would swallow it


sys.addaudithook(_loopback_only)
