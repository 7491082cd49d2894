"""The judges themselves: what a lax proxy would pass on must be noticed, or the other tests here prove nothing."""

import pytest

from tests.compliance.conversation import talking
from tests.compliance.recorder import Reply, recording
from tests.compliance.request_vectors import VECTORS

BY_NAME = {vector.name: vector for vector in VECTORS}


@pytest.mark.parametrize(
    "name", ["cl+te", "hdr-nul", "chunk-lf-size", "te-two-headers", "eol-lf", "trailer-cl", "rl-bad-method"]
)
def test_the_recording_node_objects_to_what_is_malformed(name: str) -> None:
    with recording() as recorder, talking(("127.0.0.1", recorder.port)) as client:
        client.send([BY_NAME[name].sent])
        client.read()
        assert recorder.objections
        assert recorder.requests == []


def test_the_recording_node_takes_what_is_good_and_tells_it_whole() -> None:
    with recording() as recorder, talking(("127.0.0.1", recorder.port)) as client:
        client.send([BY_NAME["ok-chunked"].sent, BY_NAME["pipeline2"].sent])
        client.read(until_answers=3)
        assert recorder.objections == []
        assert [(r.method, r.target, r.body) for r in recorder.requests] == [
            (b"POST", b"/v/ok-chunked", b"hello"),
            (b"GET", b"/v/pipeline2", b""),
            (b"GET", b"/v/pipeline2", b""),
        ]
        assert recorder.requests[0].values(b"host") == [b"a.test"]


def test_the_client_tells_a_clean_end_from_a_reset() -> None:
    with recording() as recorder, talking(("127.0.0.1", recorder.port)) as client:
        recorder.reply = Reply(closes=True)
        client.send([BY_NAME["ok-get"].sent])
        client.read()
        assert (client.closed, client.reset, len(client.answers)) == (True, False, 1)
