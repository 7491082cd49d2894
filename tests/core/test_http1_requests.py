"""Request heads: the fast path takes a subset of what the slow path takes, and both read it alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.http1 import (
    INCOMPLETE,
    R_CONNECTION_VALUE,
    R_HOST,
    R_ID_VALUE,
    R_LENGTH,
    R_METHOD,
    R_TARGET,
    Refusal,
    RequestHead,
    fast_request,
    parse_request,
)
from balancer.model import Limits

FAST = fast_request(100).match
LIMITS = Limits()
GET = b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"


def head(data: bytes, limits: Limits = LIMITS) -> RequestHead:
    parsed = parse_request(data, limits)
    assert isinstance(parsed, RequestHead), parsed
    return parsed


def status(data: bytes, limits: Limits = LIMITS) -> int:
    parsed = parse_request(data, limits)
    assert isinstance(parsed, Refusal), parsed
    return parsed.status


def request(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a.test\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(item + b"\r\n" for item in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(b"Content-Length: 1", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"), 400),
        (request(b"Content-Length: 1", b"Content-Length: 1"), 400),
        (request(b"Content-Length: +1"), 400),
        (request(b"Content-Length: 1, 1"), 400),
        (request(b"Content-Length: " + b"9" * 19), 400),
        (request(b"Content-Length: 134217729", line=b"POST / HTTP/1.1"), 413),
        (request(b"Transfer-Encoding: gzip, chunked"), 501),
        (request(b"Transfer-Encoding: chunked, gzip"), 400),
        (request(b"Transfer-Encoding: ,chunked"), 400),
        (request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"), 400),
        (request(b" folded"), 400),
        (request(b"A: b", b" folded"), 400),
        (request(b"A : b"), 400),
        (request(b"A: b\x01"), 400),
        (request(host=b""), 400),
        (request(b"Host: a.test"), 400),
        (request(host=b"Host: a.test:65536\r\n"), 400),
        (request(line=b"GET http://b.test/ HTTP/1.1"), 400),
        (request(line=b"GET ftp://a.test/ HTTP/1.1"), 400),
        (request(line=b"GET /#x HTTP/1.1"), 400),
        (request(line=b"GET /%zz HTTP/1.1"), 400),
        (request(line=b"GET /%00 HTTP/1.1"), 400),
        (request(line=b"GET * HTTP/1.1"), 400),
        (request(line=b"get / HTTP/1.1"), 501),
        (request(line=b"TRACE / HTTP/1.1"), 405),
        (request(line=b"GET / HTTP/2.0"), 505),
        (request(line=b"GET  / HTTP/1.1"), 400),
        (request(b"Expect: miracles"), 417),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /\r\n", 400),
        (b"\x16\x03\x01", 400),
        (b"GET /" + b"a" * 9000, 414),
        (request(*[b"A: b"] * 101), 431),
        (request(b"A: " + b"b" * 8193), 431),
        (request(b"Connection: upgrade", b"Upgrade: websocket"), 400),
    ],
)
def test_a_malformed_request_is_refused(data: bytes, expected: int) -> None:
    assert status(data) == expected
    assert FAST(data) is None or expected in (413, 400, 431)


def test_limits_hold_at_their_exact_value() -> None:
    assert head(request(*[b"A: b"] * 99)).value(b"a") == b"b"
    assert head(b"GET /" + b"a" * 8189 + b" HTTP/1.1\r\nHost: a\r\n\r\n").target == b"/" + b"a" * 8189
    assert status(b"GET /" + b"a" * 8190 + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    assert head(request(b"A: " + b"b" * 8189)).value(b"a") == b"b" * 8189
    small = Limits(header_bytes=100)
    filler = b"A: " + b"b" * (100 - len(request()) - 5)
    assert len(request(filler)) == 100
    assert head(request(filler), small).length == 100
    assert status(request(filler + b"b"), small) == 431


def test_the_absolute_form_becomes_the_origin_form() -> None:
    parsed = head(request(line=b"GET http://A.test:80/p?q HTTP/1.1"))
    assert (parsed.target, parsed.host) == (b"/p?q", b"a.test")
    assert head(request(line=b"OPTIONS http://a.test HTTP/1.1")).target == b"*"


def test_an_upgrade_needs_connection_and_an_allowed_token() -> None:
    assert head(request(b"Connection: Upgrade", b"Upgrade: ssh", line=b"POST / HTTP/1.1")).upgrade == b"ssh"
    assert not head(request(b"Upgrade: ssh")).upgrade
    assert not head(request(b"Connection: upgrade", b"Upgrade: h2c")).upgrade


@given(cut=st.integers(0, len(GET) - 1))
def test_a_head_cut_anywhere_is_incomplete(cut: int) -> None:
    assert parse_request(GET[:cut], LIMITS) is INCOMPLETE


names = st.sampled_from(
    b"Host Content-Length Connection X-Request-Id User-Agent Accept Te Via Upgrade Cookie Expect X-Real-Ip "
    b"transfer-encoding CONTENT-LENGTH x-request-id user-agent Keep-Alive Pragma X_y A.b".split()
)
values = st.sampled_from([b"a.test", b"5", b"keep-alive", b"close", b"chunked", b"", b"x\x80", b" 7 ", b"a,b", b"\x7f"])
separators = st.sampled_from([b": ", b":", b" :", b":\t"])
lines = st.lists(st.tuples(names, separators, values).map(b"".join), max_size=6)
targets = st.text('/ab%2Fg#?. {"é', max_size=6).map(lambda text: b"/" + text.encode())
methods = st.sampled_from([b"GET", b"POST", b"HEAD", b"get", b"DELETE"])


@given(method=methods, target=targets, fields=lines)
def test_what_the_fast_path_takes_the_slow_path_reads_alike(method: bytes, target: bytes, fields: list[bytes]) -> None:
    data = request(*fields, line=b"%b %b HTTP/1.1" % (method, target))
    found = FAST(data)
    slow = parse_request(data, LIMITS)
    if found is None or not found[R_HOST]:
        return
    assert isinstance(slow, RequestHead), slow
    assert (found[R_METHOD], found[R_TARGET], found[R_HOST]) == (slow.method, slow.target, slow.host)
    assert slow.content_length == (None if found[R_LENGTH] is None else int(found[R_LENGTH]))
    assert slow.keep_alive == (found[R_CONNECTION_VALUE] != b"close")
    assert slow.value(b"x-request-id") == found[R_ID_VALUE]
    assert not slow.nominated
    assert not slow.chunked
    assert not slow.upgrade
