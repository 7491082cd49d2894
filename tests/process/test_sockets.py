"""Listening sockets: what is asked for is what is open, or nothing changes."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from balancer.supervisor.sockets import BindError, Registry, Wanted, activated, describe, split
from tests.support.waiting import until


def open_sockets() -> set[str]:
    """The sockets of this process, by inode."""
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            links.add(str(entry.readlink()))
    return {link for link in links if link.startswith("socket:")}


@pytest.mark.parametrize(
    ("bind", "parts"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:443", ("::1", 443)),
        ("[::]:0", ("::", 0)),
        ("*:80", ("0.0.0.0", 80)),  # noqa: S104 - nothing is opened
        ("localhost:8080", ("localhost", 8080)),
    ],
)
def test_binds_are_split(bind: str, parts: tuple[str, int]) -> None:
    assert split(bind) == parts


@pytest.mark.parametrize("bind", ["", "80", "host:", "host:x", "host:65536"])
def test_what_is_no_bind_is_a_fault(bind: str) -> None:
    with pytest.raises(BindError) as caught:
        Registry().prepare([Wanted(3, bind)], 1)
    assert caught.value.faults[0][:2] == (3, bind)


def test_a_tcp_bind_has_a_socket_for_each_worker_on_one_port() -> None:
    registry = Registry()
    registry.commit(registry.prepare([Wanted(0, "127.0.0.1:0"), Wanted(1, "[::1]:0")], 3))
    for bind in registry.binds.values():
        assert len(bind.sockets) == 3
        assert {describe(held.sock) for held in bind.sockets} == {bind.address}
        for held in bind.sockets:
            assert held.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not held.sock.getblocking()
    close(registry)


def test_sockets_are_added_for_more_workers_and_kept_for_fewer() -> None:
    registry = Registry()
    counts = []
    for workers in (1, 3, 2):
        registry.commit(registry.prepare([Wanted(0, "127.0.0.1:0")], workers))
        counts.append(len(registry.binds[0].sockets))
    assert counts == [1, 3, 3]
    close(registry)


def test_one_bad_bind_of_many_leaves_nothing_open(tmp_path: Path) -> None:
    registry = Registry()
    before = open_sockets()
    wanted = [Wanted(0, "127.0.0.1:0"), Wanted(1, f"unix:{tmp_path}/a.sock"), Wanted(2, f"unix:{tmp_path}/no/b.sock")]
    with pytest.raises(BindError, match="No such file"):
        registry.prepare(wanted, 2)
    # What other tests left behind in threads of theirs may come and go; a socket that is left open stays.
    until(lambda: not open_sockets() - before)
    assert not (tmp_path / "a.sock").exists()
    assert not registry.binds


def test_a_port_that_shares_itself_is_still_refused() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        wanted = Wanted(0, describe(other))
        with pytest.raises(BindError, match="another process listens there"):
            Registry().prepare([wanted], 1)


def test_both_families_of_all_addresses_can_be_had() -> None:
    first = Registry()
    first.commit(first.prepare([Wanted(0, "0.0.0.0:0")], 1))
    port = first.binds[0].address.rpartition(":")[2]
    second = Registry()
    second.commit(second.prepare([Wanted(0, f"[::]:{port}")], 1))
    close(first)
    close(second)


def test_the_mode_of_a_unix_socket_is_what_was_asked_for(tmp_path: Path) -> None:
    registry = Registry()
    registry.commit(registry.prepare([Wanted(0, f"unix:{tmp_path}/a.sock", mode=0o600)], 4))
    assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o600
    assert len(registry.binds[0].sockets) == 1
    assert registry.binds[0].shared
    close(registry)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.sock").write_text("mine")
    with pytest.raises(BindError, match="not a socket"):
        Registry().prepare([Wanted(0, f"unix:{tmp_path}/a.sock")], 1)
    assert (tmp_path / "a.sock").read_text() == "mine"


def test_spare_sockets_are_claimed_by_address() -> None:
    spare = socket.create_server(("127.0.0.1", 0))
    other = socket.create_server(("127.0.0.1", 0))
    registry = Registry()
    registry.spare += [spare, other]
    registry.commit(registry.prepare([Wanted(0, describe(spare))], 4))
    assert [held.sock for held in registry.binds[0].sockets] == [spare]
    assert registry.binds[0].shared
    assert registry.spare == [other]
    close(registry)
    other.close()


@pytest.mark.parametrize("environment", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}])
def test_sockets_passed_to_another_process_are_not_ours(environment: dict[str, str]) -> None:
    assert activated(environment, os.getpid()) == []


def close(registry: Registry) -> None:
    for bind in registry.binds.values():
        for held in bind.sockets:
            held.sock.close()
