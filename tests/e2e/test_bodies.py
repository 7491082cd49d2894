"""Large bodies, slow readers and writers, tunnels: memory stays bounded and others are served."""

import base64
import contextlib
import os
import socket
import time
from collections.abc import Iterator

from tests.e2e.conftest import Build
from tests.support.site import Site
from tests.support.waiting import until

MIB = 1 << 20


def rss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123 - one line of a pseudo file
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


@contextlib.contextmanager
def connections(site: Site, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 20)) for _ in range(count)]


def read_some(client: socket.socket, wanted: int) -> int:
    done = 0
    while done < wanted:
        data = client.recv(min(65536, wanted - done))
        assert data, f"cut after {done} of {wanted} bytes"
        done += len(data)
    return done


def test_ten_mebibytes_both_ways_with_slow_clients_need_little_memory(build: Build) -> None:
    site = build(workers=1)
    site.start()
    site.ask()
    (worker,) = site.worker_pids().values()
    before = rss_bytes(worker)
    size = 10 * MIB
    with connections(site, 8) as clients:
        downs, ups = clients[:4], clients[4:]
        for client in downs:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
            client.sendall(b"GET /down?size=%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
        for client in ups:
            client.sendall(b"PUT /up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        most, began = 0, time.monotonic()
        for _ in range(40):
            for client in downs:
                read_some(client, size // 40)
            for client in ups:
                client.sendall(bytes(size // 40))
            time.sleep(0.02)  # the pace is the point
            most = max(most, rss_bytes(worker) - before)
            assert site.ask(path="/fast")[0] == 200
        assert time.monotonic() - began > 0.8
        for client in ups:
            assert b" 200 " in client.recv(4096)
    print(f"8 transfers of 10 MiB: {most / 8 / 1024:.0f} KiB of RSS each")  # noqa: T201 - a number to state
    assert most / 8 < 512 * 1024
    site.assert_balanced()


def test_a_body_arrives_whole_and_unchanged_both_ways(site: Site) -> None:
    data = os.urandom(3 * MIB + 17)
    _status, _headers, seen = site.ask("PUT", "/up", body=data)
    import hashlib

    assert (seen["body_bytes"], seen["body_sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    for chunked in (0, 1):
        status, _headers, body = site.ask(path=f"/down?size={3 * MIB + 17}&chunked={chunked}")
        assert status == 200
        assert body == (bytes(range(256)) * (len(data) // 256 + 1))[: len(data)]


def frame(data: bytes, opcode: int = 1) -> bytes:
    return bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data


def websocket(site: Site) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", site.port), 20)
    key = base64.b64encode(os.urandom(16))
    client.sendall(
        b"GET /websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert b" 101 " in head
    return client


def echo(client: socket.socket, data: bytes) -> bytes:
    client.sendall(frame(data))
    answer = b""
    while len(answer) < 2 + len(data):
        more = client.recv(200)
        assert more
        answer += more
    return answer[2:]


def test_a_websocket_is_told_to_go_when_its_node_drains(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(websocket(site)) for _ in range(6)]
        for number, client in enumerate(clients):
            assert echo(client, b"hello %d" % number) == b"hello %d" % number
        site.admin("POST", "/v1/nodes/api1/drain", {})
        until(lambda: site.states()["api1"] == "drained")
        ended = 0
        for client in clients:
            client.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                got = client.recv(100)
                assert got[:1] == b"\x88", got  # a Close frame
                assert int.from_bytes(got[2:4]) == 1001
                ended += 1
        assert ended == 2  # least requests: two of six were there
        for client in clients:
            with contextlib.suppress(OSError, AssertionError):
                client.settimeout(5)
                assert echo(client, b"again") == b"again"
    site.assert_balanced()


def test_slow_clients_do_not_hold_others_up(site: Site) -> None:
    with connections(site, 40) as clients:
        trickling, deaf = clients[:20], clients[20:]
        for client in deaf:
            client.sendall(b"GET /down?size=%d HTTP/1.1\r\nHost: x\r\n\r\n" % (20 * MIB))
        head = b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\n"
        with site.load("--kinds", "fast", "down", "post") as load:
            for at in range(4):
                for client in trickling:
                    client.sendall(head[at : at + 1])
                time.sleep(1)  # one byte a second is what these clients do
            result = load.stop()
        result.assert_clean()
        assert result.slowest_s < 20
        for client in trickling:
            client.sendall(head[4:])
            assert b" 200 " in client.recv(4096)


def test_a_head_that_takes_too_long_is_answered_and_ended(build: Build) -> None:
    site = build(nodes=1, workers=1, timeouts={"header": "1s"})
    site.start()
    with connections(site, 1) as (client,):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert b" 408 " in client.recv(4096)


def test_two_thousand_idle_connections_cost_little(build: Build) -> None:
    site = build(nodes=1, workers=1)
    site.start()
    (worker,) = site.worker_pids().values()
    with connections(site, 100):
        before = rss_bytes(worker)
        with connections(site, 2000) as idle:
            for client in idle:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b" 200 " in client.recv(4096)
            each = (rss_bytes(worker) - before) / len(idle)
            with site.load("--kinds", "fast") as load:
                result = load.stop(2)
    print(f"2 000 idle connections: {each / 1024:.1f} KiB of RSS each")  # noqa: T201 - a number to state
    result.assert_clean()
    assert each < 4096
