"""A parent that dies or is replaced: its workers serve on, and the next one takes over."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancer.scoreboard import W_PID, row
from tests.support.parent import ParentUnderTest, name_in
from tests.support.waiting import until


@contextmanager
def new_connections(parent: ParentUnderTest, clients: int = 4) -> Iterator[list[int]]:
    """Open connections all the time from some threads; yields [asked, failed]."""
    counts, done = [0, 0], threading.Event()
    parent.address  # noqa: B018 - waits until it is known

    def load() -> None:
        while not done.is_set():
            counts[0] += 1
            try:
                parent.ask()
            except OSError:
                counts[1] += 1

    threads = [threading.Thread(target=load) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        done.set()
        for thread in threads:
            thread.join()


def kill_parent(parent: ParentUnderTest) -> None:
    parent.signal(signal.SIGKILL)
    parent.wait()


def test_workers_serve_on_without_a_parent_and_the_next_one_adopts_them(parent: ParentUnderTest) -> None:
    parent.serve()
    before, address = parent.worker_pids(), parent.address
    with new_connections(parent) as counts, parent.connect(b"hold\n") as held:
        slot, pid = name_in(held)
        kill_parent(parent)
        asked = counts[0]
        until(lambda: counts[0] > asked + 50)
        parent.serve()
        assert parent.worker_pids() == before
        assert parent.address == address
        assert parent.last("applied")["generation"] == 2
        os.kill(pid, signal.SIGKILL)  # an adopted one is watched as a child is
        until(lambda: parent.worker_pids().get(slot) not in (pid, None))
        assert parent.last("worker-lost")["lost"] >= 1
    assert counts[1] <= 5  # the exchanges in the killed worker
    with parent.board() as board:
        until(lambda: board.ledger().open == 0)


def test_no_connection_is_refused_or_reset_when_the_parent_is_killed_again_and_again(parent: ParentUnderTest) -> None:
    parent.serve()
    with new_connections(parent) as counts:
        for _ in range(3):
            kill_parent(parent)
            parent.serve()
        until(lambda: counts[0] > 100)
    assert counts[1] == 0


def test_a_worker_that_died_without_a_parent_is_booked_and_replaced(parent: ParentUnderTest) -> None:
    parent.serve()
    with parent.connect(b"hold\n") as held:
        slot, pid = name_in(held)
        kill_parent(parent)
        os.kill(pid, signal.SIGKILL)
        parent.serve()
        assert f"worker {slot} ended unseen; 1 exchanges lost" in parent.words()
    assert len(parent.names()) == 2
    with parent.board() as board:
        until(lambda: board.ledger().open == 0)


def test_a_worker_that_does_not_answer_is_killed_and_replaced(parent: ParentUnderTest) -> None:
    parent.serve()
    pid = parent.worker_pids()[0]
    kill_parent(parent)
    os.kill(pid, signal.SIGSTOP)
    parent.serve()
    assert f"worker with pid {pid} does not answer, killed" in parent.words()
    assert len(parent.names()) == 2
    assert pid not in parent.worker_pids().values()


def test_workers_of_another_version_give_their_sockets_to_new_ones(parent: ParentUnderTest) -> None:
    parent.environment["DUMMY_VERSION"] = "0.0.1"
    parent.serve()
    before = set(parent.worker_pids().values())
    with new_connections(parent) as counts:
        kill_parent(parent)
        del parent.environment["DUMMY_VERSION"]
        parent.serve()
        until(lambda: not {pid for _slot, pid in parent.names()} & before)
    assert counts[1] == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))


def test_without_the_handover_a_killed_parent_costs_connections(parent: ParentUnderTest) -> None:
    """The negative control: the same kill, but nobody finds the workers' sockets."""
    parent.serve()
    for path in (parent.folder / "state/run").glob("worker-*"):
        path.unlink()
    kill_parent(parent)
    workers = list(parent.worker_pids().values())
    with new_connections(parent) as counts:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        until(lambda: counts[1] > 0)


def test_usr2_replaces_program_and_workers_under_the_same_pid(parent: ParentUnderTest) -> None:
    parent.serve()
    before, address = parent.worker_pids(), parent.address
    with new_connections(parent) as counts, parent.connect(b"hold\n") as held:
        _slot, pid = name_in(held)
        parent.signal(signal.SIGUSR2)
        until(lambda: parent.words().count("ready:") == 2)
        assert parent.address == address
        until(lambda: not {pid for _slot, pid in parent.names()} & set(before.values()))
        assert Path(f"/proc/{pid}").exists()  # it finishes its exchange
        held.close()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before.values()))
        until(lambda: counts[0] > 100)
    assert counts[1] == 0
    assert parent.process is not None
    assert parent.process.poll() is None
    with parent.board() as board:
        until(lambda: board.ledger().open == 0)
        assert board.ledger().accepted >= counts[0]
        assert sum(1 for slot in range(4) if board.cells[row(slot) + W_PID]) == 2


def test_usr2_twice_uses_the_first_rows_again(parent: ParentUnderTest) -> None:
    parent.serve()
    for ready in (2, 3):
        parent.signal(signal.SIGUSR2)
        until(lambda ready=ready: parent.words().count("ready:") == ready)  # type: ignore[misc]
        until(lambda: len(parent.last("workers")["workers"]) == 2)
    assert set(parent.worker_pids()) == {0, 1}
    assert len(parent.names()) == 2


def test_a_new_program_that_does_not_start_changes_nothing(parent: ParentUnderTest, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    parent.environment["BROKEN_PROGRAM"] = str(broken)
    parent.serve()
    before = parent.worker_pids()
    broken.touch()
    parent.signal(signal.SIGUSR2)
    until(lambda: "the program is not replaced: its self-check failed" in parent.words())
    assert parent.worker_pids() == before
    assert len(parent.names()) == 2
    assert parent.last("upgrade-refused")


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSTOP])
def test_usr2_goes_on_when_control_is_killed_or_stuck(parent: ParentUnderTest, kill: int) -> None:
    parent.serve()
    os.kill(parent.last("started")["pid"], kill)
    parent.signal(signal.SIGUSR2)
    until(lambda: parent.words().count("ready:") == 2)
    assert len(parent.names()) == 2
