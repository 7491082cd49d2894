"""Pause holds what comes, waits for what is under way, and is honest about what does not end."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balancer.model import Outcome
from tests.e2e.conftest import Build
from tests.e2e.test_bodies import echo, websocket
from tests.support.site import Site
from tests.support.waiting import until


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for all tests that leave it as they found it."""
    made = Site(
        routes=[{"name": "exempt", "match": {"path": "/exempt"}, "park": False}],
        park={"max_per_client": 0, "release": "2000/s"},
    )
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def resumed(request: pytest.FixtureRequest) -> Iterator[None]:
    """However a test ends, the next one finds traffic going."""
    yield
    if "site" in request.fixturenames:
        request.getfixturevalue("site").admin("POST", "/v1/resume", {})


@pytest.mark.parametrize("pauses", [pytest.param(8), pytest.param(200, marks=pytest.mark.slow)])
def test_no_request_begins_at_a_node_between_pause_and_resume(site: Site, pauses: int) -> None:
    held: list[tuple[float, float]] = []
    with site.load("--kinds", "fast", "post", "down") as load, site.load("--fresh", "--clients", "4") as fresh:
        for _ in range(pauses):
            assert site.admin("POST", "/v1/pause", {"reason": "test", "for": 30})["complete"]
            began = time.monotonic()
            time.sleep(0.03)  # the window that has to stay empty
            held.append((began, time.monotonic()))
            before = site.ledger().outcomes[Outcome.NODE]
            site.admin("POST", "/v1/resume", {})
            until(lambda before=before: site.ledger().outcomes[Outcome.NODE] > before + 25)  # type: ignore[misc]
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
            site.admin("POST", "/v1/pause", {"wait": 1})
        assert not site.admin("GET", "/v1/pause")["paused"]
        assert site.ask()[0] == 200


def test_a_reader_of_one_kibibyte_a_second_is_under_way(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET /down?size=20000000 HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-reader\r\n\r\n")
        client.recv(1024)
        with pytest.raises(AssertionError, match="slow-reader"):
            site.admin("POST", "/v1/pause", {"wait": 1})


def test_a_websocket_is_told_to_go_after_its_grace_and_a_pause_waits_for_that(site: Site) -> None:
    with websocket(site) as client:
        assert echo(client, b"hello") == b"hello"
        done = site.admin("POST", "/v1/pause", {"wait": 10})
        assert (done["complete"], done["tunnels"]) == (True, 0)
        got = client.recv(100)
        assert (got[:1], int.from_bytes(got[2:4])) == (b"\x88", 1001)
    site.admin("POST", "/v1/resume", {})
    assert site.ask()[0] == 200


def test_with_cut_what_does_not_end_in_time_is_ended_and_the_pause_stands(site: Site) -> None:
    long = socket.create_connection(("127.0.0.1", site.port), 20)
    slow = socket.create_connection(("127.0.0.1", site.port), 20)
    with long, slow:
        long.sendall(b"POST /long?delay=40 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        slow.sendall(b"GET /down?size=20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.recv(1024)
        until(lambda: site.ledger().open == 2)
        before = site.ledger().outcomes[Outcome.US]
        done = site.admin("POST", "/v1/pause", {"wait": 1, "cut": True})
        assert (done["complete"], done["busy"]) == (True, 0)
        answer = long.recv(4096)
        assert b" 503 " in answer.split(b"\r\n")[0]
        assert b"X-Arv-Balance: cut\r\n" in answer
        assert b"Retry-After: " in answer
        with pytest.raises(ConnectionResetError):
            read_all(slow)
    site.admin("POST", "/v1/resume", {})
    assert site.assert_balanced().outcomes[Outcome.US] == before + 2


def read_all(client: socket.socket) -> None:
    while client.recv(1 << 20):
        pass


@pytest.fixture(scope="module")
def hasty() -> Iterator[Site]:
    """A site where nothing waits for long."""
    made = Site(nodes=2, workers=1, park={"timeout": "1s"}, drain={"timeout": "1s", "tunnel_grace": "0s"})
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_drain_with_cut_ends_what_does_not_end_in_time(hasty: Site) -> None:
    site = hasty
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET /long?delay=40 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: site.ledger().open == 1)
        nodes = site.admin("GET", "/v1/nodes")["nodes"]
        name = next(node["name"] for node in nodes if node["in_flight"])
        site.admin("POST", f"/v1/nodes/{name}/drain", {"cut": True})
        assert b" 503 " in client.recv(4096)
    until(lambda: site.states()[name] == "drained")


def test_exempt_routes_go_on_and_do_not_hold_a_pause_up(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"POST /exempt HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n12")
        until(lambda: site.ledger().open == 1)
        done = site.admin("POST", "/v1/pause", {"wait": 8})
        assert (done["complete"], done["busy"]) == (True, 1)  # the exempt one is still under way
        assert site.ask(path="/exempt")[0] == 200
        client.sendall(b"34")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_second_pause_is_refused_and_the_first_one_stands(site: Site) -> None:
    site.admin("POST", "/v1/pause", {"reason": "first"})
    with pytest.raises(AssertionError, match="paused already"):
        site.admin("POST", "/v1/pause", {})
    assert site.admin("GET", "/v1/pause")["pause"]["reason"] == "first"


def test_requests_wait_first_come_first_served_and_go_on_at_the_rate(site: Site) -> None:
    site.admin("POST", "/v1/pause", {})
    with contextlib.ExitStack() as stack:
        for number in range(20):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 20))
            client.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\nX-Request-Id: order-%d\r\n\r\n" % (number, number))
            until(lambda: site.admin("GET", "/v1/pause")["parked"] == number + 1)  # noqa: B023 - asked at once
        site.admin("POST", "/v1/resume", {"rate": 20})
        until(lambda: len(begun(site)) == 20)
        log = begun(site)
    assert [entry["request_id"] for entry in log] == [f"order-{number}" for number in range(20)]
    assert log[-1]["at"] - log[0]["at"] > 0.7  # 19 of them at 20 a second, less one burst


