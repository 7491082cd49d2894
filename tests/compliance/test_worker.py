"""Every vector through a real worker to a recording node: one answer, a fate, nothing malformed behind it."""

import json
import re
import time

import pytest

from tests.compliance.conftest import Front
from tests.compliance.conversation import Conversation, talking
from tests.compliance.recorder import OK, Reply, Request
from tests.compliance.request_vectors import NEIGHBOURS, VECTORS
from tests.compliance.response_vectors import ANSWERS, NodeAnswer
from tests.compliance.test_parser import cuts
from tests.compliance.vectors import Fate, Reaches, Vector

ALL = (*VECTORS, *NEIGHBOURS)
PLAIN = b"GET /v/after HTTP/1.1\r\nHost: a.test\r\n\r\n"
# Fields that are for one hop, or would be read as another field: never at a node, whatever was sent.
NEVER_AT_A_NODE = (b"keep-alive", b"proxy-connection", b"http2-settings", b"transfer_encoding", b"trailer")
REQUEST_ID = re.compile(rb"req-[0-9a-z]{20}")


@pytest.mark.parametrize("vector", ALL, ids=[vector.name for vector in ALL])
def test_a_vector_gets_one_answer_and_reaches_a_node_clean_or_not_at_all(front: Front, vector: Vector) -> None:
    for how in ("whole", "bytes", "random"):
        front.begin()
        with talking(front.address) as client:
            talk(client, vector, how)
            check_answers(client, vector)
            front.recorder.settle(len(vector.reaches))
            check_node(front, vector)
            check_fate(client, vector)
        assert front.recorder.objections == []


def talk(client: Conversation, vector: Vector, how: str) -> None:
    client.send(cuts(vector.sent, how))
    if vector.after_continue:
        client.read(until_interim=1)
        assert client.interim == [100]
        client.send(cuts(vector.after_continue, how))
    client.read(until_answers=len(vector.answers))


def check_answers(client: Conversation, vector: Vector) -> None:
    assert tuple(answer.status for answer in client.answers) == vector.answers, client.raw[:500]
    for answer in client.answers:
        assert answer.value(b"content-length") in (None, b"%d" % len(answer.body))
        assert REQUEST_ID.fullmatch(answer.value(b"x-request-id") or b"")
        assert answer.value(b"transfer-encoding") is None or answer.value(b"content-length") is None
        if answer.status >= 400:
            assert answer.value(b"content-length") is not None
            assert (answer.value(b"connection") or b"").lower() == b"close"


def check_fate(client: Conversation, vector: Vector) -> None:
    if vector.fate is Fate.CLOSE:
        client.read()
        assert client.closed
        assert not client.reset, "the close may have destroyed the answer on its way"
        assert len(client.answers) == len(vector.answers)
        return
    client.send([PLAIN])
    client.read(until_answers=len(vector.answers) + 1)
    assert [answer.status for answer in client.answers[len(vector.answers) :]] == [200]


def check_node(front: Front, vector: Vector) -> None:
    requests = front.recorder.requests
    assert len(requests) == len(vector.reaches)
    for request, reaches in zip(requests, vector.reaches, strict=True):
        check_request(request, reaches, vector)


def check_request(request: Request, reaches: Reaches, vector: Vector) -> None:
    own = vector.sent.lstrip(b"\r\n").split(b" ")[1].removeprefix(b"http://a.test")
    assert request.target == (reaches.target or own)
    assert reaches.method in (None, request.method)
    assert request.body == reaches.body
    assert len(request.values(b"host")) == len(request.values(b"x-request-id")) == 1
    assert len(request.values(b"content-length")) + len(request.values(b"transfer-encoding")) <= 1
    for name, value in reaches.fields:
        assert request.values(name) == [value]
    for name in (*reaches.absent, *NEVER_AT_A_NODE):
        assert request.values(name) == []
    assert all(value == b"trailers" for value in request.values(b"te"))


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer.name for answer in ANSWERS])
def test_a_nodes_answer_reaches_the_client_clean_or_as_a_502(front: Front, answer: NodeAnswer) -> None:
    front.begin(Reply(answer.sent, answer.closes, answer.early))
    with talking(front.address) as client:
        length = b"Content-Length: 1000000\r\n" if answer.early else b""
        client.send([answer.method + b" /v/node HTTP/1.1\r\nHost: a.test\r\n" + length + b"\r\n"])
        if answer.method == b"HEAD":
            check_head(client, answer)
        else:
            client.read(until_answers=1)
            assert [found.status for found in client.answers] == [answer.status], client.raw[:500]
            assert tuple(client.interim) == answer.interim
            if answer.status != 502:
                assert client.answers[0].body == answer.body
            if answer.body:
                assert client.answers[0].value(b"content-length") in (None, b"%d" % len(answer.body))
    check_reuse(front, answer)


def check_head(client: Conversation, answer: NodeAnswer) -> None:
    """The judge cannot know that it was a HEAD: look at the bytes."""
    client.read(until_answers=1, patience_s=0.3)
    head, _, rest = client.raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % answer.status)
    assert rest == b""


def check_reuse(front: Front, answer: NodeAnswer) -> None:
    """Another request goes over the same connection or over a new one."""
    used = [connection for connection in front.recorder.connections if connection.requests or connection.raw]
    front.recorder.reply = Reply(OK)
    front.begin()
    with talking(front.address) as client:
        client.send([PLAIN])
        client.read(until_answers=1)
        assert [found.status for found in client.answers] == [200]
    front.recorder.settle(1)
    again = [connection for connection in front.recorder.connections if connection.requests]
    assert (again[-1] in used) is answer.reusable


def test_the_log_has_one_clean_line_for_each(front: Front) -> None:
    front.begin()
    with talking(front.address) as client:
        client.send([b'GET /v/"%7f?api_token=SECRETSECRET HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a"\\\xff\r\n\r\n'])
        client.read(until_answers=1)
    front.recorder.settle(1)
    for line in lines_with(front, "%7f"):
        assert isinstance(json.loads(line), dict)
        assert line.isprintable()
        assert "SECRETSECRET" not in line


def lines_with(front: Front, text: str) -> list[str]:
    """All lines of the log, once one of them has `text`: the worker writes them in batches."""
    deadline = time.monotonic() + 20
    while True:
        lines = front.log.read_text("latin-1").splitlines() if front.log.exists() else []
        if any(text in line for line in lines):
            return lines
        assert time.monotonic() < deadline, f"no log line with {text}"
        time.sleep(0.02)
