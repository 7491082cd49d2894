"""Statistics may wait for more of them, but not for ever."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from balancer.core.exchange import Cause
from balancer.model import Listener, Outcome
from balancer.net.attempts import Attempts
from balancer.net.ledger import FEW_NODES, TALLIES, TALLIES_NS
from balancer.net.listener import Gate
from balancer.net.plane import Plane
from balancer.net.poller import make_poller
from balancer.net.reactor import Reactor
from balancer.scoreboard import L_DURATION, W_LISTENERS
from tests.support.worker import Board


class Books:
    """A worker's books, on a clock that stands still."""

    def __init__(self, plane: Plane, board: Board) -> None:
        self.plane, self._board = plane, board
        self.gate = plane.gates[0] = Gate(Listener(0, "127.0.0.1:0"), plane.row + W_LISTENERS)

    def end(self, count: int = 1) -> None:
        """Let a turn pass in which so many exchanges end."""
        for _ in range(count):
            ended = SimpleNamespace(
                client=SimpleNamespace(gate=self.gate), target=SimpleNamespace(durations=None),
                started_at=self.plane.reactor.now, waited_ns=0, done_at=0, attempts=1, method=b"GET", status=200,
                request_bytes=0, response_bytes=0, outcome=Outcome.NODE, cause=Cause.OK,
            )  # fmt: skip
            self.plane.exchange_ended(cast(Attempts, ended))
        self.plane.turn_end()

    @property
    def counted(self) -> int:
        """How many are in the listener's counters."""
        return sum(map(self._board.cell, range(W_LISTENERS, W_LISTENERS + L_DURATION)))


@pytest.fixture
def books() -> Iterator[Books]:
    board = Board()
    reactor = Reactor(make_poller())
    yield Books(Plane(reactor, board.board, 0, board.wakes), board)
    reactor.poller.close()
    board.close()


def test_a_few_wait_for_more_or_for_a_moment(books: Books) -> None:
    books.end()
    assert books.counted == 1  # nothing for a long time before
    books.end()
    assert books.counted == 1
    assert books.plane.reactor.soon_ns == books.plane.reactor.now + TALLIES_NS
    books.end(TALLIES * FEW_NODES - 1)
    assert books.counted == 1 + TALLIES * FEW_NODES
    books.end()
    books.plane.reactor.now += TALLIES_NS
    books.end()
    assert books.counted == 3 + TALLIES * FEW_NODES


def test_what_waits_is_written_when_the_worker_ends(books: Books) -> None:
    books.end()
    books.end()
    assert books.counted == 1
    books.plane.close()
    assert books.counted == 2
