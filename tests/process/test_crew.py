"""When the parent reports a stuck worker and when it kills it, by a clock that the test turns."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancer.scoreboard import W_BEAT_NS, row
from balancer.supervisor.children import watch_process
from balancer.supervisor.crew import Crew
from balancer.supervisor.holdings import Holdings, close_all, fresh_board, fresh_wakes
from balancer.supervisor.loop import Loop
from balancer.supervisor.rules import Timings
from balancer.wire import Message

STARTED_S, BEAT_S = 1000.0, 1100.0


class Watched:
    """A crew of one worker, which is a process that does nothing."""

    def __init__(self, folder: Path) -> None:
        self.holdings = Holdings(folder, -1, fresh_board(), fresh_wakes())
        self.reports: list[Message] = []
        self.child = subprocess.Popen(["sleep", "60"])
        self.crew = Crew(Loop(), self.holdings, module="none", timings=Timings(), report=self.reports.append)
        self._process = watch_process(self.child.pid, STARTED_S)
        self.crew.adopt(0, self._process)
        self.beats(BEAT_S)

    def beats(self, at_s: float) -> None:
        self.holdings.board.cells[row(0) + W_BEAT_NS] = int(at_s * 1e9)

    def stuck(self) -> list[float]:
        """The ages of the heartbeat that were reported."""
        return [message["age_s"] for message in self.reports if message["type"] == "worker-stuck"]

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._process.pidfd)
        self.holdings.board.close()
        close_all(self.holdings.wakes)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.close()


def test_a_worker_without_a_heartbeat_is_reported_once_and_killed_with_the_first_look_after_five_seconds(
    watched: Watched,
) -> None:
    reported: dict[float, list[float]] = {}
    for after_s in (0.5, 1.5, 1.99, 2.0, 2.5, 4.5, 4.99):
        watched.crew.tick(BEAT_S + after_s)
        reported[after_s] = watched.stuck()
    assert (reported[1.99], reported[2.0], reported[4.99]) == ([], [2.0], [2.0])
    with pytest.raises(subprocess.TimeoutExpired):  # the negative control: until now nobody touched it
        watched.child.wait(0.2)
    watched.crew.tick(BEAT_S + 5.0)
    assert watched.child.wait(20) == -signal.SIGKILL


def test_a_worker_that_beats_again_is_left_alone_and_reported_anew_the_next_time(watched: Watched) -> None:
    watched.crew.tick(BEAT_S + 4.9)
    watched.beats(BEAT_S + 4.9)
    for after_s in (5.0, 6.8, 6.95):
        watched.crew.tick(BEAT_S + after_s)
    assert watched.stuck() == [4.9, 2.0]
    assert watched.child.poll() is None
