"""The parent with stand-in children: who is replaced, when, and what stays."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from balancer.scoreboard import H_RESTARTS
from tests.support.parent import ParentUnderTest, name_in
from tests.support.waiting import until


def test_it_starts_control_and_workers_and_says_where_it_listens(parent: ParentUnderTest) -> None:
    parent.serve()
    assert f"2 workers on 127.0.0.1:{parent.address[1]}" in parent.words()
    assert {slot for slot, _pid in parent.names()} == {0, 1}
    assert (parent.folder / "state/run").stat().st_mode & 0o777 == 0o700


def test_a_killed_worker_is_replaced_and_its_exchanges_are_booked(parent: ParentUnderTest) -> None:
    parent.serve()
    with parent.connect(b"hold\n") as held:
        slot, pid = name_in(held)
        other = parent.worker_pids()[1 - slot]
        os.kill(pid, signal.SIGKILL)
        until(lambda: (slot, pid) not in parent.names(10) and len(parent.names(10)) == 2)
    assert parent.worker_pids()[1 - slot] == other
    lost = parent.last("worker-lost")
    assert (lost["pid"], lost["status"], lost["lost"]) == (pid, -signal.SIGKILL, 1)
    board = parent.board()
    until(lambda: board.ledger().open == 0)
    assert board.cells[H_RESTARTS] == 1
    board.close()


def test_connections_that_wait_for_a_dead_worker_are_served_by_its_successor(parent: ParentUnderTest) -> None:
    parent.write({"workers": 1, "binds": ["127.0.0.1:0"]})
    parent.serve()
    os.kill(parent.worker_pids()[0], signal.SIGSTOP)
    waiting = [parent.connect() for _ in range(20)]
    os.kill(parent.worker_pids()[0], signal.SIGKILL)
    assert {name_in(client)[0] for client in waiting} == {0}
    for client in waiting:
        client.close()


def test_a_stopped_worker_is_reported_after_two_seconds_and_replaced_after_five(parent: ParentUnderTest) -> None:
    parent.serve()
    slot, pid = 0, parent.worker_pids()[0]
    stopped_at = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: parent.heard("worker-stuck"))
    assert time.monotonic() - stopped_at > 1.5  # the last beat is up to 0.2 s older
    until(lambda: parent.worker_pids().get(slot) not in (pid, None))
    assert time.monotonic() - stopped_at > 4.5
    (stuck,) = parent.heard("worker-stuck")
    assert (stuck["pid"], stuck["age_s"] < 5) == (pid, True)  # reported first
    assert len(parent.names()) == 2


def test_a_busy_worker_that_beats_is_left_alone(parent: ParentUnderTest) -> None:
    parent.serve()
    before = parent.worker_pids()
    with parent.connect(b"hold\n") as held:
        name_in(held)
        time.sleep(5.5)  # longer than the deadline of a heartbeat: the negative of the test above
    assert parent.worker_pids() == before


def test_workers_that_crash_again_and_again_are_started_less_and_less_often(parent: ParentUnderTest) -> None:
    crash = parent.folder / "crash"
    parent.environment["DUMMY_WORKER_CRASH"] = str(crash)
    parent.serve()
    crash.touch()
    os.kill(parent.worker_pids()[0], signal.SIGKILL)
    until(lambda: "died 5 times in a row; next start in 0.8 s" in parent.words())
    assert parent.names(10) == {(1, parent.worker_pids()[1])}  # the other one keeps its socket meanwhile
    crash.unlink()
    until(lambda: len(parent.names(20)) == 2)


def test_workers_that_never_start_end_the_balancer(parent: ParentUnderTest) -> None:
    crash = parent.folder / "crash"
    crash.touch()
    parent.environment["DUMMY_WORKER_CRASH"] = str(crash)
    parent.start()
    assert parent.wait() == 1
    assert "the workers do not start" in parent.words()


def test_a_configuration_that_control_refuses_at_the_start_ends_with_3(parent: ParentUnderTest) -> None:
    parent.write({"exit": 3})
    parent.start()
    assert parent.wait() == 3


def test_control_that_dies_is_replaced_and_workers_serve_on(parent: ParentUnderTest) -> None:
    parent.serve()
    before = parent.worker_pids()
    control = parent.last("started")["pid"]
    os.kill(control, signal.SIGKILL)
    until(lambda: len(parent.heard("started")) == 2 and len(parent.heard("applied")) == 2)
    again = parent.heard("started")[-1]["settings"]
    assert {worker["slot"]: worker["pid"] for worker in again["workers"]} == before
    assert parent.last("applied")["generation"] == 2
    assert {pid for _slot, pid in parent.names()} == set(before.values())


def test_control_that_is_stuck_is_replaced(parent: ParentUnderTest) -> None:
    parent.serve()
    os.kill(parent.last("started")["pid"], signal.SIGSTOP)
    until(lambda: len(parent.heard("started")) == 2)


def test_reload_changes_the_number_of_workers_and_binds_without_a_refused_connection(parent: ParentUnderTest) -> None:
    parent.serve()
    failures: list[OSError] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                parent.ask()
            except OSError as exc:
                failures.append(exc)

    thread = threading.Thread(target=load)
    thread.start()
    for workers in (3, 1, 2):
        reload(parent, workers=workers, binds=["127.0.0.1:0", f"unix:{parent.folder}/extra.sock"])
        expect_workers(parent, workers)
    done.set()
    thread.join()
    assert not failures
    assert (parent.folder / "extra.sock").stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(parent.folder / "extra.sock"))
        client.sendall(b"hello\n")
        assert name_in(client)[1] in parent.worker_pids().values()
    parent.write({"workers": 2, "binds": ["127.0.0.1:0"]})
    parent.signal(signal.SIGHUP)
    until(lambda: not (parent.folder / "extra.sock").exists())


def test_a_bind_that_is_taken_is_named_and_nothing_changes(parent: ParentUnderTest) -> None:
    parent.serve()
    before, address = parent.worker_pids(), parent.address
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        parent.write({"workers": 3, "binds": ["127.0.0.1:0", bind, "127.0.0.1:0", "192.0.2.1:80"]})
        parent.signal(signal.SIGHUP)
        errors = {error["bind"]: error["error"] for error in parent.last("refused")["errors"]}
    assert set(errors) == {bind, "192.0.2.1:80"}
    assert "another process listens there" in errors[bind]
    assert "no interface" in errors["192.0.2.1:80"]
    assert parent.worker_pids() == before
    assert parent.address == address
    assert len(parent.names()) == 2


def test_the_workers_option_stands_above_the_configuration(parent: ParentUnderTest) -> None:
    parent.serve("--workers", "3")
    assert len(parent.worker_pids()) == 3


def test_a_second_parent_says_who_runs_and_ends(parent: ParentUnderTest, tmp_path: Path) -> None:
    parent.serve()
    first = parent.process
    parent.start()
    second, parent.process = parent.process, first
    assert second is not None
    assert second.wait(30) == 1
    assert f"already runs with the state folder {tmp_path}/state (pid {parent.pid})" in parent.words()
    assert len(parent.names()) == 2


def test_term_lets_exchanges_finish_and_refuses_new_connections(parent: ParentUnderTest) -> None:
    parent.serve()
    address = parent.address
    held = parent.connect(b"hold\n")
    name_in(held)
    parent.signal(signal.SIGTERM)
    until(lambda: _refuses(address))
    assert parent.process is not None
    assert parent.process.poll() is None
    assert parent.last("stopping")["deadline_s"] == 5
    held.close()
    assert parent.wait() == 0
    assert not list((parent.folder / "state/run").glob("worker-*"))


def test_a_second_term_cuts_what_is_left(parent: ParentUnderTest) -> None:
    parent.write({"workers": 2, "binds": ["127.0.0.1:0"], "drain_s": 60})
    parent.serve()
    with parent.connect(b"hold\n") as held:
        name_in(held)
        parent.signal(signal.SIGTERM)
        until(lambda: parent.heard("stopping"))
        parent.signal(signal.SIGINT)
        assert parent.wait() == 0


def reload(parent: ParentUnderTest, **config: Any) -> None:
    generation = parent.last("applied")["generation"]
    parent.write(config)
    parent.signal(signal.SIGHUP)
    until(lambda: parent.last("applied")["generation"] > generation)


def expect_workers(parent: ParentUnderTest, count: int) -> None:
    until(lambda: len(parent.worker_pids()) == count and len(parent.names(60)) == count)


def _refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGUSR1])
def test_usr1_asks_for_fresh_logs(parent: ParentUnderTest, number: int) -> None:
    parent.serve()
    parent.signal(number)
    assert parent.last("reopen-log") == {"type": "reopen-log", "fds": 0}


def test_a_stale_unix_socket_is_replaced_and_a_used_one_is_not(parent: ParentUnderTest) -> None:
    stale, used = parent.folder / "stale.sock", parent.folder / "used.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(used))
        alive.listen()
        parent.write({"workers": 1, "binds": [f"unix:{stale}", f"unix:{used}"]})
        parent.start()
        errors = parent.last("refused")["errors"]
    assert [error["bind"] for error in errors] == [f"unix:{used}"]
    assert "another process listens there" in errors[0]["error"]
    assert json.loads(parent.config.read_text())["workers"] == 1
