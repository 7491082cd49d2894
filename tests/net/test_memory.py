"""What waiting costs in memory, measured in the processes that serve."""

import contextlib
import ssl
from collections.abc import Callable
from dataclasses import replace

import pytest
import trustme

from balancer.model import Listener, ListenerTls, Park, Snapshot
from balancer.scoreboard import W_PARKED, W_PARKED_BYTES
from tests.support.client import Client, request
from tests.support.worker import Worker, running, snapshot_of, wait_until

KIB = 1024
HEAD = request("/", "Content-Length: 1000000", "X-Fill: " + "x" * 900, method="POST")
FIRST_READ = 16 * KIB
WARM, COUNTED = 100, 700


def cost_of_parking(snapshot: Snapshot, sent: bytes, connect: Callable[[Worker], Client], **more: object) -> float:
    """Bytes of RSS for each of many parked requests, as a release runs (`-X dev` doubles them)."""
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(running(snapshot, healthy=False, flags="", **more))

        def park(count: int) -> int:
            for _ in range(count):
                stack.enter_context(connect(worker)).send(sent)
                parked[0] += 1
            wait_until(lambda: worker.board.cell(W_PARKED) == parked[0])
            return worker.rss_kib()

        parked = [0]
        park(1)  # the first one is read as if it were not to wait
        before = park(WARM - 1)
        after = park(COUNTED)
        assert worker.board.cell(W_PARKED_BYTES) >= (WARM + COUNTED) * len(HEAD)
        return (after - before) * KIB / COUNTED


def plain(worker: Worker) -> Client:
    return Client(worker.connect())


def test_a_parked_request_costs_its_head_and_eight_kibibytes() -> None:
    cost = cost_of_parking(snapshot_of(1), HEAD, plain)
    print(f"parked, plain: {cost:.0f} bytes of RSS each")  # noqa: T201 - a number to state
    assert cost <= 8 * KIB + len(HEAD)


def test_of_a_parked_body_no_more_is_taken_than_the_first_read() -> None:
    body = b"b" * 100_000  # the kernel's buffers take it
    cost = cost_of_parking(snapshot_of(1, park=Park(max_bytes=1 << 30)), HEAD + body, plain)
    print(f"parked with a body: {cost:.0f} bytes of RSS each")  # noqa: T201 - a number to state
    assert cost <= 8 * KIB + 2 * FIRST_READ  # the head for the node, and the rest of the first read


def test_a_parked_request_over_tls_costs_twenty_six_kibibytes() -> None:
    ca = trustme.CA()
    context = ssl.create_default_context()
    ca.configure_trust(context)
    pem = ca.issue_cert("a.test").private_key_and_cert_chain_pem.bytes()
    tls = Listener(0, "127.0.0.1:0", ListenerTls((((), 0),)))
    snapshot = replace(snapshot_of(1), listeners=(tls,))

    def connect(worker: Worker) -> Client:
        return Client(context.wrap_socket(worker.connect(), server_hostname="a.test"))

    cost = cost_of_parking(snapshot, HEAD, connect, pems=[pem])
    print(f"parked, TLS: {cost:.0f} bytes of RSS each")  # noqa: T201 - a number to state
    most = 26 if ssl.OPENSSL_VERSION_INFO < (3, 2) else 34  # OpenSSL itself needs more since
    assert cost <= most * KIB + len(HEAD)


@pytest.mark.parametrize("trusted", [False, True])
def test_one_client_takes_a_fifth_of_the_lot_and_a_trusted_proxy_all_of_it(trusted: bool) -> None:
    snapshot = snapshot_of(1, park=Park(max=50, max_per_client=10))
    if trusted:
        snapshot = replace(snapshot, forwarding=replace(snapshot.forwarding, trusted_proxies=("127.0.0.2/32",)))
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(running(snapshot, healthy=False))
        sources = ["127.0.0.2"] * (21 if trusted else 10) + [f"127.0.0.{host}" for host in range(3, 31)]
        for number, source in enumerate(sources):
            stack.enter_context(Client(worker.connect(source=source))).send(request("/"))
            wait_until(lambda number=number: worker.board.cell(W_PARKED) == number + 1)
        with Client(worker.connect(source="127.0.0.2")) as one_more:
            one_more.send(request("/"))
            if trusted:
                wait_until(lambda: worker.board.cell(W_PARKED) == len(sources) + 1)
            else:
                assert one_more.read().one("X-Arv-Balance") == "park-full"
