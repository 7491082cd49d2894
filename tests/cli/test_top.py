"""`top`: what it shows, its keys in a real terminal, and the terminal as it was before."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.cli.terminal import clip, first_key
from balancer.cli.topview import Choice, arranged, bars, spread
from tests.cli.test_commands import ROOT, shell
from tests.support.site import Site
from tests.support.waiting import until

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def node(name: str, per_s: float, *, serving: bool = True, flight: int = 0) -> dict[str, Any]:
    rates = {"requests_per_s": per_s, "p95_s": None, "error_ratio": None}
    return {"name": name, "serving": serving, "state": "healthy", "rates": rates, "in_flight": flight}


def test_nodes_are_sorted_by_the_chosen_column() -> None:
    nodes = [node("api2", 5), node("api1", 9, flight=1), node("api3", 7, serving=False)]
    choice = Choice()
    orders = {}
    for _ in range(6):
        orders[choice.sort] = [item["name"] for item in arranged(nodes, choice)]
        choice.next_sort()
    assert choice.sort == "name"
    assert orders["name"] == ["api1", "api2", "api3"]
    assert orders["state"][-1] == "api3"
    assert orders["req/s"] == ["api1", "api3", "api2"]
    assert orders["in flight"][0] == "api1"
    choice.reverse = True
    assert [item["name"] for item in arranged(nodes, choice)] == ["api3", "api2", "api1"]


def test_the_choice_stays_inside_the_list() -> None:
    choice, names = Choice(), ["api1", "api2"]
    seen = []
    for step in (1, 1, 1, -1, -1, -1):
        choice.move(names, step)
        seen.append(choice.node)
    assert seen == ["api1", "api2", "api2", "api1", "api1", "api1"]
    choice.move([], 1)
    assert choice.node == "api1"


def test_bars_are_as_high_as_their_value() -> None:
    assert bars([0, 4, None, 8]) == " ▄ █"
    assert bars([0, 0]) == bars([]) == ""
    assert spread([2, None, 10]) == "2 to 10 req/s, last minute"


@given(st.lists(st.sampled_from(["plain", "\x1b[32m", "\x1b[0m", "ä", " "])), st.integers(0, 20))
def test_a_clipped_line_takes_no_more_room_and_loses_only_its_end(parts: list[str], columns: int) -> None:
    line = "".join(parts)
    shown, whole = CODES.sub("", clip(line, columns)), CODES.sub("", line)
    assert whole.startswith(shown)
    assert len(shown) == min(len(whole), columns)


def test_keys_that_come_in_one_piece_are_told_apart() -> None:
    assert first_key("\x1b[A\x1b[Bd") == ("\x1b[A", "\x1b[Bd")
    assert first_key("disk") == ("d", "isk")
    assert first_key("\x1b") == ("\x1b", "")
    assert first_key("") == ("", "")


async def test_without_a_terminal_it_prints_once() -> None:
    async with shell("api1", "api2") as (run, _):
        for flags in (["top"], ["top", "--once"]):
            shown = await run(*flags)
            assert (shown.code, shown.err) == (0, "")
            assert "\x1b" not in shown.out
            assert "xtest  ● healthy   2/2 serving" in shown.out
            assert "control started" in shown.out
            assert "q quit" not in shown.out
        await run.control.kill()
        assert (await run("top")).code == 4


@dataclass
class Screen:
    """A terminal in which `top` runs."""

    process: subprocess.Popen[bytes]
    fd: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> None:
        """Wait until what was drawn since the last time holds a text."""

        def found() -> bool:
            while select.select([self.fd], [], [], 0)[0]:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            return text in CODES.sub("", self.seen)

        try:
            until(found)
        except AssertionError:
            raise AssertionError(f"no {text!r} on the screen, but {CODES.sub('', self.seen)[-2500:]!r}") from None
        self.seen = ""


UNSIZED = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # the pty has a size


@contextmanager
def terminal(site: Site) -> Iterator[Screen]:
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (30, 110))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "balancer.cli", "top", "--every", "200ms", "--color", "always"],
        stdin=inner, stdout=inner, stderr=inner, cwd=ROOT, start_new_session=True,
        env={**UNSIZED, "ARV_BALANCE_ADMIN": f"unix:{site.folder}/admin.sock", "TERM": "xterm"},
    )  # fmt: skip
    os.close(inner)
    try:
        yield Screen(process, outer)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        os.close(outer)


@pytest.mark.e2e
def test_a_node_is_drained_and_undrained_by_keys() -> None:
    site = Site(nodes=2, workers=1)
    try:
        site.start()
        with terminal(site) as screen:
            screen.until("2/2 serving")
            screen.type("d")
            screen.until("choose a node")
            screen.type("\x1b[B\x1b[B")
            screen.until("> api2")
            screen.type("d")
            screen.until("1 of 2 nodes will serve")
            screen.type("quiet\x7fk\x1b")
            screen.until("nothing was changed")
            assert site.states()["api2"] == "healthy"
            screen.type("ddisk swap\r")
            screen.until("api2 is dra")
            screen.until("◌ drained")
            (intent,) = site.admin("GET", "/v1/status")["intents"]
            assert intent["reason"] == "disk swap"
            screen.type("s")
            screen.until("by state")
            screen.type("u\r")
            screen.until("2/2 serving")
            site.kill(site.control_pid(), signal.SIGSTOP)
            screen.until("old: the balancer does not answer")
            site.kill(site.control_pid(), signal.SIGCONT)
            screen.type("?")
            screen.until("q quit")
            screen.type("q")
            until(lambda: screen.process.poll() is not None, 30, "top has ended")
            assert screen.process.returncode == 0
    finally:
        site.close()


@pytest.mark.e2e
def test_the_terminal_is_as_before_after_ctrl_c() -> None:
    site = Site(nodes=1, workers=1)
    try:
        site.start()
        with terminal(site) as screen:
            before = termios.tcgetattr(screen.fd)
            screen.until("1/1 serving")
            assert termios.tcgetattr(screen.fd)[3] != before[3] or not before[3] & termios.ICANON
            os.kill(screen.process.pid, signal.SIGINT)
            until(lambda: screen.process.poll() is not None, 30, "top has ended")
            assert screen.process.returncode == 130
            left = os.read(screen.fd, 65536).decode(errors="replace")
            assert left.endswith("\x1b[?25h\x1b[?1049l")
            assert termios.tcgetattr(screen.fd)[3] & termios.ICANON
            assert termios.tcgetattr(screen.fd)[3] & termios.ECHO
    finally:
        site.close()
