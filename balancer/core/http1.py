"""HTTP/1.1 message heads and chunked framing, judged strictly and once (RFC 9110, RFC 9112).

Two ways lead through a head. The *fast path* is one regular expression that is parser and check in one pass; it takes
a strict subset (the ordinary heads) and never refuses. Everything that it does not take goes the *slow path*, field by
field, which is the only one that refuses. Tests hold both to the same answers.

Names are compared in lower case; values are bytes and are never decoded (RFC 9110 section 5.5).
"""

import re
from dataclasses import replace
from typing import Final

from balancer.core.chunked import ChunkFollower
from balancer.core.message import (
    BARE,
    FIELD,
    INCOMPLETE,
    NAME,
    TEXT,
    TOKEN,
    Field,
    Incomplete,
    Refusal,
    RequestHead,
    ResponseHead,
)
from balancer.model import Forwarding, Limits

__all__ = [
    "INCOMPLETE",
    "ChunkFollower",
    "Field",
    "Incomplete",
    "Refusal",
    "RequestHead",
    "ResponseHead",
    "parse_request",
    "parse_response",
]

RESPONSE_HEAD_BYTES = 64 << 10  # a node's head may be larger than a client's: cookies, policies, links

# --- grammar -------------------------------------------------------------------------------------------------

_TARGET = rb"(?:[!\"$&-~]++|%(?!00)[0-9A-Fa-f]{2})*+"  # visible, no fragment, percent-encodings whole and not NUL

METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE PATCH OPTIONS CONNECT TRACE "
    b"COPY LOCK MKCOL MOVE PROPFIND PROPPATCH REPORT SEARCH UNLOCK LINK UNLINK PURGE QUERY".split()
)
_NOT_FORWARDED = frozenset((b"CONNECT", b"TRACE"))
_NO_BODY_IN_1_0 = frozenset((b"GET", b"HEAD", b"DELETE"))

_REQUEST_LINE = re.compile(rb"(" + NAME + rb"+) ([^\x00-\x20\x7f-\xff]+) HTTP/([0-9])\.([0-9])\Z")
_TARGET_OK = re.compile(_TARGET + rb"\Z")
_ABSOLUTE = re.compile(rb"(?i:(https?))://([^/?#]*)(.*)\Z", re.DOTALL)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: " + TEXT + rb"*)?\Z")

# --- the fast path: one pass, parser and check -------------------------------------------------------------------
# Alternatives are disjoint by their first letter and possessive inside, so a head that does not match costs linear
# time (overlapping ones ran for minutes on 100 lines). The outer loop is not possessive: CPython 3.11 has a bug there
# with groups inside ("The span of capturing group is wrong"). Names that mean something to us and are not captured
# are excluded by look-ahead, in any case; such heads go the slow path.
_ANY_LINE = rb"[A-Za-z0-9-]*+:" + TEXT + rb"*+\r\n"
_REQUEST_LINES = (
    rb"(?:"
    rb"[ABDGIJLMNOQRSWYZabdgijlmnoqrswyz]"
    + _ANY_LINE
    + rb"|[Hh](?(3)(?!))(?i:ost): ?([A-Za-z0-9._-]++(?::[0-9]{1,4})?)\r\n"
    rb"|[Uu](?:(?(4)(?!))ser-[Aa]gent: ?(" + TEXT + rb"*+)\r\n|(?!(?i:pgrade|ser-agent):)" + _ANY_LINE + rb")"
    rb"|[Cc](?:(?(5)(?!))(onnection: (keep-alive|close)\r\n)"
    rb"|(?(7)(?!))ontent-[Ll]ength: (0|[1-9][0-9]{0,14})\r\n"
    rb"|(?!(?i:onnection|ontent-length):)" + _ANY_LINE + rb")"
    rb"|[Xx]-(?:(?(8)(?!))([Rr]equest-[Ii]d: ([A-Za-z0-9._~+/=-]{1,1024}+)\r\n)"
    rb"|(?!(?i:request-id|forwarded|real-ip|arv-|external-client))" + _ANY_LINE + rb")"
    rb"|[EFKPTVefkptv](?!(?i:xpect|orwarded|eep-alive|roxy-connection|e|ransfer-encoding|railer|ia):)"
    + _ANY_LINE
    + rb")"
)
# Groups: 1 method, 2 target, 3 host, 4 user agent, 5 the Connection line but its first letter, 6 its value,
# 7 content length, 8 the X-Request-Id line after "X-", 9 its value.
R_METHOD, R_TARGET, R_HOST, R_AGENT, R_CONNECTION, R_CONNECTION_VALUE, R_LENGTH, R_ID, R_ID_VALUE = range(1, 10)


