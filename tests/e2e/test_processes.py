"""The balancer's own processes are killed, stopped and replaced under load."""

import signal
import socket
import time

import pytest

from balancer.model import Outcome
from balancer.scoreboard import N_REFUSED, STATE_LISTENING, W_PID, W_STATE, node_cell, row
from tests.e2e.conftest import Build
from tests.support.site import LoadResult, Site
from tests.support.waiting import until

SHORT = [pytest.param(1, id="once")]
LONG = [*SHORT, pytest.param(5, id="five times", marks=pytest.mark.slow)]


def assert_only_open_at(result: LoadResult, kills: list[float], lost: int) -> None:
    """Failures are of connections that were open at a kill, and at that moment."""
    for failure in result.failures:
        assert failure["phase"] != "connect", failure
        assert any(failure["opened_at"] <= at and abs(failure["failed_at"] - at) < 3 for at in kills), failure
    # A request may have reached the socket of the dead worker without being read: it was never accepted.
    assert len(result.failures) <= lost + 4 * len(kills), (len(result.failures), lost)


def lost_exchanges(site: Site) -> int:
    return site.ledger().outcomes[Outcome.WORKER_LOST]


def accepted_after(site: Site, count: int) -> None:
    """Wait until so many more requests were accepted: how long a busy machine takes for them is not the matter."""
    before = site.ledger().accepted
    until(lambda: site.ledger().accepted >= before + count, 60, f"{count} requests more")


def busiest(site: Site) -> int:
    """The slot with the most exchanges under way: where the kernel put all slow clients to one worker, that one."""
    with site.board() as board:
        return max(site.worker_pids(), key=board.busy)


@pytest.mark.parametrize("times", LONG)
def test_a_killed_worker_costs_only_its_own_exchanges(site: Site, times: int) -> None:
    kills = []
    with site.load() as load:
        for _ in range(times):
            time.sleep(1)
            before = site.worker_pids()
            victim = before.pop(busiest(site))
            kills.append(site.kill(victim))
            after = site.until_workers(2, without=[victim])
            assert before.items() <= after.items()
        result = load.stop(3)
    assert_only_open_at(result, kills, lost_exchanges(site))
    assert result.failures  # 2 s requests are always under way: the test would notice
    assert lost_exchanges(site) > 0
    site.assert_balanced()


@pytest.mark.parametrize("times", LONG)
def test_no_new_connection_is_refused_or_reset_outside_a_killed_worker(site: Site, times: int) -> None:
    kills = []
    with site.load("--fresh", "--clients", "16") as load:
        for _ in range(times):
            time.sleep(0.5)
            before = site.worker_pids()
            kills.append(site.kill(before[1]))
            site.until_workers(2, without=[before[1]])
            accepted_after(site, 200)
        result = load.stop(2)
    assert_only_open_at(result, kills, lost_exchanges(site))
    site.assert_balanced()


@pytest.mark.parametrize("times", LONG)
def test_a_killed_control_process_costs_nothing(site: Site, times: int) -> None:
    with site.load() as load, site.load("--fresh", "--clients", "4") as fresh:
        for _ in range(times):
            before = site.control_pid()
            site.kill(before)
            until(lambda before=before: site.control_pid() != before)  # type: ignore[misc]
            site.until_healthy(3)
        result, connections = load.stop(3), fresh.stop()
    result.assert_clean()
    connections.assert_clean()
    site.assert_balanced()


@pytest.mark.parametrize("times", LONG)
def test_a_killed_parent_costs_nothing_and_the_next_one_takes_over(site: Site, times: int) -> None:
    with site.load() as load, site.load("--fresh", "--clients", "4") as fresh:
        for _ in range(times):
            workers = site.worker_pids()
            site.kill_parent()
            time.sleep(0.3)
            site.serve()
            assert site.worker_pids() == workers
            site.until_healthy(3)
        result, connections = load.stop(3), fresh.stop()
    result.assert_clean()
    connections.assert_clean()
    site.assert_balanced()


def test_the_access_log_of_adopted_workers_goes_to_the_next_parents_output(build: Build) -> None:
    site = build(log={"path": "-"})
    site.start()
    site.ask(headers={"X-Request-Id": "before-the-kill"})
    until(lambda: "before-the-kill" in site.words())
    site.kill_parent()
    (site.folder / "stderr").rename(site.folder / "stderr.old")
    site.serve()
    for number in range(8):
        site.ask(headers={"X-Request-Id": f"after-the-kill-{number}"})
    until(lambda: all(f"after-the-kill-{number}" in site.words() for number in range(8)))


def test_without_a_parent_a_killed_worker_is_not_replaced(site: Site) -> None:
    """The negative control of replacement and adoption: nobody holds the sockets any more."""
    workers = site.worker_pids()
    site.kill_parent()
    with site.load("--fresh", "--clients", "4") as load:
        for pid in workers.values():
            site.kill(pid)
        result = load.stop(1)
    assert any(failure["phase"] == "connect" for failure in result.failures)


def load_while_control_is_stuck(site: Site, control: int) -> tuple[LoadResult, int]:
    """What clients see of a node that dies then, and how many attempts it refused."""
    with site.load() as load:
        time.sleep(1)
        site.kill(control, signal.SIGSTOP)
        site.nodes["api3"].kill()
        accepted_after(site, 600)
        result = load.stop(4)
    with site.board() as board:
        return result, sum(board.cells[node_cell(slot, 2) + N_REFUSED] for slot in range(2))


