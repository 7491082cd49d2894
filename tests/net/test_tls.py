"""TLS on both sides, and the PROXY protocol."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trustme

from balancer.model import Health, Limits, Listener, ListenerTls, NodeTls, Snapshot
from balancer.net.proxyprotocol import SIGNATURE, Header, Malformed, Unfinished, parse_proxy
from balancer.net.requestbody import AHEAD_BYTES
from balancer.net.stream import HEAD_BYTES
from balancer.scoreboard import W_PARKED, W_TLS_FAILED, W_TLS_HANDSHAKES
from tests.support.client import Client, request
from tests.support.upstream import Echo, Upstream, answer
from tests.support.worker import Worker, running, snapshot_of, wait_until


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def pem(ca: trustme.CA, *names: str) -> bytes:
    return ca.issue_cert(*names).private_key_and_cert_chain_pem.bytes()


def tls_snapshot(port: int, **more: object) -> Snapshot:
    tls = ListenerTls(certificates=((("a.test",), 0), (("b.test", "*.c.test"), 1)))
    listener = Listener(0, "127.0.0.1:0", replace(tls, **more))  # type: ignore[arg-type]
    return snapshot_of(port, listeners=(listener,))


def connect(
    worker: Worker, ca: trustme.CA, name: str, cert: trustme.LeafCert | None = None, **versions: ssl.TLSVersion
) -> Client:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if cert is not None:
        cert.configure_cert(context)
    if "maximum" in versions:
        context.maximum_version = versions["maximum"]
    sock = context.wrap_socket(worker.connect(), server_hostname=name)
    return Client(sock)


@pytest.fixture(scope="module")
def pems(ca: trustme.CA) -> list[bytes]:
    return [pem(ca, "a.test"), pem(ca, "b.test", "*.c.test"), ca.cert_pem.bytes()]


@pytest.fixture(scope="module")
def node() -> Iterator[Upstream]:
    with Upstream(lambda got: answer(got.body or b"z" * 3_000_000)) as upstream:
        yield upstream


def test_each_name_gets_its_certificate_and_bodies_pass(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    with running(tls_snapshot(node.port), pems=pems) as worker:
        for name in ("a.test", "b.test", "x.c.test"):
            with connect(worker, ca, name) as client:
                body = name.encode() * 100_000
                assert client.post(body).body == body
                assert client.get("/").body == b"z" * 3_000_000
                assert client.get("/", "Connection: close").status == 200
                assert node.requests[-1].one("X-Forwarded-Proto") == "https"
                assert client.at_end()
        wait_until(lambda: worker.board.cell(W_TLS_HANDSHAKES) == 3)


def test_pipelined_requests_in_one_record_are_all_answered(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    with running(tls_snapshot(node.port), pems=pems) as worker, connect(worker, ca, "a.test") as client:
        client.send(b"".join(request("/", "Content-Length: 2", method="POST") + b"%02d" % n for n in range(20)))
        assert [client.read().body for _ in range(20)] == [b"%02d" % n for n in range(20)]


def test_requests_beyond_the_first_read_of_a_record_are_answered(
    ca: trustme.CA, pems: list[bytes], node: Upstream
) -> None:
    """OpenSSL holds what is left of the record, so the poller says nothing of it."""
    bodies = [b"%03d" % n for n in range(HEAD_BYTES // 40)]
    record = b"".join(request("/", "Content-Length: 3", method="POST") + body for body in bodies)
    assert HEAD_BYTES < len(record) < 16384
    with running(tls_snapshot(node.port), pems=pems) as worker, connect(worker, ca, "a.test") as client:
        client.send(record)
        assert [client.read().body for _ in bodies] == bodies


def test_more_requests_than_are_read_ahead_are_all_answered(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    """The rest of a record lies in OpenSSL when reading ahead stops, and no poller says so when it may go on."""
    size, count = 3000, 2 * AHEAD_BYTES // 3000
    with running(tls_snapshot(node.port), pems=pems) as worker, connect(worker, ca, "a.test") as client:
        client.send((request("/", f"Content-Length: {size}", method="POST") + b"b" * size) * count)
        assert [len(client.read().body) for _ in range(count)] == [size] * count


def test_what_came_with_the_head_of_a_parked_request_is_sent_after_the_release(
    ca: trustme.CA, pems: list[bytes], node: Upstream
) -> None:
    body = b"b" * 2 * HEAD_BYTES
    snapshot = tls_snapshot(node.port)
    with running(snapshot, pems=pems, healthy=False) as worker, connect(worker, ca, "a.test") as client:
        client.send(request("/", f"Content-Length: {len(body)}", method="POST") + body)  # one record
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        worker.board.verdict(0, Health.HEALTHY)
        assert client.read().body == body


def test_what_came_with_the_head_of_a_parked_upgrade_goes_through_the_tunnel(ca: trustme.CA, pems: list[bytes]) -> None:
    early = b"e" * 2 * HEAD_BYTES
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tunnel\r\n\r\n"
    with (
        Upstream(lambda _: [switching, Echo()]) as node,
        running(tls_snapshot(node.port), pems=pems, healthy=False) as worker,
        connect(worker, ca, "a.test") as client,
    ):
        client.send(request("/", "Connection: upgrade", "Upgrade: tunnel", method="POST") + early)  # one record
        wait_until(lambda: worker.board.cell(W_PARKED) == 1)
        worker.board.verdict(0, Health.HEALTHY)
        assert client.read().status == 101
        assert client.read_raw(len(early)) == early


def test_old_versions_are_refused(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    with running(tls_snapshot(node.port, minimum_version="TLSv1.3"), pems=pems) as worker:
        with pytest.raises(ssl.SSLError):
            connect(worker, ca, "a.test", maximum=ssl.TLSVersion.TLSv1_2)
        wait_until(lambda: worker.board.cell(W_TLS_FAILED) == 1)
        with connect(worker, ca, "a.test") as client:
            assert client.post(b"x").status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_plain_text_on_a_tls_port_is_told_so_in_plain_text(
    ca: trustme.CA, pems: list[bytes], node: Upstream, method: str
) -> None:
    with running(tls_snapshot(node.port), pems=pems) as worker:
        before = len(node.requests)
        with Client(worker.connect()) as plain:
            found = plain.get("/", "X-Request-Id: plain", method=method)
            assert (found.status, found.one("X-Arv-Balance"), found.one("X-Request-Id")) == (
                400,
                "plain-on-tls",
                "plain",
            )
            assert b"https://" in found.body
            assert plain.at_end()
        assert worker.board.cell(W_TLS_FAILED) == 1
        with connect(worker, ca, "a.test") as client:
            assert client.post(b"x").status == 200
        assert len(node.requests) == before + 1


def test_a_tls_connection_over_the_cap_is_told_so(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    snapshot = replace(tls_snapshot(node.port), limits=Limits(connections=1))
    with running(snapshot, pems=pems) as worker, connect(worker, ca, "a.test") as first:
        assert first.post(b"x").status == 200
        with connect(worker, ca, "a.test") as second:
            found = second.get("/")
            assert (found.status, found.one("X-Arv-Balance")) == (503, "connections-full")
            assert second.at_end()
        assert first.post(b"x").status == 200


def test_client_certificates_are_asked_for(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    with running(tls_snapshot(node.port, client_ca=2, client_required=True), pems=pems) as worker:
        with connect(worker, ca, "a.test", ca.issue_cert("client.test")) as client:
            assert client.post(b"x").status == 200
        with connect(worker, ca, "a.test") as without, pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            without.post(b"x")


def test_a_certificate_is_replaced_without_touching_connections(
    ca: trustme.CA, pems: list[bytes], node: Upstream
) -> None:
    with running(tls_snapshot(node.port), pems=pems) as worker, connect(worker, ca, "a.test") as old:
        assert old.post(b"x").status == 200
        other = trustme.CA()
        assert worker.apply(worker.snapshot, [pem(other, "a.test"), *pems[1:]])["type"] == "applied"
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(worker, ca, "a.test")
        with connect(worker, other, "a.test") as new:
            assert new.post(b"x").status == old.post(b"x").status == 200
        refused = worker.apply(worker.snapshot, [b"rubbish", *pems[1:]])
        assert (refused["type"], "certificate" in refused["reason"]) == ("refused", True)
        assert old.post(b"x").status == 200


def serve_tls(ca: trustme.CA, name: str) -> tuple[int, list[bytes], socket.socket]:
    """A node with TLS that answers each connection's requests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    listening = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        try:
            tls = context.wrap_socket(sock, server_side=True)
            while data := tls.recv(65536):
                seen.append(data)
                tls.sendall(answer(b"secret " * 20_000))
            tls.close()
        except OSError:
            sock.close()

    def accept() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listening.getsockname()[1], seen, listening