def begun(site: Site) -> list[dict[str, Any]]:
    entries = [entry for node in site.nodes.values() for entry in node.ask("GET", "/_echo/log")]
    entries = [entry for entry in entries if entry["request_id"].startswith("order-")]
    return sorted(entries, key=lambda entry: float(entry["at"]))


def test_a_request_that_waited_in_vain_gets_503_with_a_true_retry_after_and_its_id(hasty: Site) -> None:
    site = hasty
    site.admin("POST", "/v1/pause", {"for": 5})
    began = time.monotonic()
    status, headers, _ = site.ask(headers={"X-Request-Id": "waited"})
    waited_s = time.monotonic() - began
    assert (status, headers["x-request-id"], headers["x-arv-balance"]) == (503, "waited", "park-timeout")
    assert waited_s >= 1
    assert 5 - waited_s - 1 <= int(headers["retry-after"]) <= 5
    time.sleep(int(headers["retry-after"]))  # as the answer says
    assert site.ask()[0] == 200


def test_the_5001st_is_refused_at_once_and_clients_that_leave_are_counted_out_soon(site: Site) -> None:
    before, answers = site.ledger().outcomes[Outcome.CLIENT_LEFT], []
    site.admin("POST", "/v1/pause", {})
    with contextlib.ExitStack() as staying, contextlib.ExitStack() as leaving:
        for number in range(5000):
            stack = leaving if number % 5 == 0 else staying
            client = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 20))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answers += [client] if stack is staying else []
        until(lambda: parked(site) == 5000)
        status, headers, _ = site.ask()
        assert (status, headers["x-arv-balance"]) == (503, "park-full")
        assert int(headers["retry-after"]) >= 1
        leaving.close()
        until(lambda: parked(site) == 4000)
        site.admin("POST", "/v1/resume", {})
        for client in answers:
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert site.ledger().outcomes[Outcome.CLIENT_LEFT] == before + 1000


def parked(site: Site) -> int:
    return int(site.admin("GET", "/v1/pause")["parked"])


def test_a_pause_ends_on_time_though_control_is_stuck(site: Site) -> None:
    control, began = site.control_pid(), time.monotonic()
    site.admin("POST", "/v1/pause", {"for": 2})
    site.kill(control, signal.SIGSTOP)
    try:
        assert site.ask(path="/waited")[0] == 200
        assert time.monotonic() - began >= 2
        assert site.control_pid() == control  # the parent replaces it after 5 s
    finally:
        site.kill(control, signal.SIGCONT)


def test_a_pause_would_not_end_while_control_is_stuck_if_workers_did_not_know_its_end(build: Build) -> None:
    """The negative control of the test above."""
    site = build(without="the deadline of a pause")
    site.start()
    site.admin("POST", "/v1/pause", {"for": 2})
    control = site.control_pid()
    site.kill(control, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            ask_within(site, 4)
    finally:
        site.kill(control, signal.SIGCONT)


def test_a_pause_survives_the_death_of_every_process_but_one(build: Build) -> None:
    site = build()
    site.start()
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


def test_what_waits_survives_a_new_program_and_is_released(build: Build) -> None:
    site = build()
    site.start()
    site.admin("POST", "/v1/pause", {"for": 60})
    with site.load("--kinds", "fast", "post") as load:
        until(lambda: site.admin("GET", "/v1/pause")["parked"] >= 20)
        old = site.worker_pids()
        site.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
        until(lambda: site.words().count("ready:") == 2, 30)
        site.until_workers(2, without=list(old.values()))
        assert site.admin("GET", "/v1/pause")["parked"] >= 20
        assert all(Path(f"/proc/{pid}").exists() for pid in old.values())
        site.admin("POST", "/v1/resume", {})
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old.values()))
        result = load.stop()
    result.assert_clean()
    site.assert_balanced()


def test_what_waits_is_told_when_the_whole_balancer_ends(build: Build) -> None:
    site = build()
    site.start()
    site.admin("POST", "/v1/pause", {"for": 60})
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: site.admin("GET", "/v1/pause")["parked"] == 1)
        site.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        answer = client.recv(4096)
        assert b" 503 " in answer
        assert b"Retry-After: " in answer
    assert site.process.wait(20) == 0  # type: ignore[union-attr]


def ask_within(site: Site, seconds: float) -> bytes:
    with socket.create_connection(("127.0.0.1", site.port), seconds) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.recv(100)
