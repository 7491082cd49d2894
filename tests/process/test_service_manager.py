"""The service manager's side: passed sockets, notifications, watchdog, units."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from balancer.notify import Notifier
from tests.support.parent import ROOT, ParentUnderTest, name_in, notify_socket
from tests.support.programs import need
from tests.support.waiting import until

PASS = """
import os, sys
passed = [int(fd) for fd in sys.argv[1].split(",")]
for at, fd in enumerate(passed):
    os.dup2(fd, 3 + at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)), LISTEN_FDNAMES="arv-balance")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def activated(parent: ParentUnderTest, *sockets: socket.socket) -> None:
    """Start with the sockets as descriptors 3, 4, ..., as a service manager does."""
    fds = tuple(sock.fileno() for sock in sockets)
    parent.start(wrap=(sys.executable, "-c", PASS, ",".join(map(str, fds))), pass_fds=fds)
    until(lambda: "ready:" in parent.words())


def high(sock: socket.socket) -> socket.socket:
    """The same socket under a number that the passing on does not overwrite."""
    return socket.socket(fileno=fcntl.fcntl(sock.detach(), fcntl.F_DUPFD_CLOEXEC, 9))


def test_passed_sockets_are_used_for_the_binds_they_match(parent: ParentUnderTest) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    address = tcp.getsockname()
    with high(tcp) as passed:
        waiting = socket.create_connection(address)
        waiting.sendall(b"hello\n")
        parent.write({"workers": 2, "binds": [f"127.0.0.1:{address[1]}"]})
        activated(parent, passed)
        assert name_in(waiting)[0] in (0, 1)
        waiting.close()
        assert parent.address == address
        until(lambda: len(parent.names(100)) == 2)


def test_connections_wait_in_a_passed_socket_while_the_balancer_restarts(parent: ParentUnderTest) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    with high(tcp) as passed:
        parent.write({"workers": 2, "binds": [f"127.0.0.1:{passed.getsockname()[1]}"]})
        activated(parent, passed)
        parent.signal(signal.SIGTERM)
        assert parent.wait() == 0
        waiting = [parent.connect() for _ in range(20)]
        parent.stderr.unlink()
        activated(parent, passed)
        assert {name_in(client)[0] for client in waiting} <= {0, 1}
        for client in waiting:
            client.close()


def test_without_activation_connections_are_refused_while_the_balancer_restarts(parent: ParentUnderTest) -> None:
    """The negative control of the test above."""
    parent.serve()
    address = parent.address
    parent.signal(signal.SIGTERM)
    parent.wait()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 2)


def received(manager: socket.socket, wanted: str, within_s: float = 30) -> list[str]:
    """Read datagrams until one has `wanted`; returns its lines."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        lines = manager.recv(4096).decode().splitlines()
        if any(line.startswith(wanted) for line in lines):
            return lines
    raise AssertionError(f"{wanted} was not sent")


@pytest.mark.parametrize("abstract", [False, True])
def test_start_reload_and_end_are_told_to_the_service_manager(parent: ParentUnderTest, abstract: bool) -> None:
    with notify_socket(parent.folder / "notify", abstract=abstract) as (name, manager):
        parent.environment["NOTIFY_SOCKET"] = name
        parent.start()
        seen: list[str] = []
        while not {"READY=1", "STATUS=generation 1"} <= set(seen):  # together or one after the other
            seen += manager.recv(4096).decode().splitlines()
        before = time.monotonic_ns() // 1000
        parent.signal(signal.SIGHUP)
        lines = received(manager, "RELOADING=1")
        began = int(next(line for line in lines if line.startswith("MONOTONIC_USEC=")).split("=")[1])
        assert before <= began <= time.monotonic_ns() // 1000
        received(manager, "READY=1")
        parent.signal(signal.SIGTERM)
        received(manager, "STOPPING=1")
        extended = received(manager, "EXTEND_TIMEOUT_USEC=")
        assert int(extended[0].split("=")[1]) >= 5_000_000
        assert parent.wait() == 0


def test_children_do_not_speak_to_the_service_manager(parent: ParentUnderTest) -> None:
    with notify_socket(parent.folder / "notify") as (name, _manager):
        parent.environment["NOTIFY_SOCKET"] = name
        parent.serve()
        for pid in (*parent.worker_pids().values(), parent.last("started")["pid"]):
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_the_watchdog_is_fed_while_all_beat(parent: ParentUnderTest) -> None:
    with notify_socket(parent.folder / "notify") as (name, manager):
        parent.environment.update(NOTIFY_SOCKET=name, WATCHDOG_USEC="600000")
        parent.serve()
        for _ in range(3):
            received(manager, "WATCHDOG=1")


def test_the_watchdog_is_not_fed_by_a_parent_that_is_stuck(parent: ParentUnderTest) -> None:
    with notify_socket(parent.folder / "notify") as (name, manager):
        parent.environment.update(NOTIFY_SOCKET=name, WATCHDOG_USEC="600000")
        parent.serve()
        parent.signal(signal.SIGSTOP)
        manager.settimeout(0.5)
        sent_before = list(iter(lambda: quiet_recv(manager), b""))
        assert len(sent_before) < 20
        parent.signal(signal.SIGCONT)
        before = parent.worker_pids()
        manager.settimeout(30)
        received(manager, "WATCHDOG=1")
        assert parent.worker_pids() == before


def quiet_recv(manager: socket.socket) -> bytes:
    """The next datagram, b"" when none comes."""
    try:
        return manager.recv(4096)
    except TimeoutError:
        return b""


def test_a_service_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nobody")).ready("fine")
    Notifier("").ready("fine")


def test_a_watchdog_meant_for_another_process_is_ignored() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier.from_environment(environment, os.getpid()).watchdog_s == 0
    assert Notifier.from_environment(environment, 1).watchdog_s == 1


def test_the_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    need("systemd-analyze")
    for unit in (ROOT / "examples/systemd").glob("arv-balance.*"):
        text = unit.read_text().replace("/usr/bin/arv-balance", shutil.which("true") or "/bin/true")
        (tmp_path / unit.name).write_text(text)
    units = [str(unit) for unit in sorted(tmp_path.glob("arv-balance.*"))]
    assert len(units) == 2
    command = ["systemd-analyze", "verify", *units]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (0, "")
