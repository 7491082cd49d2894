"""What a health check costs the control process: `python -P -m bench.probe [NODES [SECONDS]]`.

A real prober in front of nodes that answer at once, checking each twenty times a second. CPU time of this process by
the number of checks, the event loop's wake-ups included.
"""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime

from balancer.control.board import Board
from balancer.control.httpclient import Target
from balancer.control.probe import Expectation, Result
from balancer.control.prober import Plan, Prober
from balancer.model import Health
from balancer.scoreboard import Scoreboard
from bench.stage import stage

INTERVAL_S = 0.05


class Tally:
    """Counts what the prober tells."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def checked(self, _name: str, result: Result) -> None:
        """See Watcher."""
        if result.ok:
            self.passed += 1
        else:
            self.failed += 1

    def health_changed(self, name: str, old: Health, new: Health, why: str, cause: str) -> None:
        """See Watcher."""

    def version_read(self, name: str, version: str) -> None:
        """See Watcher."""


def plan(slot: int, port: int) -> Plan:
    """Return how a node of the bench is checked."""
    target = Target(address="127.0.0.1", port=port, authority=f"127.0.0.1:{port}", path="/small")
    return Plan(
        f"n{port}", slot, target, expect=Expectation(body="xxx"), interval_s=INTERVAL_S, fast_interval_s=INTERVAL_S
    )


async def measure(ports: tuple[int, ...], seconds: float) -> None:
    """Print microseconds a check."""
    tally = Tally()
    board = Board(Scoreboard.create(time.monotonic_ns()), (), clock_ns=time.monotonic_ns)
    async with Prober(board=board, watcher=tally, now=lambda: datetime.now(UTC)) as prober:
        prober.set_plans({f"n{port}": plan(slot, port) for slot, port in enumerate(ports)})
        await asyncio.sleep(1.0)
        before, spent = tally.passed, time.process_time_ns()
        await asyncio.sleep(seconds)
        spent, done = time.process_time_ns() - spent, tally.passed - before
    print(f"{len(ports)} nodes: {done} checks, {spent / 1000 / max(done, 1):.0f} us each, {tally.failed} failed")


def main(argv: list[str]) -> None:
    """Run."""
    nodes = int(argv[0]) if argv else 16
    with stage() as on:
        ports = on.nodes(nodes)
        os.sched_setaffinity(0, {on.target_core})
        asyncio.run(measure(ports, float(argv[1]) if argv[1:] else 3.0))


if __name__ == "__main__":
    main(sys.argv[1:])
