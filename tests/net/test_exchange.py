"""Plain exchanges through a real worker: framing, keep-alive, header hygiene, request ids."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from balancer.model import Designation, Forwarding, Listener, Match, RequestId, Route
from balancer.scoreboard import W_ACCEPTED, W_OUT_NODE
from tests.support.client import Client, request
from tests.support.upstream import Close, Request, Sleep, Step, Upstream, answer, chunked
from tests.support.worker import Worker, running, snapshot_of, wait_until

ARVADOS_ID = re.compile(r"req-[0-9a-z]{20}\Z")


HOP = (("Connection", "close, X-Secret"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"))
SCRIPT: dict[str, bytes | list[Step]] = {
    "/chunked": chunked(b"hello ", b"world", trailers=(("ETag", "x"), ("X-Evil", "1"))),
    "/slow-chunks": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        Sleep(0.15),
        b"1\r\nb\r\n",
        Sleep(0.15),
        b"0\r\n\r\n",
    ],
    "/until-close": [b"HTTP/1.1 200 OK\r\n\r\nall of it", Close()],
    "/http10": [b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Close()],
    "/204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n",
    "/head": b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
    "/interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"final"),
    "/hop": answer(b"hop", headers=HOP),
    "/id": answer(b"id", headers=(("X-Request-Id", "other"), ("Connection", "keep-alive"))),
    "/big": answer(b"z" * 3_000_000),
    "/extra": answer(b"ok") + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
}


def script(got: Request) -> bytes | list[Step] | None:
    """Answers by path; /echo sends the body back."""
    path = got.target.partition("?")[0]
    return answer(got.body) if path == "/echo" else SCRIPT.get(path)


@pytest.fixture(scope="module")
def node() -> Iterator[Upstream]:
    with Upstream(script) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def worker(node: Upstream) -> Iterator[Worker]:
    with running(snapshot_of(node.port)) as running_worker:
        yield running_worker


@pytest.fixture
def client(worker: Worker) -> Iterator[Client]:
    with Client(worker.connect()) as connected:
        yield connected


def test_requests_on_one_connection_go_round_the_nodes() -> None:
    with Upstream(name="a") as a, Upstream(name="b") as b, running(snapshot_of(a.port, b.port)) as worker:
        with Client(worker.connect()) as client:
            bodies = [client.get("/x?y=1").body for _ in range(10)]
        assert sorted(bodies) == [b"a\n"] * 5 + [b"b\n"] * 5
        assert (a.connections, b.connections) == (1, 1)
        assert len(worker.log_lines(10)) == 10
        wait_until(lambda: worker.board.cell(W_OUT_NODE) == 10)
        assert worker.board.cell(W_ACCEPTED) == 10
        assert worker.board.busy() == 0


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    client.send(b"".join(request(f"/echo?{n}", "Content-Length: 1", method="POST") + b"%d" % n for n in range(8)))
    assert [client.read().body for _ in range(8)] == [b"%d" % n for n in range(8)]


def test_a_request_arrives_whole_in_any_cut(client: Client) -> None:
    data = request("/echo", "Transfer-Encoding: chunked", method="POST") + b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    for seed in range(4):
        pick = random.Random(seed)
        cuts = sorted(pick.sample(range(1, len(data)), 6)) if seed else range(1, len(data))
        bounds = [0, *cuts, len(data)]
        for start, end in pairwise(bounds):
            client.send(data[start:end])
        assert client.read().body == b"hello!"


def test_chunk_extensions_never_reach_a_node(client: Client, node: Upstream) -> None:
    client.send(
        request("/echo", "Transfer-Encoding: chunked", method="POST") + b"2;secret=1\r\nhi\r\n0\r\nX-A: b\r\n\r\n"
    )
    assert client.read().body == b"hi"
    assert node.requests[-1].raw_body == b"2\r\nhi\r\n0\r\n"


def test_trailers_pass_only_when_allowed_and_asked_for(client: Client) -> None:
    assert client.get("/chunked").one("ETag") is None
    asked = client.get("/chunked", "TE: trailers", "Connection: TE")
    assert (asked.body, asked.one("ETag"), asked.one("X-Evil")) == (b"hello world", "x", None)


def test_a_slow_chunked_answer_streams(client: Client) -> None:
    client.send(request("/slow-chunks"))
    assert client.read_head()[0] == 200
    assert [client.line() for _ in range(6)] == [b"1\r\n", b"a\r\n", b"1\r\n", b"b\r\n", b"0\r\n", b"\r\n"]


def test_an_answer_that_ends_by_closing_is_chunked_for_the_client(client: Client) -> None:
    found = client.get("/until-close")
    assert (found.body, found.one("Transfer-Encoding")) == (b"all of it", "chunked")
    assert client.get("/").status == 200


def test_an_http_1_0_client_gets_no_chunks(worker: Worker) -> None:
    with Client(worker.connect()) as client:
        client.send(request("/chunked", version="1.0"))
        found = client.read()
        assert (found.body, found.one("Transfer-Encoding"), found.closed) == (b"hello world", None, True)


def test_an_http_1_0_client_can_keep_its_connection(worker: Worker, node: Upstream) -> None:
    with Client(worker.connect()) as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.read().one("Connection") == "keep-alive"
        assert node.requests[-1].one("Host") == "localhost"
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.read().one("Connection") == "close"
        assert client.at_end()


def test_an_http_1_0_node_is_understood(client: Client) -> None:
    assert client.get("/http10").body == b"ok"


@pytest.mark.parametrize(
    ("target", "method", "status"), [("/204", "GET", 204), ("/304", "GET", 304), ("/head", "HEAD", 200)]
)
def test_answers_without_a_body_keep_the_connection(client: Client, target: str, method: str, status: int) -> None:
    for _ in range(2):
        assert client.get(target, method=method).status == status
    assert client.get("/").body == b"node\n"


def test_the_length_of_an_answer_to_head_is_passed_on(client: Client) -> None:
    assert client.get("/head", method="HEAD").one("Content-Length") == "12345"


def test_interim_answers_are_passed_on(client: Client) -> None:
    client.send(request("/interim"))
    assert client.read_head()[0] == 103
    assert client.read().body == b"final"


def test_hop_by_hop_fields_stay_on_their_hop(client: Client, node: Upstream) -> None:
    lines = ("Connection: close, X-Hop, X-Forwarded-For", "X-Hop: 1", "Keep-Alive: 5", "TE: gzip", "Upgrade: h2c")
    more = ("HTTP2-Settings: x", "Proxy-Connection: keep-alive", "X_Under: 1", "X.Dot: 1", "Trailer: x")
    found = client.get("/hop", *lines, *more)
    got = node.requests[-1]
    sent = {name.lower() for name, _ in got.headers}
    assert sent == {
        "host",
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
        "via",
    }
    assert {name.lower() for name, _ in found.headers} == {"content-length", "x-request-id", "connection"}
    assert client.at_end()


def test_forwarding_fields_of_an_untrusted_client_are_replaced(client: Client, node: Upstream) -> None:
    lines = ("X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4")
    client.get("/", *lines, "X-Forwarded-Host: evil", "X-Arv-Designation: dns;epoch=9", "X-External-Client: 0")
    got = node.requests[-1]
    assert got.all("X-Forwarded-For") == ["127.0.0.1"]
    assert got.all("X-Real-IP") == ["127.0.0.1"]
    assert got.all("X-Forwarded-Proto") == ["http"]
    assert got.all("X-Forwarded-Host") == ["a.test"]
    assert got.all("Via") == ["1.1 arv-balance"]
    assert not got.all("Forwarded") + got.all("X-Arv-Designation") + got.all("X-External-Client")


def test_forwarding_fields_of_a_trusted_proxy_are_extended(node: Upstream) -> None:
    forwarding = Forwarding(
        trusted_proxies=("127.0.0.0/8",), internal_networks=("10.0.0.0/8",), external_client_header=True
    )
    with running(snapshot_of(node.port, forwarding=forwarding)) as worker, Client(worker.connect()) as client:
        client.get("/", "X-Forwarded-For: 6.6.6.6, 10.1.2.3, 127.0.0.9", "X-Forwarded-Proto: https", "Via: 1.1 other")
        got = node.requests[-1]
        assert got.one("X-Forwarded-For") == "6.6.6.6, 10.1.2.3, 127.0.0.9, 127.0.0.1"
        assert got.one("X-Real-IP") == "10.1.2.3"
        assert got.one("X-Forwarded-Proto") == "https"
        assert got.one("X-External-Client") == "0"
        assert got.all("Via") == ["1.1 other", "1.1 arv-balance"]
        assert worker.log_lines(1)[0]["client.address"] == "10.1.2.3"
        client.get("/")
        assert node.requests[-1].one("X-External-Client") == "1"


def test_a_request_id_is_made_or_kept_and_one_line_everywhere(client: Client, node: Upstream) -> None:
    made = client.get("/").one("X-Request-Id")
    assert made is not None
    assert ARVADOS_ID.match(made)
    assert node.requests[-1].all("X-Request-Id") == [made]
    assert client.get("/", "X-Request-Id: mine-1").one("X-Request-Id") == "mine-1"
    assert node.requests[-1].all("X-Request-Id") == ["mine-1"]
    for bad in (("X-Request-Id: a b",), ("X-Request-Id: a", "X-Request-Id: b"), ("X-Request-Id: " + "a" * 1025,)):
        found = client.get("/", *bad).one("X-Request-Id")
        assert found is not None
        assert ARVADOS_ID.match(found)
        assert node.requests[-1].all("X-Request-Id") == [found]
    assert client.get("/id", "X-Request-Id: mine-2").all("X-Request-Id") == ["mine-2"]


@pytest.mark.parametrize(
    ("style", "pattern"), [("hex", r"[0-9a-f]{32}\Z"), ("uuid", r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab]")]
)
def test_other_names_and_formats_of_request_ids(node: Upstream, style: str, pattern: str) -> None:
    snapshot = snapshot_of(node.port, request_id=RequestId("X-Trace", style))
    with running(snapshot) as worker, Client(worker.connect()) as client:
        found = client.get("/").one("X-Trace")
        assert found is not None
        assert re.match(pattern, found)
        assert node.requests[-1].all("X-Trace") == [found]


def test_a_refusal_is_json_with_the_request_id(client: Client) -> None:
    found = client.get("/%00")
    assert found.status == 400
    body = json.loads(found.body)
    assert body["request_id"] == found.one("X-Request-Id")
    assert "encoded NUL" in body["errors"][0]
    assert found.one("X-Arv-Balance") == "malformed"
    assert found.one("Content-Type") == "application/json"
    assert client.at_end()


def test_expect_100_continue_is_answered_and_not_passed_on(client: Client, node: Upstream) -> None:
    client.send(request("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST"))
    assert client.read_head()[0] == 100
    client.send(b"abc")
    assert client.read().body == b"abc"
    assert node.requests[-1].one("Expect") is None


def test_bodies_of_any_size_pass_both_ways(client: Client) -> None:
    body = random.Random(1).randbytes(3_000_000)
    assert client.post(body, "/echo").body == body
    assert client.get("/big").body == b"z" * 3_000_000
    chunks = b"".join(b"%x\r\n%b\r\n" % (100_000, body[at : at + 100_000]) for at in range(0, 3_000_000, 100_000))
    client.send(request("/echo", "Transfer-Encoding: chunked", method="PUT") + chunks + b"0\r\n\r\n")
    assert client.read().body == body


def test_bytes_behind_an_answer_are_nobodys(client: Client, node: Upstream) -> None:
    assert client.get("/").body == b"node\n"
    assert client.get("/extra").body == b"ok"
    spoilt = node.requests[-1].connection
    assert client.get("/").body == b"node\n"
    assert node.requests[-1].connection != spoilt


def test_a_designated_route_carries_its_epoch(node: Upstream) -> None:
    route = Route("ping", 0, Match(path="/arvados/v1/nodes/{uuid}/ping"), designated="dns")
    with Upstream(name="other") as other:
        snapshot = snapshot_of(
            node.port, other.port, routes=(route,), designations=(Designation("dns", ("n1",), "n1", 7),)
        )
        with running(snapshot) as worker, Client(worker.connect()) as client:
            for spelling in (
                "/arvados/v1/nodes/x/ping",
                "/arvados//v1/nodes/x/p%69ng/",
                "/arvados/v1/./nodes/x/ping.json?a=b",
            ):
                assert client.get(spelling, "X-Arv-Designation: dns;epoch=1").body == b"other\n"
                assert other.requests[-1].all("X-Arv-Designation") == ["dns;epoch=7"]
                assert other.requests[-1].target == spelling
            client.get("/x")
            (got,) = [item for item in node.requests + other.requests if item.target == "/x"]
            assert not got.all("X-Arv-Designation")


def test_an_early_answer_ends_the_connection(worker: Worker) -> None:
    def early(_: Request) -> bytes:
        return answer(b"no", 403)

    early.early = True  # type: ignore[attr-defined]
    with Upstream(early) as node, running(snapshot_of(node.port)) as other, Client(other.connect()) as client:
        client.send(request("/", "Content-Length: 100000", method="POST") + b"x" * 10)
        found = client.read()
        assert (found.status, found.one("Connection")) == (403, "close")


def test_the_selectors_fallback_serves(node: Upstream) -> None:
    with running(snapshot_of(node.port), env={"force_selectors": True}) as worker, Client(worker.connect()) as client:
        body = b"x" * 2_000_000
        assert client.post(body, "/echo").body == body
        assert client.get("/slow-chunks").body == b"ab"


def test_two_listeners_and_a_unix_socket(node: Upstream, tmp_path: object) -> None:
    listeners = (Listener(0, "127.0.0.1:0"), Listener(3, f"unix:{tmp_path}/in.sock"))
    with running(replace(snapshot_of(node.port), listeners=listeners)) as worker:
        for slot in (0, 3):
            with Client(worker.connect(slot=slot)) as client:
                assert client.get("/").status == 200