def fast_request(header_count: int) -> "re.Pattern[bytes]":
    """Return the fast path for requests of at most `header_count` fields.

    The caller still has to check: Host is there, and the lengths of head, target, field and body.
    """
    return re.compile(
        rb"(GET|POST|PUT|HEAD|DELETE|PATCH|OPTIONS) (/"
        + _TARGET
        + rb") HTTP/1\.1\r\n"
        + _REQUEST_LINES
        + rb"{1,%d}\r\n" % header_count
    )


_RESPONSE_LINES = (
    rb"(?:"
    rb"[ABDEFGHIJLMNOQRSVWYZabdefghijlmnoqrsvwyz]"
    + _ANY_LINE
    + rb"|[Cc](?:(?(2)(?!))(onnection: (keep-alive|close)\r\n)"
    rb"|(?(4)(?!))ontent-[Ll]ength: (0|[1-9][0-9]{0,14})\r\n"
    rb"|(?!(?i:onnection|ontent-length):)" + _ANY_LINE + rb")"
    rb"|[Xx]-(?:(?(5)(?!))([Rr]equest-[Ii]d: ([!-~]++)\r\n)"
    rb"|(?!(?i:request-id|arv-))" + _ANY_LINE + rb")"
    rb"|[Tt](?:(?(7)(?!))(ransfer-[Ee]ncoding: chunked\r\n)|(?!(?i:e|railer|ransfer-encoding):)" + _ANY_LINE + rb")"
    rb"|[KPUkpu](?!(?i:eep-alive|roxy-connection|pgrade):)" + _ANY_LINE + rb")"
)
# Groups: 1 status, 2 the Connection line but its first letter, 3 its value, 4 content length, 5 the X-Request-Id line
# after "X-", 6 its value, 7 the chunked line. 1xx, 204 and 304 go the slow path: their framing differs.
FAST_RESPONSE: Final = re.compile(
    rb"HTTP/1\.1 ((?!204|304)[2-5][0-9]{2}) " + TEXT + rb"*+\r\n" + _RESPONSE_LINES + rb"{1,100}\r\n"
)
P_STATUS, P_CONNECTION, P_CONNECTION_VALUE, P_LENGTH, P_ID, P_ID_VALUE, P_CHUNKED = range(1, 8)

# --- requests, slow path -------------------------------------------------------------------------------------------


def parse_request(
    data: bytes, limits: Limits, forwarding: Forwarding | None = None
) -> RequestHead | Incomplete | Refusal:
    """Return the request head at the start of `data`, INCOMPLETE, or the refusal.

    `data` holds the bytes received so far from the start of a message; one empty line before it is skipped
    (RFC 9112 section 2.2). A refusal comes as early as the bytes prove it.
    """
    start = 2 if data[:2] == b"\r\n" else 0
    end = data.find(b"\r\n\r\n", start, start + limits.header_bytes)
    if end < 0:
        return _unfinished(data, start, limits)
    lines = data[start:end].split(b"\r\n")
    parsed = _request_line(lines[0], limits)
    if isinstance(parsed, Refusal):
        return parsed
    fields = _fields(lines[1:], limits.header_count, limits.header_field_bytes)
    if isinstance(fields, Refusal):
        return fields
    method, target, minor = parsed
    head = RequestHead(method, target, minor, b"", fields, end + 4)
    judged = _judge_request(head, limits, forwarding or Forwarding())
    return replace(judged, fields=tuple(fields)) if isinstance(judged, Refusal) else judged


