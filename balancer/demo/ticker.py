"""The line that tells how a demo goes."""

import time
from typing import Any

from balancer.demo.stage import Printer
from balancer.demo.tally import Tally

LINE_EVERY = 5  # ticks, where one line cannot replace the one before


class Ticker:
    """Shows it at each tick: on a terminal in one line."""

    def __init__(self, printer: Printer, tally: Tally) -> None:
        self._say, self._ticks = printer, 0
        self._done, self._at = tally.done, time.monotonic()

    def show(self, tally: Tally, status: dict[str, Any]) -> None:
        """Show the counts of the clients and the balancer's share for each node."""
        now = time.monotonic()
        rate = (tally.done - self._done) / max(now - self._at, 1e-3)
        self._done, self._at = tally.done, now
        text = _text(tally, status, rate)
        failed = (f"{tally.failed} failed", "bad" if tally.failed else "good")
        if self._say.is_live:
            self._say.overwrite(text, *failed)
        elif self._ticks % LINE_EVERY == 0:
            self._say.line(text)
        self._ticks += 1


def _text(tally: Tally, status: dict[str, Any], rate: float) -> str:
    nodes = " · ".join(_node(node) for node in status["nodes"])
    latency = f"p50 {tally.percentile_ms(0.5):.0f} ms  p95 {tally.percentile_ms(0.95):.0f} ms"
    return f" {rate:.0f} req/s  {latency}  {tally.failed} failed  {nodes}"


def _node(node: dict[str, Any]) -> str:
    rate = node["rates"]["requests_per_s"]
    return f"{node['name']} {rate:.0f}" if node["serving"] else f"{node['name']} {node['state']}"