@pytest.mark.parametrize(("name", "good"), [("node.test", True), ("other.test", False)])
def test_a_node_is_verified_by_authority_and_name(ca: trustme.CA, name: str, good: bool) -> None:
    port, seen, listening = serve_tls(ca, "node.test")
    snapshot = snapshot_of(port)
    tls = NodeTls(name, ca=0)
    nodes = (replace(snapshot.nodes[0], tls=tls),)
    snapshot = replace(snapshot, nodes=nodes, park=replace(snapshot.park, timeout_s=0.3))
    with running(snapshot, pems=[ca.cert_pem.bytes()]) as worker, Client(worker.connect()) as client:
        for _ in range(3):
            found = client.get("/")
            assert (found.status == 200) is good
            assert (found.body == b"secret " * 20_000) is good
        assert bool(seen) is good
        assert not good or len(worker.log_lines(3)) == 3
    listening.close()


V2 = SIGNATURE + b"\x21\x11" + struct.pack("!H4s4sHH", 12, bytes([10, 1, 2, 3]), bytes([127, 0, 0, 1]), 4711, 80)
V1 = b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 80\r\n"


@pytest.mark.parametrize("header", [V1, V2])
def test_a_proxy_header_names_the_client(node: Upstream, header: bytes) -> None:
    listener = Listener(0, "127.0.0.1:0", proxy_protocol_from=("127.0.0.0/8",))
    with running(snapshot_of(node.port, listeners=(listener,))) as worker:
        with Client(worker.connect()) as client:
            client.send(header + request("/", "Content-Length: 1", method="POST") + b"x")
            assert client.read().status == 200
            assert node.requests[-1].one("X-Forwarded-For") == "10.1.2.3"
        with Client(worker.connect()) as slow:
            for at in range(len(header)):
                slow.send(header[at : at + 1])
            assert slow.post(b"y").status == 200
            assert node.requests[-1].one("X-Real-IP") == "10.1.2.3"
        with Client(worker.connect()) as without:
            without.send(request("/"))
            assert without.at_end()