def _unfinished(data: bytes, start: int, limits: Limits) -> Incomplete | Refusal:
    """Judge a head whose end has not come yet."""
    line_end = data.find(b"\r\n", start)
    bare = BARE.search(data, start, start + limits.header_bytes)
    if bare is not None:
        return Refusal(400, "a line ends in a bare CR or LF")
    if line_end < 0:
        if data[start : start + 2] == b"\x16\x03":
            return Refusal(400, "TLS on a listener without TLS")
        if data[start : start + 1] and not TOKEN.match(data, start, start + 1) and data[start:] != b"\r":
            return Refusal(400, "the request line does not begin with a method")
        # Method and version are short: what is too long here is the target.
        if len(data) - start > limits.target_bytes + 32:
            return Refusal(414, f"the request-target is longer than {limits.target_bytes} bytes")
        return INCOMPLETE
    parsed = _request_line(data[start:line_end], limits)
    if isinstance(parsed, Refusal):
        return parsed
    if data[line_end + 2 : line_end + 3] in (b" ", b"\t"):
        return Refusal(400, "whitespace before the first field")
    if len(data) - start >= limits.header_bytes:
        return Refusal(431, f"the head is larger than {limits.header_bytes} bytes")
    return INCOMPLETE


def _request_line(line: bytes, limits: Limits) -> tuple[bytes, bytes, int] | Refusal:
    found = _REQUEST_LINE.match(line)
    if found is None:
        if len(line) > limits.target_bytes + 32:
            return Refusal(414, f"the request-target is longer than {limits.target_bytes} bytes")
        return Refusal(400, "the request line is not METHOD SP TARGET SP HTTP/1.x")
    method, target, major, minor = found.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        return Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(target) > limits.target_bytes:
        return Refusal(414, f"the request-target is longer than {limits.target_bytes} bytes")
    if method not in METHODS:
        return Refusal(501, "the method is not known")
    if method in _NOT_FORWARDED:
        return Refusal(405, f"{method.decode()} is not served")
    return method, target, int(minor)


def _fields(lines: list[bytes], count: int, field_bytes: int) -> list[Field] | Refusal:
    fields: list[Field] = []
    for line in lines:
        found = FIELD.match(line)
        if found is None:
            if line[:1] in (b" ", b"\t"):
                return Refusal(400, "a folded header line, or whitespace before the first one")
            if len(line) > field_bytes:
                return Refusal(431, f"a header field is longer than {field_bytes} bytes")
            return Refusal(400, "a header line is not NAME ':' VALUE")
        if len(line) > field_bytes:
            return Refusal(431, f"a header field is longer than {field_bytes} bytes")
        name = found[1]
        fields.append((name.lower(), name, found[2].strip(b" \t")))
    if len(fields) > count:
        return Refusal(431, f"more than {count} header fields")
    return fields


def _judge_request(head: RequestHead, limits: Limits, forwarding: Forwarding) -> RequestHead | Refusal:
    """Apply the rules that need more than one field; the first that fails decides."""
    refusal = _take_host(head) or _take_target(head)
    if refusal is not None:
        return refusal
    framing = _framing(head.fields, head.minor)
    if isinstance(framing, Refusal):
        return framing
    head.content_length, head.chunked = framing
    if head.content_length is not None and head.content_length > limits.body_bytes > 0:
        return Refusal(413, f"the body is larger than {limits.body_bytes} bytes")
    if head.minor == 0 and head.content_length and head.method in _NO_BODY_IN_1_0:
        return Refusal(400, f"{head.method.decode()} with a body in HTTP/1.0")
    _take_connection(head)
    return _take_expect(head) or _take_upgrade(head, forwarding) or head


def _take_host(head: RequestHead) -> Refusal | None:
    """Take Host out of the fields (RFC 9112 section 3.2)."""
    hosts = [value for name, _, value in head.fields if name == b"host"]
    if len(hosts) > 1:
        return Refusal(400, "more than one Host")
    if not hosts:
        return Refusal(400, "Host is missing") if head.minor else None
    if not valid_host(hosts[0]):
        return Refusal(400, "Host is not a name or address with an optional port")
    head.host = hosts[0]
    head.fields = [item for item in head.fields if item[0] != b"host"]
    return None