def test_nodes_are_still_ejected_while_control_is_stuck(build: Build) -> None:
    site = build(retry={"retries": 2})
    site.start()
    control = site.control_pid()
    result, refused = load_while_control_is_stuck(site, control)
    assert not result.failed_idempotent, result.failed_idempotent[:5]
    assert refused < result.total / 10  # workers eject it themselves
    until(lambda: site.control_pid() != control)  # stuck for 5 s: replaced
    site.assert_balanced()


def test_without_passive_signs_a_dead_node_is_tried_again_and_again_while_control_is_stuck(build: Build) -> None:
    """The negative control of the test above."""
    site = build(without="passive signs", retry={"retries": 2})
    site.start()
    result, refused = load_while_control_is_stuck(site, site.control_pid())
    assert refused > result.total / 10


def test_a_stopped_worker_leaves_no_hung_connection(site: Site) -> None:
    """When it is killed is a matter of the parent's clock: tests/process/test_crew.py."""
    before = site.worker_pids()
    with site.load() as load:
        time.sleep(0.5)
        site.kill(before[0], signal.SIGSTOP)
        site.until_workers(2, without=[before[0]])
        replaced_at = time.monotonic()
        accepted_after(site, 300)
        result = load.stop()
    # Whoever hangs at the stopped worker is set free by its end and does not wait for an answer as long as clients do.
    assert result.failures
    assert not [failure for failure in result.failures if "Timeout" in failure["error"]]
    assert all(failure["opened_at"] < replaced_at for failure in result.failures)
    site.assert_balanced()


def test_without_a_parent_a_stopped_worker_hangs_its_connections(site: Site) -> None:
    """The negative control of the test above."""
    before = site.worker_pids()
    clients = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(16)]
    site.kill_parent()
    for pid in before.values():
        site.kill(pid, signal.SIGSTOP)
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    clients[0].settimeout(6)
    with pytest.raises(TimeoutError):
        clients[0].recv(100)
    for client in clients:
        client.close()


@pytest.mark.parametrize("connections", [pytest.param(1000), pytest.param(10_000, marks=pytest.mark.slow)])
def test_usr2_replaces_the_program_without_a_refused_or_reset_connection(site: Site, connections: int) -> None:
    before = site.worker_pids()
    with site.load("--fresh", "--clients", "16") as load:
        time.sleep(0.3)
        site.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
        until(lambda: site.words().count("ready:") == 2, 30)
        after = site.until_workers(2, without=list(before.values()))
        deadline = time.monotonic() + 90
        with site.board() as board:
            while board.ledger().accepted < connections and time.monotonic() < deadline:
                time.sleep(0.1)
        result = load.stop()
    result.assert_clean()
    assert result.total >= connections * 0.9
    assert not set(before.values()) & set(after.values())
    site.until_healthy(3)
    site.assert_balanced()


def test_a_plain_restart_refuses_connections(site: Site) -> None:
    """The negative control of the test above."""
    with site.load("--fresh", "--clients", "8") as load:
        time.sleep(0.3)
        site.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        site.process.wait(20)  # type: ignore[union-attr]
        site.serve()
        result = load.stop()
    assert any("Refused" in failure["error"] for failure in result.failures)


def test_usr2_with_a_configuration_that_cannot_be_used_changes_nothing(site: Site) -> None:
    before = site.worker_pids()
    site.config_path.write_text("version: 1\nlistn: []\n")
    site.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
    until(lambda: "the program is not replaced: its self-check failed (3)" in site.words(), 30)
    assert "listn" in site.words()
    assert site.worker_pids() == before
    assert site.ask()[0] == 200
    until(lambda: any(event["kind"] == "upgrade-refused" for event in site.admin("GET", "/v1/events")["events"]))


def test_usr2_lets_old_exchanges_finish(site: Site) -> None:
    with site.load("--kinds", "slow", "later", "down", "up", "ws") as load:
        time.sleep(0.5)
        site.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
        until(lambda: site.words().count("ready:") == 2, 30)
        result = load.stop(5)
    result.assert_clean()
    site.assert_balanced()


def test_term_finishes_what_is_under_way(site: Site) -> None:
    with site.load("--kinds", "slow", "later") as load:
        until(lambda: site.ledger().open == 4)
        site.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert site.process.wait(20) == 0  # type: ignore[union-attr]
        result = load.stop()
    assert {failure["phase"] for failure in result.failures} <= {"connect"}, result.failures
    assert sum(result.done.values()) >= 4


def test_rows_of_finished_workers_are_free_again(site: Site) -> None:
    for ready in (2, 3):
        site.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
        until(lambda ready=ready: site.words().count("ready:") == ready, 30)  # type: ignore[misc]
        until(lambda: len(busy_rows(site)) == 2, 20)
    assert busy_rows(site) == [0, 1]


def busy_rows(site: Site) -> list[int]:
    with site.board() as board:
        return [slot for slot in range(8) if board.cells[row(slot) + W_PID] and listens(board.cells, slot)]


def listens(cells: memoryview, slot: int) -> bool:
    return bool(cells[row(slot) + W_STATE] == STATE_LISTENING)
