"""Waiting until something is true: one line that changes on a terminal, one line a change elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from balancer.cli.client import Client
from balancer.cli.exits import CommandError, Exit

POLL_S = 0.2

Document = dict[str, Any]


class Progress:
    """Talks on standard error while something goes on. Use it as a context. `is_live`: one line, written over."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.is_live = sys.stderr.isatty()
        self._last = ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_live and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Show where it stands; the same text twice is shown once."""
        if self._quiet or text == self._last:
            return
        self._last = text
        if self.is_live:
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r\x1b[K{text if len(text) < columns else '…' + text[2 - columns :]}")
        else:
            sys.stderr.write(f"{datetime.now().astimezone():%H:%M:%S} {text}\n")
        sys.stderr.flush()


def wait_for_node(
    client: Client,
    name: str,
    is_done: Callable[[Document], bool],
    *,
    timeout_s: float,
    describe: Callable[[Document], str],
    quiet: bool = False,
) -> tuple[Document, float]:
    """Return the node's document once `is_done`, and how long that took.

    Raises CommandError with exit code 5 when it is not in time; `describe` says where it stands.
    """
    began = time.monotonic()
    with Progress(quiet=quiet) as progress:
        while True:
            node = client.get(f"/v1/nodes/{name}")
            if is_done(node):
                return node, time.monotonic() - began
            progress.show(describe(node))
            if time.monotonic() - began > timeout_s:
                raise NotInTimeError(node, timeout_s)
            time.sleep(POLL_S)


class NotInTimeError(CommandError):
    """A wait ended before it was true. `node` is the last document."""

    def __init__(self, node: Document, timeout_s: float) -> None:
        super().__init__(f"{node['name']} is {node['state']} after {timeout_s:g} s", code=Exit.DEADLINE)
        self.node = node


def remaining(node: Document) -> list[str]:
    """Return a line for each exchange that a node still has."""
    lines = []
    for item in node.get("exchanges", []):
        what = f"{item.get('method', '?')} {item.get('path', '?')}"
        lines.append(f"  {what}  {item.get('age_s', 0):.1f} s  {item.get('request_id', '')}")
    return lines