def valid_host(host: bytes) -> bool:
    """Whether `host` is uri-host [":" port], not empty, port at most 65535."""
    found = _HOST.match(host)
    return found is not None and int(found[1] or 0) <= 65535


def _take_target(head: RequestHead) -> Refusal | None:
    """Check the target and turn the absolute form into the origin form (RFC 9112 section 3.2)."""
    target = head.target
    if target[:1] != b"/":
        if target == b"*":
            return None if head.method == b"OPTIONS" else Refusal(400, "'*' is for OPTIONS only")
        found = _ABSOLUTE.match(target)
        if found is None:
            return Refusal(400, "the request-target is neither a path nor an http URL")
        scheme, authority, rest = found.groups()
        if not valid_host(authority):
            return Refusal(400, "the request-target's authority is not a name or address with an optional port")
        if head.host and _without_default_port(authority, scheme) != _without_default_port(head.host, scheme):
            return Refusal(400, "the request-target and Host name different servers")
        head.host = head.host or authority
        target = rest if rest[:1] == b"/" else b"/" + rest
        if head.method == b"OPTIONS" and not rest:
            target = b"*"
        head.target = target
    if not _TARGET_OK.match(target):
        return Refusal(400, "the request-target holds a fragment, a bad percent-encoding or an encoded NUL")
    return None


def _without_default_port(authority: bytes, scheme: bytes) -> bytes:
    port = b":443" if scheme.lower() == b"https" else b":80"
    return authority.lower().removesuffix(port).removesuffix(b":")


