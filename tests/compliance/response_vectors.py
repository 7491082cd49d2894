"""What nodes may answer, and what becomes of it: the same strictness as towards clients, seen from the other side."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """Bytes that a node sends to one request, and what follows.

    status, body: what the client gets. reusable: the node's connection may carry another exchange.
    closes: the node closes after `sent`. interim: statuses of 1xx answers that the client sees before.
    early: the node sends it before it has read the request's body.
    """

    name: str
    sent: bytes
    status: int
    body: bytes
    reusable: bool
    reason: str
    method: bytes = b"GET"
    closes: bool = False
    interim: tuple[int, ...] = ()
    early: bool = False


def ok(*fields: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response; `fields` are whole lines without CRLF."""
    return b"\r\n".join((line, *fields, b"", b"")) + body


HELLO = b"5\r\nhello\r\n0\r\n\r\n"


def good(
    name: str, sent: bytes, body: bytes, reason: str, *, reusable: bool = True, closes: bool = False
) -> NodeAnswer:
    return NodeAnswer(name, sent, 200, body, reusable, reason, closes=closes)


def broken(name: str, sent: bytes, reason: str, *, closes: bool = False, method: bytes = b"GET") -> NodeAnswer:
    return NodeAnswer(name, sent, 502, b"", False, reason, method, closes=closes)


