"""Response heads of nodes."""

import pytest

from balancer.core.http1 import FAST_RESPONSE, INCOMPLETE, P_LENGTH, Refusal, ResponseHead, parse_response


def head(data: bytes, method: bytes = b"GET") -> ResponseHead:
    parsed = parse_response(data, method)
    assert isinstance(parsed, ResponseHead), parsed
    return parsed


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 100 Go\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"hello",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000,
    ],
)
def test_a_malformed_answer_is_refused(data: bytes) -> None:
    parsed = parse_response(data, b"GET")
    assert isinstance(parsed, Refusal)
    assert parsed.status == 502
    assert FAST_RESPONSE.match(data) is None


def test_framing_by_method_and_status() -> None:
    assert head(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HEAD").content_length == 0
    assert head(b"HTTP/1.1 304 NM\r\nContent-Length: 9\r\n\r\n").content_length == 0
    assert head(b"HTTP/1.1 200 OK\r\n\r\n").content_length is None
    assert not head(b"HTTP/1.1 200 OK\r\n\r\n").keep_alive
    assert head(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 9\r\n\r\n").content_length == 9
    both = head(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (both.chunked, both.drop_length, both.keep_alive) == (True, True, False)
    assert head(b"HTTP/1.1 101 Go\r\nUpgrade: ssh\r\nConnection: upgrade\r\n\r\n").upgrade == b"ssh"


def test_a_head_cut_anywhere_is_incomplete() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    assert all(parse_response(data[:cut], b"GET") is INCOMPLETE for cut in range(len(data)))
    assert parse_response(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 2, b"GET") is INCOMPLETE


def test_the_fast_path_leaves_what_has_other_framing() -> None:
    for line in (b"HTTP/1.1 204 No", b"HTTP/1.1 304 NM", b"HTTP/1.1 100 Go", b"HTTP/1.1 101 Go", b"HTTP/1.0 200 OK"):
        assert FAST_RESPONSE.match(line + b"\r\nA: b\r\n\r\n") is None
    found = FAST_RESPONSE.match(b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\n")
    assert found is not None
    assert found[P_LENGTH] == b"12"
