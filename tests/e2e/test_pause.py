"""Pause holds what comes, waits for what is under way, and is honest about what does not end."""

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Build
from tests.e2e.test_bodies import echo, websocket
from tests.support.site import Site
from tests.support.waiting import until


@pytest.mark.parametrize("pauses", [pytest.param(8), pytest.param(200, marks=pytest.mark.slow)])
def test_no_request_begins_at_a_node_between_pause_and_resume(build: Build, pauses: int) -> None:
    site = build(park={"release": "2000/s"})
    site.start()
    held: list[tuple[float, float]] = []
    with site.load("--kinds", "fast", "post", "down") as load, site.load("--fresh", "--clients", "4") as fresh:
        for _ in range(pauses):
            assert site.admin("POST", "/v1/pause", {"reason": "test", "for": 30})["complete"]
            began = time.monotonic()
            time.sleep(0.03)  # the window that has to stay empty
            held.append((began, time.monotonic()))
            site.admin("POST", "/v1/resume", {})
            time.sleep(0.05)
        result, connections = load.stop(), fresh.stop()
    result.assert_clean()
    connections.assert_clean()
    starts = [entry["at"] for node in site.nodes.values() for entry in node.ask("GET", "/_echo/log")]
    assert len(starts) > 20 * pauses
    early = [at for at in starts for began, ended in held if began < at < ended]
    assert not early
    site.assert_balanced()


def test_without_a_pause_requests_begin_in_every_such_window(site: Site) -> None:
    """The negative control of the test above: the windows are long enough to be hit."""
    held = []
    with site.load("--kinds", "fast", "post") as load:
        for _ in range(8):
            began = time.monotonic()
            time.sleep(0.03)
            held.append((began, time.monotonic()))
        load.stop()
    starts = [entry["at"] for node in site.nodes.values() for entry in node.ask("GET", "/_echo/log")]
    assert any(began < at < ended for at in starts for began, ended in held)


def test_a_pause_that_cannot_be_had_names_what_is_under_way_and_undoes_itself(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET /long?delay=40 HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-long-one\r\n\r\n")
        until(lambda: site.ledger().open == 1)
        with pytest.raises(AssertionError, match="the-long-one"):
            site.admin("POST", "/v1/pause", {"timeout": 1})
        assert not site.admin("GET", "/v1/pause")["paused"]
        assert site.ask()[0] == 200


def test_a_reader_of_one_kibibyte_a_second_is_under_way(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET /down?size=20000000 HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-reader\r\n\r\n")
        client.recv(1024)
        with pytest.raises(AssertionError, match="slow-reader"):
            site.admin("POST", "/v1/pause", {"timeout": 1})


def test_a_websocket_is_told_to_go_and_does_not_hold_a_pause_up(site: Site) -> None:
    with websocket(site) as client:
        assert echo(client, b"hello") == b"hello"
        assert site.admin("POST", "/v1/pause", {"timeout": 10})["complete"]
        got = client.recv(100)
        assert (got[:1], int.from_bytes(got[2:4])) == (b"\x88", 1001)
    site.admin("POST", "/v1/resume", {})
    assert site.ask()[0] == 200


def test_a_pause_ends_on_time_though_control_is_stuck(site: Site) -> None:
    site.admin("POST", "/v1/pause", {"for": 2})
    began = time.monotonic()
    control = site.control_pid()
    site.kill(control, signal.SIGSTOP)
    try:
        assert site.ask(path="/waited")[0] == 200  # 2 s: before the parent replaces control, after 5
        assert 1 < time.monotonic() - began < 5
    finally:
        site.kill(control, signal.SIGCONT)


def test_a_pause_survives_the_death_of_every_process_but_one(site: Site) -> None:
    site.admin("POST", "/v1/pause", {"for": 60})
    for pid in (site.control_pid(), site.worker_pids()[0]):
        site.kill(pid)
    site.kill_parent()
    site.serve()
    site.until_workers(2)
    with pytest.raises(TimeoutError):
        ask_within(site, 0.5)
    site.admin("POST", "/v1/resume", {})
    assert site.ask()[0] == 200


def test_what_waits_survives_a_new_program_and_is_released(site: Site) -> None:
    site.admin("POST", "/v1/pause", {"for": 60})
    with site.load("--kinds", "fast", "post") as load:
        until(lambda: site.admin("GET", "/v1/pause")["parked"] >= 20, 10)
        old = site.worker_pids()
        site.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
        until(lambda: site.words().count("ready:") == 2, 30)
        site.until_workers(2, without=list(old.values()))
        assert site.admin("GET", "/v1/pause")["parked"] >= 20
        assert all(Path(f"/proc/{pid}").exists() for pid in old.values())
        site.admin("POST", "/v1/resume", {})
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old.values()), 15)
        result = load.stop()
    result.assert_clean()
    site.assert_balanced()


def test_what_waits_is_told_when_the_whole_balancer_ends(site: Site) -> None:
    site.admin("POST", "/v1/pause", {"for": 60})
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: site.admin("GET", "/v1/pause")["parked"] == 1, 10)
        site.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        answer = client.recv(4096)
        assert b" 503 " in answer
        assert b"Retry-After: " in answer
    assert site.process.wait(8) == 0  # type: ignore[union-attr]


def ask_within(site: Site, seconds: float) -> bytes:
    with socket.create_connection(("127.0.0.1", site.port), seconds) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.recv(100)
