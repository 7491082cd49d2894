"""What would make a client wait for the kernel's timers, 40 ms at a time: seen in the sockets, not on a clock."""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from balancer.model import AccessLog, Health, Listener, ListenerTls
from balancer.net.listener import Gate
from balancer.net.plane import Plane
from balancer.net.poller import WRITE, make_poller
from balancer.net.reactor import Reactor
from balancer.net.tls import ListenerContexts, TlsClient
from tests.support.client import Client, request
from tests.support.upstream import Script, Sleep, Upstream, answer
from tests.support.worker import Board, memfd, snapshot_of

NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
QUICK_ACK = (socket.IPPROTO_TCP, socket.TCP_QUICKACK)  # 0: acknowledgements wait for something to go with


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pems(ca: trustme.CA) -> Iterator[list[int]]:
    fd = memfd(ca.issue_cert("a.test").private_key_and_cert_chain_pem.bytes())
    yield [fd]
    os.close(fd)


@pytest.fixture
def plane() -> Iterator[Plane]:
    """A worker in this process that takes a turn when it is told to."""
    board = Board()
    board.verdict(0, Health.HEALTHY)
    made = Plane(Reactor(make_poller()), board.board, 0, board.wakes)
    yield made
    for client in list(made.clients):
        client.close()
    for node in made.nodes.values():
        node.close_idle()
    made.reactor.turn()
    made.reactor.poller.close()
    board.close()


def listener() -> Listener:
    return Listener(0, "127.0.0.1:0", ListenerTls(certificates=((("a.test",), 0),)))


def shaken_hands(ca: trustme.CA, address: tuple[str, int]) -> ssl.SSLSocket:
    """A client without TCP_NODELAY."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context.wrap_socket(socket.create_connection(address), server_hostname="a.test")


class Unhurried(TlsClient):
    """Leaves the client's last handshake message to the kernel."""

    __slots__ = ()

    def _acknowledge(self) -> None:
        """See TlsClient."""


def acknowledges_at_once(plane: Plane, ca: trustme.CA, pems: list[int], kind: type[TlsClient]) -> bool:
    """Whether a worker that has shaken hands does not wait for an answer to acknowledge with."""
    tls = listener().tls
    assert tls is not None
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        hands = pool.submit(shaken_hands, ca, server.getsockname())
        accepted, peer = server.accept()
        accepted.setblocking(False)
        client = kind(plane, accepted, Gate(listener(), plane.row), peer, ListenerContexts(tls, pems))
        plane.clients.add(client)
        client.mask = 1
        plane.reactor.watch(client.fd, 1, client)
        while not client._settled:
            plane.reactor.turn()
        with hands.result():
            assert client._tls is not None
            return bool(client._tls.raw.getsockopt(*QUICK_ACK))


def test_the_end_of_a_tls_handshake_is_acknowledged_at_once(plane: Plane, ca: trustme.CA, pems: list[int]) -> None:
    """A client without TCP_NODELAY sends its first request only then."""
    assert acknowledges_at_once(plane, ca, pems, TlsClient)


def test_the_end_of_a_tls_handshake_would_wait_for_the_answer(plane: Plane, ca: trustme.CA, pems: list[int]) -> None:
    """The negative control of the test above."""
    assert not acknowledges_at_once(plane, ca, pems, Unhurried)


class CountedWrites:
    """A TLS session that counts what is written into it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def write(self, data: "bytes | memoryview") -> int:
        self.writes += 1
        written: int = self._session.write(data)
        return written


def turn_until(plane: Plane, condition: Callable[[], bool]) -> None:
    while not condition():
        plane.reactor.turn()


@contextlib.contextmanager
def joined_over_tls(
    plane: Plane, ca: trustme.CA, pems: list[int], node: Upstream
) -> Iterator[tuple[Client, TlsClient, ThreadPoolExecutor]]:
    """A connection, seen from both ends, and a thread for the far one."""
    server = socket.create_server(("127.0.0.1", 0))
    plane.apply(snapshot_of(node.port, listeners=(listener(),), access_log=AccessLog(format="off")), pems)
    plane.add_sockets(0, [server])
    with ThreadPoolExecutor(1) as pool:
        hands = pool.submit(shaken_hands, ca, server.getsockname())
        turn_until(plane, lambda: hands.done() and any(c._settled for c in plane.clients if isinstance(c, TlsClient)))
        (client,) = plane.clients
        assert isinstance(client, TlsClient)
        with Client(hands.result()) as asking:
            yield asking, client, pool
    plane.drop_sockets(0)


@contextlib.contextmanager
def asked_over_tls(plane: Plane, ca: trustme.CA, pems: list[int], node: Upstream) -> Iterator[tuple[int, TlsClient]]:
    """One exchange: how many writes its answer took, and the client's connection."""
    with joined_over_tls(plane, ca, pems, node) as (asking, client, pool):
        assert client._tls is not None
        counted = client._tls._session = CountedWrites(client._tls._session)
        client.recv, client.send_once = client._tls.quickly()
        found = pool.submit(asking.get, "/")
        turn_until(plane, found.done)
        assert found.result().status == 200
        yield counted.writes, client


def in_pieces(body: bytes) -> Script:
    """The head, and after a while the body."""
    head, _, rest = answer(body).partition(b"\r\n\r\n")
    return lambda _: [head + b"\r\n\r\n", Sleep(0.05), rest]


def test_an_answer_that_comes_in_pieces_is_one_write(plane: Plane, ca: trustme.CA, pems: list[int]) -> None:
    with Upstream(in_pieces(b"small")) as node, asked_over_tls(plane, ca, pems, node) as (writes, _):
        assert writes == 1


def test_an_answer_that_is_not_held_takes_more_writes(plane: Plane, ca: trustme.CA, pems: list[int]) -> None:
    """The negative control of the test above: such writes are counted."""
    with Upstream(in_pieces(b"z" * 300_000)) as node, asked_over_tls(plane, ca, pems, node) as (writes, _):
        assert writes > 1


def test_small_answers_over_tls_wait_for_a_client_that_does_not_read(
    plane: Plane, ca: trustme.CA, pems: list[int]
) -> None:
    body = b"z" * 15_000
    with (
        Upstream(lambda _: answer(body)) as node,
        joined_over_tls(plane, ca, pems, node) as (asking, client, pool),
    ):
        count = 2000  # 30 MB: more than the kernel holds for a connection
        sent = pool.submit(asking.send, request("/") * count)
        turn_until(plane, lambda: bool(client.mask & WRITE))
        read = pool.submit(lambda: (sent.result(), [asking.read().body for _ in range(count)])[1])
        turn_until(plane, read.done)
        assert set(read.result()) == {body}


def test_neither_side_holds_back_what_is_written(plane: Plane, ca: trustme.CA, pems: list[int]) -> None:
    with socket.socket() as plain, Upstream() as node, asked_over_tls(plane, ca, pems, node) as (_, client):
        assert client._tls is not None
        (connection,) = plane.nodes[0].pool
        assert isinstance(connection.sock, socket.socket)
        assert client._tls.raw.getsockopt(*NO_DELAY)
        assert connection.sock.getsockopt(*NO_DELAY)
        assert not plain.getsockopt(*NO_DELAY)  # the negative control: nobody does it for us