def test_a_proxy_header_comes_before_tls(ca: trustme.CA, pems: list[bytes], node: Upstream) -> None:
    snapshot = tls_snapshot(node.port)
    listener = replace(snapshot.listeners[0], proxy_protocol_from=("127.0.0.1",))
    with running(replace(snapshot, listeners=(listener,)), pems=pems) as worker:
        raw = worker.connect()
        raw.sendall(V1)
        context = ssl.create_default_context()
        ca.configure_trust(context)
        with Client(context.wrap_socket(raw, server_hostname="a.test")) as client:
            assert client.post(b"x").status == 200
        assert node.requests[-1].one("X-Forwarded-For") == "10.1.2.3"


@pytest.mark.parametrize("header", [V1, V2])
def test_a_proxy_header_is_unfinished_at_every_cut(header: bytes) -> None:
    assert all(isinstance(parse_proxy(header[:cut]), Unfinished) for cut in range(1, len(header)))
    assert parse_proxy(header + b"GET") == Header(len(header), ("10.1.2.3", 4711))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 80 \r\n",
        b"PROXY TCP4 ::1 127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 10.1.2.3 127.0.0.1 99999 80\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        SIGNATURE + b"\x31\x11\x00\x0c" + b"x" * 12,
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\x00\x02xx",
    ],
)
def test_a_bad_proxy_header_is_refused(data: bytes) -> None:
    assert isinstance(parse_proxy(data), Malformed)


def test_local_and_unknown_speak_for_the_proxy_itself() -> None:
    assert parse_proxy(SIGNATURE + b"\x20\x00\x00\x00") == Header(16, None)
    assert parse_proxy(b"PROXY UNKNOWN\r\n") == Header(15, None)