def _framing(fields: list[Field], minor: int) -> tuple[int | None, bool] | Refusal:
    """Return (content length, chunked) of a request (RFC 9112 section 6)."""
    lengths = [value for name, _, value in fields if name == b"content-length"]
    codings = [value for name, _, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths:
            return Refusal(400, "Content-Length together with Transfer-Encoding")
        if minor == 0:
            return Refusal(400, "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1:
            return Refusal(400, "more than one Transfer-Encoding")
        return _coding(codings[0])
    if not lengths:
        return None, False
    if len(lengths) > 1:
        return Refusal(400, "more than one Content-Length")
    if not _LENGTH.match(lengths[0]):
        return Refusal(400, "Content-Length is not a number")
    return int(lengths[0]), False


def _coding(value: bytes) -> tuple[None, bool] | Refusal:
    codings = [part.strip(b" \t") for part in value.lower().split(b",")]
    if codings == [b"chunked"]:
        return None, True
    if codings[-1] == b"chunked" and codings.count(b"chunked") == 1 and all(map(TOKEN.match, codings)):
        return Refusal(501, "a transfer coding other than chunked")
    return Refusal(400, "Transfer-Encoding is not 'chunked'")


def _tokens(fields: list[Field], name: bytes) -> list[bytes]:
    """Return the list items of all fields called `name`, in lower case."""
    return [
        token
        for lower, _, value in fields
        if lower == name
        for part in value.lower().split(b",")
        if (token := part.strip(b" \t"))
    ]


def _take_connection(head: RequestHead) -> None:
    tokens = _tokens(head.fields, b"connection")
    head.keep_alive = b"close" not in tokens if head.minor else b"keep-alive" in tokens and b"close" not in tokens
    head.nominated = frozenset(tokens) - {b"close", b"keep-alive", b"upgrade"}
    head.te_trailers = b"trailers" in _tokens(head.fields, b"te")


def _take_expect(head: RequestHead) -> Refusal | None:
    expected = [value.lower() for name, _, value in head.fields if name == b"expect"]
    if not expected or head.minor == 0:  # an HTTP/1.0 client cannot be sent 1xx (RFC 9110 section 10.1.1)
        return None
    if expected != [b"100-continue"]:
        return Refusal(417, "only 'Expect: 100-continue' is met")
    head.expect_continue = bool(head.chunked or head.content_length)
    return None


def _take_upgrade(head: RequestHead, forwarding: Forwarding) -> Refusal | None:
    """Decide whether the upgrade is passed on; what is not is dropped, and the request is an ordinary one."""
    if head.minor == 0 or head.method not in (b"GET", b"POST") or b"upgrade" not in _tokens(head.fields, b"connection"):
        return None
    allowed = {token.lower().encode() for token in forwarding.upgrade_tokens} - {b"h2c"}
    wanted = _tokens(head.fields, b"upgrade")
    if not wanted or not allowed.issuperset(wanted):
        return None
    if head.chunked or head.content_length:
        return Refusal(400, "an upgrade with a body")
    if b"websocket" in wanted and (head.method != b"GET" or not head.value(b"sec-websocket-key")):
        return Refusal(400, "a WebSocket handshake needs GET and Sec-WebSocket-Key")
    head.upgrade = b", ".join(value for name, _, value in head.fields if name == b"upgrade")
    return None


# --- responses, slow path ------------------------------------------------------------------------------------------


def parse_response(data: bytes, method: bytes) -> ResponseHead | Incomplete | Refusal:
    """Return the response head at the start of `data` to a request of `method`, INCOMPLETE, or the refusal (502)."""
    end = data.find(b"\r\n\r\n", 0, RESPONSE_HEAD_BYTES)
    if end < 0:
        return _unfinished_response(data)
    lines = data[:end].split(b"\r\n")
    found = _STATUS_LINE.match(lines[0])
    if found is None:
        return Refusal(502, "the status line is not HTTP/1.x SP STATUS SP REASON")
    fields = _fields(lines[1:], 500, RESPONSE_HEAD_BYTES)
    if isinstance(fields, Refusal):
        return Refusal(502, fields.reason)
    head = ResponseHead(int(found[2]), lines[0], int(found[1]), fields, end + 4)
    return _judge_response(head, method)


def _unfinished_response(data: bytes) -> Incomplete | Refusal:
    if data[:5] != b"HTTP/"[: len(data)]:
        return Refusal(502, "the answer does not begin with HTTP/")
    if BARE.search(data, 0, RESPONSE_HEAD_BYTES) is not None:
        return Refusal(502, "a line ends in a bare CR or LF")
    if len(data) >= RESPONSE_HEAD_BYTES:
        return Refusal(502, f"the head is larger than {RESPONSE_HEAD_BYTES} bytes")
    return INCOMPLETE


def _judge_response(head: ResponseHead, method: bytes) -> ResponseHead | Refusal:
    """Work out the framing (RFC 9112 section 6.3) and what happens to the connection."""
    tokens = _tokens(head.fields, b"connection")
    keeps = b"close" not in tokens if head.minor else b"keep-alive" in tokens and b"close" not in tokens
    head.nominated = frozenset(tokens) - {b"close", b"keep-alive", b"upgrade"}
    lengths = {value for name, _, value in head.fields if name == b"content-length"}
    codings = [value.lower() for name, _, value in head.fields if name == b"transfer-encoding"]
    refusal = _framing_refusal(head, lengths, codings)
    if refusal is not None:
        return refusal
    head.keep_alive = keeps and not (lengths and codings)
    if head.status < 200 or head.status == 204:
        head.content_length, head.drop_length = 0, True
        if head.status == 101:
            head.upgrade = b", ".join(value for name, _, value in head.fields if name == b"upgrade")
    elif method == b"HEAD" or head.status == 304:
        head.content_length = 0
    elif codings:
        head.chunked, head.drop_length = True, bool(lengths)
    elif lengths:
        head.content_length = int(next(iter(lengths)))
    else:
        head.keep_alive = False
    return head


def _framing_refusal(head: ResponseHead, lengths: set[bytes], codings: list[bytes]) -> Refusal | None:
    if len(lengths) > 1:
        return Refusal(502, "differing Content-Length fields")
    if lengths and not all(map(_LENGTH.match, lengths)):
        return Refusal(502, "Content-Length is not a number")
    if codings and (codings != [b"chunked"] or head.minor == 0):
        return Refusal(502, "Transfer-Encoding is not 'chunked'")
    if (head.status < 200 or head.status == 204) and (codings or lengths - {b"0"}):
        return Refusal(502, f"a {head.status} with a body")
    return None