ANSWERS = (
    # --- baseline
    good("ok-cl", ok(b"Content-Length: 5", body=b"hello"), b"hello", "baseline"),
    good("ok-chunked", ok(b"Transfer-Encoding: chunked", body=HELLO), b"hello", "baseline"),
    good("ok-until-close", ok(body=b"hello"), b"hello", "ended by closing (6.3)", reusable=False, closes=True),
    good("ok-no-reason", ok(b"Content-Length: 0", line=b"HTTP/1.1 200 "), b"", "an empty reason is one (4)"),
    good(
        "ok-close", ok(b"Content-Length: 0", b"Connection: close"), b"", "asked for (9.6)", reusable=False, closes=True
    ),
    good(
        "ok-10", ok(b"Content-Length: 0", line=b"HTTP/1.0 200 OK"), b"", "not kept (9.3)", reusable=False, closes=True
    ),
    # --- framing
    broken(
        "cl-differ", ok(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), "cannot be recovered from (6.3)"
    ),
    broken("cl-list", ok(b"Content-Length: 5, 6", body=b"hello"), "cannot be recovered from (6.3)"),
    broken("cl-plus", ok(b"Content-Length: +5", body=b"hello"), "1*DIGIT"),
    good(
        "cl-same-twice",
        ok(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
        b"hello",
        "one length, said twice (8.6)",
    ),
    good("cl-leading-zero", ok(b"Content-Length: 005", body=b"hello"), b"hello", "valid 1*DIGIT, passed on canonical"),
    good(
        "cl+te",
        ok(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=HELLO),
        b"hello",
        "the length is dropped and the connection not used again (6.1, 6.3)",
        reusable=False,
    ),
    broken("te-gzip", ok(b"Transfer-Encoding: gzip", body=b"x", line=b"HTTP/1.1 200 OK"), "not ended by chunked"),
    broken("te-gzip-chunked", ok(b"Transfer-Encoding: gzip, chunked", body=HELLO), "nobody asked for it"),
    broken("te-in-10", ok(b"Transfer-Encoding: chunked", body=HELLO, line=b"HTTP/1.0 200 OK"), "faulty framing (6.1)"),
    good(
        "body-after-cl",
        ok(b"Content-Length: 5", body=b"helloHTTP/1.1 200 OK\r\n\r\n"),
        b"hello",
        "what comes unasked reaches nobody",
        reusable=False,
    ),
    good(
        "body-after-chunks",
        ok(b"Transfer-Encoding: chunked", body=HELLO + b"extra"),
        b"hello",
        "what comes unasked reaches nobody",
        reusable=False,
    ),
    broken(
        "chunk-bad-size",
        ok(b"Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"),
        "held whole, so it is a 502",
    ),
    broken("chunk-bare-lf", ok(b"Transfer-Encoding: chunked", body=b"5\nhello\n0\n\n"), "CRLF only"),
    broken("cl-short", ok(b"Content-Length: 10", body=b"hello"), "held whole, so it is a 502", closes=True),
    broken(
        "chunk-short", ok(b"Transfer-Encoding: chunked", body=b"5\r\nhel"), "held whole, so it is a 502", closes=True
    ),
    # --- statuses that have no body
    NodeAnswer("204-cl0", ok(b"Content-Length: 0", line=b"HTTP/1.1 204 No"), 204, b"", True, "harmless, and dropped"),
    broken(
        "204-body", ok(b"Content-Length: 5", body=b"hello", line=b"HTTP/1.1 204 No Content"), "no body in 204 (8.6)"
    ),
    broken(
        "204-te", ok(b"Transfer-Encoding: chunked", body=HELLO, line=b"HTTP/1.1 204 No Content"), "no body in 204 (6.1)"
    ),
    NodeAnswer(
        "304-cl",
        ok(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified"),
        304,
        b"",
        True,
        "the length of the 200 (8.6)",
    ),
    NodeAnswer("head-cl", ok(b"Content-Length: 5"), 200, b"", True, "the length of the GET (9.3.2)", b"HEAD"),
    NodeAnswer("head-chunked", ok(b"Transfer-Encoding: chunked"), 200, b"", True, "no body for HEAD (6.3)", b"HEAD"),
    broken("100-body", ok(b"Content-Length: 5", body=b"hello", line=b"HTTP/1.1 100 Continue"), "no body in 1xx (8.6)"),
    NodeAnswer(
        "103-first",
        ok(b"Link: </a>; rel=preload", line=b"HTTP/1.1 103 Early Hints") + ok(b"Content-Length: 5", body=b"hello"),
        200,
        b"hello",
        True,
        "passed on, and then the final one (15.2)",
        interim=(103,),
    ),
    broken(
        "101-unasked", ok(b"Upgrade: websocket", b"Connection: upgrade", line=b"HTTP/1.1 101 Go"), "nobody asked (7.8)"
    ),
    # --- heads
    broken("09", b"hello\n", "HTTP/0.9", closes=True),
    broken("nothing", b"", "closed without a byte, and no other node", closes=True),
    broken("status-2-digits", ok(b"Content-Length: 0", line=b"HTTP/1.1 20 OK"), "three digits (4)"),
    broken("status-4-digits", ok(b"Content-Length: 0", line=b"HTTP/1.1 2000 OK"), "three digits (4)"),
    broken("status-sign", ok(b"Content-Length: 0", line=b"HTTP/1.1 +20 OK"), "three digits (4)"),
    broken("status-999", ok(b"Content-Length: 0", line=b"HTTP/1.1 999 Odd"), "100 to 599 (15)"),
    broken("http2", ok(b"Content-Length: 0", line=b"HTTP/2.0 200 OK"), "version"),
    broken("eol-lf", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "CRLF only"),
    broken("hdr-obsfold", ok(b"X-A: a\r\n b", b"Content-Length: 0"), "no line folding (5.2)"),
    broken("hdr-nul", ok(b"X-A: a\x00b", b"Content-Length: 0"), "no control characters (5.5)"),
    broken("hdr-name-space", ok(b"X-A : a", b"Content-Length: 0"), "smuggling by the next hop (5.1)"),
    broken("hdr-no-colon", ok(b"X-A", b"Content-Length: 0"), "a field has a colon"),
    broken("hdr-200k", ok(b"X-A: " + b"a" * 200_000, b"Content-Length: 0"), "over the limit for heads"),
    broken("half-head", b"HTTP/1.1 200 OK\r\nContent-Le", "cut inside the head", closes=True),
    # --- order
    NodeAnswer(
        "early-413",
        ok(b"Content-Length: 0", b"Connection: close", line=b"HTTP/1.1 413 Too Large"),
        413,
        b"",
        False,
        "before the body was sent: passed on, neither side used again",
        b"POST",
        early=True,
    ),
)
