"""Every malformed and every odd but good request that we answer for, and how.

`/@` in a request line stands for the vector's own path. The names are those of public comparisons of proxies; the
sections are those of RFC 9110 and RFC 9112 unless another RFC is named.
"""

from tests.compliance.vectors import Fate, Llhttp, Reaches, Vector, own_target

ACCEPTS, REJECTS, WAITS, UPGRADE = Llhttp.ACCEPTS, Llhttp.REJECTS, Llhttp.WAITS, Llhttp.UPGRADE


def get(*fields: bytes, host: bytes | None = b"a.test", line: bytes = b"GET /@ HTTP/1.1") -> bytes:
    """A request head without body; `fields` are whole lines without CRLF."""
    hosts = () if host is None else (b"Host: " + host,)
    return b"\r\n".join((line, *hosts, *fields, b"", b""))


def post(body: bytes, *fields: bytes, line: bytes = b"POST /@ HTTP/1.1") -> bytes:
    """A POST with these fields, which have to say how long the body is."""
    return get(*fields, line=line) + body


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A POST with Transfer-Encoding: chunked and these bytes for a body."""
    return post(body, b"Transfer-Encoding: chunked", *fields)


def _vector(
    name: str,
    sent: bytes,
    answers: tuple[int, ...],
    fate: Fate,
    reaches: tuple[Reaches, ...],
    llhttp: Llhttp,
    reason: str,
    *,
    waits: bool = False,
    after_continue: bytes = b"",
) -> Vector:
    return Vector(
        name, sent.replace(b"/@", own_target(name)), answers, fate, reaches, llhttp, reason, waits, after_continue
    )


def refused(name: str, sent: bytes, status: int, llhttp: Llhttp, reason: str) -> Vector:
    """One answer, the connection closed, nothing whole at a node."""
    return _vector(name, sent, (status,), Fate.CLOSE, (), llhttp, reason)


def forwarded(
    name: str, sent: bytes, reaches: Reaches, llhttp: Llhttp, reason: str, fate: Fate = Fate.KEEP, after: bytes = b""
) -> Vector:
    """Answered by the node; the connection goes on."""
    return _vector(name, sent, (200,), fate, (reaches,), llhttp, reason, after_continue=after)


def late(name: str, sent: bytes, llhttp: Llhttp, reason: str) -> Vector:
    """408 once the body's timeout has passed."""
    return _vector(name, sent, (408,), Fate.CLOSE, (), llhttp, reason, waits=True)


HELLO = b"5\r\nhello\r\n0\r\n\r\n"
PLAIN = Reaches()
BODY = Reaches(body=b"hello")

CL_DIGITS = "Content-Length is 1*DIGIT (8.6)"
CL_UNRECOVERABLE = "differing lengths cannot be recovered from (6.3)"
TE_FINAL = "the final coding of a request has to be chunked (6.3)"
CHUNK_SIZE = "chunk-size is 1*HEXDIG (7.1)"
CHUNK_CRLF = "lines inside chunked framing end in CRLF (7.1)"
TRAILER = "framing, routing and forwarding fields are not allowed in trailers (6.5.1)"
FIELD_NAME = "a field name is a token (5.1)"
FIELD_VALUE = "no control characters in a value (5.5)"
REQUEST_LINE = "METHOD SP TARGET SP HTTP-VERSION, single spaces (3)"
HOST_FORM = "Host is uri-host [':' port], and not empty for http (3.2)"
SERIAL = "a request with neither length has no body; requests are served one by one (6.3, 9.3.2)"
HEADER_LIMITS = "limits: 16 KiB in all, 8 KiB a field, 100 fields (RFC 6585 section 5)"

VECTORS = (
    # --- baseline
    forwarded("ok-get", get(), PLAIN, ACCEPTS, "baseline"),
    forwarded("ok-cl", post(b"hello", b"Content-Length: 5"), BODY, ACCEPTS, "baseline"),
    forwarded("ok-chunked", chunked(HELLO), BODY, ACCEPTS, "baseline"),
    # --- Content-Length
    refused("cl+te", post(HELLO, b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, REJECTS, "smuggling (6.3)"),
    refused("te+cl-order", chunked(HELLO, b"Content-Length: 5"), 400, REJECTS, "smuggling (6.3)"),
    refused(
        "cl-dup-same", post(b"hello", b"Content-Length: 5", b"Content-Length: 5"), 400, REJECTS, "may be refused (8.6)"
    ),
    refused("cl-dup-diff", post(b"hello", b"Content-Length: 5", b"Content-Length: 6"), 400, REJECTS, CL_UNRECOVERABLE),
    refused("cl-list-same", post(b"hello", b"Content-Length: 5, 5"), 400, REJECTS, "may be refused (8.6)"),
    refused("cl-list-diff", post(b"hello", b"Content-Length: 5, 6"), 400, REJECTS, CL_UNRECOVERABLE),
    refused("cl-plus", post(b"hello", b"Content-Length: +5"), 400, REJECTS, CL_DIGITS),
    refused("cl-minus", post(b"hello", b"Content-Length: -5"), 400, REJECTS, CL_DIGITS),
    refused("cl-hex", post(b"hello", b"Content-Length: 0x5"), 400, REJECTS, CL_DIGITS),
    refused("cl-underscore", post(b"hello" * 3, b"Content-Length: 1_5"), 400, REJECTS, CL_DIGITS),
    refused("cl-empty", post(b"hello", b"Content-Length:"), 400, REJECTS, CL_DIGITS),
    refused("cl-trailing-junk", post(b"hello", b"Content-Length: 5x"), 400, REJECTS, CL_DIGITS),
    refused("cl-inner-space", post(b"hello" * 11, b"Content-Length: 5 5"), 400, REJECTS, CL_DIGITS),
    forwarded(
        "cl-leading-zero",
        post(b"abc", b"Content-Length: 003"),
        Reaches(body=b"abc", fields=((b"content-length", b"3"),)),
        ACCEPTS,
        "valid 1*DIGIT, sent on in its canonical form",
    ),
    refused(
        "cl-overflow", post(b"hello", b"Content-Length: 18446744073709551621"), 400, REJECTS, "capped before arithmetic"
    ),
    refused("cl-comma-trailing", post(b"hello", b"Content-Length: 5,"), 400, REJECTS, CL_UNRECOVERABLE),
    # --- Transfer-Encoding
    refused("te-identity", post(HELLO, b"Transfer-Encoding: identity"), 400, REJECTS, TE_FINAL),
    refused(
        "te-gzip-chunked",
        post(HELLO, b"Transfer-Encoding: gzip, chunked"),
        501,
        ACCEPTS,
        "a coding not understood (6.1)",
    ),
    refused("te-chunked-gzip", post(HELLO, b"Transfer-Encoding: chunked, gzip"), 400, REJECTS, TE_FINAL),
    refused("te-chunked-twice", post(HELLO, b"Transfer-Encoding: chunked, chunked"), 400, REJECTS, "not twice (7.1)"),
    refused("te-two-headers", chunked(HELLO, b"Transfer-Encoding: chunked"), 400, REJECTS, "not twice (7.1)"),
    refused("te-two-hdr-identity", chunked(HELLO, b"Transfer-Encoding: identity"), 400, REJECTS, "exactly one field"),
    refused("te-unknown", post(HELLO, b"Transfer-Encoding: foo"), 400, REJECTS, TE_FINAL),
    refused("te-empty", post(HELLO, b"Transfer-Encoding:"), 400, REJECTS, TE_FINAL),
    refused(
        "te-leading-comma", post(HELLO, b"Transfer-Encoding: ,chunked"), 400, ACCEPTS, "read differently by others"
    ),
    refused("te-vtab", post(HELLO, b"Transfer-Encoding: \x0bchunked"), 400, REJECTS, TE_FINAL),
    refused("te-nbsp", post(HELLO, b"Transfer-Encoding: \xa0chunked"), 400, REJECTS, TE_FINAL),
    refused("te-quoted", post(HELLO, b'Transfer-Encoding: "chunked"'), 400, REJECTS, TE_FINAL),
    forwarded("te-case", post(HELLO, b"Transfer-Encoding: cHuNkEd"), BODY, ACCEPTS, "codings have no case (7)"),
    refused("te-param", post(HELLO, b"Transfer-Encoding: chunked;q=1"), 400, REJECTS, TE_FINAL),
    refused(
        "te-http10",
        post(HELLO, b"Transfer-Encoding: chunked", line=b"POST /@ HTTP/1.0"),
        400,
        ACCEPTS,
        "faulty framing in HTTP/1.0 (6.1)",
    ),
    refused(
        "te-name-space", post(HELLO, b"Transfer-Encoding : chunked"), 400, REJECTS, "no space before the colon (5.1)"
    ),
    refused(
        "te-name-tab", post(HELLO, b"Transfer-Encoding\t: chunked"), 400, REJECTS, "no space before the colon (5.1)"
    ),
    refused("te-obsfold", post(HELLO, b"Transfer-Encoding:\r\n chunked"), 400, REJECTS, "no line folding (5.2)"),
    forwarded(
        "te-underscore",
        post(b"hello", b"Transfer_Encoding: chunked", b"Content-Length: 5"),
        Reaches(body=b"hello", absent=(b"transfer_encoding", b"transfer-encoding")),
        ACCEPTS,
        "CGI and Rack take '_' for '-'",
    ),
    # --- chunked framing
    refused("chunk-0x", chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused("chunk-plus", chunked(b"+5\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused("chunk-minus", chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused("chunk-underscore", chunked(b"0_5\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused("chunk-lead-space", chunked(b" 5\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused(
        "chunk-trail-space", chunked(b"5 \r\nhello\r\n0\r\n\r\n"), 400, REJECTS, "no whitespace in the grammar (7.1)"
    ),
    refused("chunk-empty-size", chunked(b"\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused("chunk-junk", chunked(b"zz\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_SIZE),
    refused(
        "chunk-overflow", chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, "capped before arithmetic"
    ),
    refused("chunk-lf-size", chunked(b"5\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-lf-data", chunked(b"5\r\nhello\n0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-cr-only", chunked(b"5\rhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-data-over", chunked(b"5\r\nhelloXX0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    forwarded(
        "chunk-ext-ok", chunked(b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n"), BODY, ACCEPTS, "extensions may be dropped (7.1.1)"
    ),
    refused("chunk-ext-bareLF", chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-ext-bareCR", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-ext-nul", chunked(b"5;a\x00b\r\nhello\r\n0\r\n\r\n"), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-ext-quoteCRLF", chunked(b'5;a="x\r\ny"\r\nhello\r\n0\r\n\r\n'), 400, REJECTS, CHUNK_CRLF),
    refused("chunk-ext-16k", chunked(b"5;" + b"a" * 16384 + b"\r\nhello\r\n0\r\n\r\n"), 400, ACCEPTS, "limit (7.1.1)"),
    # --- trailers
    forwarded(
        "trailer-ok",
        chunked(b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
        Reaches(body=b"hello", absent=(b"x-t",)),
        ACCEPTS,
        "dropped unless agreed upon (6.5.1)",
    ),
    forwarded(
        "trailer-cl",
        chunked(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
        Reaches(body=b"hello", absent=(b"content-length",)),
        REJECTS,
        TRAILER,
    ),
    forwarded(
        "trailer-te",
        chunked(b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BODY,
        REJECTS,
        TRAILER,
    ),
    forwarded(
        "trailer-xff",
        chunked(b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
        Reaches(body=b"hello", fields=((b"x-forwarded-for", b"127.0.0.1"),)),
        ACCEPTS,
        TRAILER,
    ),
    refused(
        "trailer-junk", chunked(b"5\r\nhello\r\n0\r\nno colon\r\n\r\n"), 400, REJECTS, "field syntax applies (7.1.2)"
    ),
    late("last-chunk-no-crlf", chunked(b"5\r\nhello\r\n0\r\n"), WAITS, "neither side is used again"),
    # --- header fields
    refused("hdr-nul", get(b"X-A: a\x00b"), 400, REJECTS, FIELD_VALUE),
    refused("hdr-barecr", get(b"X-A: a\rb"), 400, REJECTS, FIELD_VALUE),
    refused("hdr-ctl", get(b"X-A: a\x01b"), 400, REJECTS, FIELD_VALUE),
    refused("hdr-del", get(b"X-A: a\x7fb"), 400, REJECTS, FIELD_VALUE),
    refused("hdr-obsfold", get(b"X-A: a\r\n b"), 400, REJECTS, "no line folding (5.2)"),
    refused(
        "hdr-obsfold-first", get(host=None, line=b"GET /@ HTTP/1.1\r\n X-A: a\r\nHost: a.test"), 400, REJECTS, "(2.2)"
    ),
    refused("hdr-first-space", get(host=None, line=b"GET /@ HTTP/1.1\r\n Host: a.test"), 400, REJECTS, "(2.2)"),
    refused("hdr-no-colon", get(b"X-A"), 400, REJECTS, FIELD_NAME),
    refused("hdr-empty-name", get(b": a"), 400, REJECTS, FIELD_NAME),
    refused("hdr-name-space", get(b"X A: a"), 400, REJECTS, FIELD_NAME),
    refused("hdr-name-trail-space", get(b"X-A : a"), 400, REJECTS, "no space before the colon (5.1)"),
    refused("hdr-name-ctl", get(b"X-\x01A: a"), 400, REJECTS, FIELD_NAME),
    refused("hdr-name-8bit", get(b"X-\xe9: a"), 400, REJECTS, FIELD_NAME),
    refused("hdr-name-paren", get(b"X(A): a"), 400, REJECTS, FIELD_NAME),
    forwarded(
        "hdr-value-8bit",
        get(b"X-A: \xe9\xff"),
        Reaches(fields=((b"x-a", b"\xe9\xff"),)),
        ACCEPTS,
        "obs-text is opaque (5.5)",
    ),
    forwarded("hdr-underscore", get(b"X_A: a"), Reaches(absent=(b"x_a", b"x-a")), ACCEPTS, "Rack takes '_' for '-'"),
    forwarded("hdr-dot", get(b"X.A: a"), Reaches(absent=(b"x.a", b"x-a")), ACCEPTS, "some servers take '.' for '-'"),
    refused("eol-lf", b"GET /@ HTTP/1.1\nHost: a.test\n\n", 400, REJECTS, "lines end in CRLF (2.2)"),
    refused("eol-cr", b"GET /@ HTTP/1.1\rHost: a.test\r\r", 400, REJECTS, "a bare CR ends nothing (2.2)"),
    refused("eoh-crX", b"GET /@ HTTP/1.1\r\nHost: a.test\r\n\rX", 400, REJECTS, "a bare CR ends nothing (2.2)"),
    refused("hdr-101", get(*(b"X-%d: a" % n for n in range(100))), 431, ACCEPTS, HEADER_LIMITS),
    refused("hdr-1001", get(*(b"X-%d: a" % n for n in range(1000))), 431, ACCEPTS, HEADER_LIMITS),
    refused("hdr-20k", get(b"X-A: " + b"a" * 20_000), 431, ACCEPTS, HEADER_LIMITS),
    refused("hdr-70k", get(b"X-A: " + b"a" * 70_000), 431, ACCEPTS, HEADER_LIMITS),
    # --- Host and absolute targets
    refused("host-missing", get(host=None), 400, ACCEPTS, "HTTP/1.1 has to send it (3.2)"),
    forwarded(
        "host-missing-10",
        get(host=None, line=b"GET /@ HTTP/1.0"),
        Reaches(fields=((b"host", b"localhost"),)),
        ACCEPTS,
        "HTTP/1.0 may leave it out: the configured default",
        Fate.CLOSE,
    ),
    refused("host-dup-same", get(b"Host: a.test"), 400, ACCEPTS, "one Host line (3.2)"),
    refused("host-dup-diff", get(b"Host: b.test"), 400, ACCEPTS, "one Host line (3.2)"),
    refused("host-list", get(host=b"a.test, b.test"), 400, ACCEPTS, HOST_FORM),
    refused("host-empty", get(host=b""), 400, ACCEPTS, HOST_FORM),
    refused("host-userinfo", get(host=b"me@a.test"), 400, ACCEPTS, HOST_FORM),
    refused("host-path", get(host=b"a.test/x"), 400, ACCEPTS, HOST_FORM),
    refused("host-space", get(host=b"a test"), 400, ACCEPTS, HOST_FORM),
    refused("host-badport", get(host=b"a.test:99999"), 400, ACCEPTS, HOST_FORM),
    forwarded(
        "abs-uri-match", get(line=b"GET http://a.test/@ HTTP/1.1"), PLAIN, ACCEPTS, "sent on in origin form (3.2.2)"
    ),
    refused("abs-uri-mismatch", get(line=b"GET http://b.test/@ HTTP/1.1"), 400, ACCEPTS, "two names for one request"),
    refused(
        "abs-uri-nohost", get(host=None, line=b"GET http://a.test/@ HTTP/1.1"), 400, ACCEPTS, "Host is still due (3.2)"
    ),
    refused("abs-uri-ftp", get(line=b"GET ftp://a.test/@ HTTP/1.1"), 400, ACCEPTS, "http and https only"),
    # --- request line
    refused("rl-2spaces", get(line=b"GET  /@ HTTP/1.1"), 400, ACCEPTS, REQUEST_LINE),
    refused("rl-tab", get(line=b"GET\t/@\tHTTP/1.1"), 400, REJECTS, REQUEST_LINE),
    refused("rl-space-in-uri", get(line=b"GET /@ b HTTP/1.1"), 400, REJECTS, REQUEST_LINE),
    refused("rl-nul-uri", get(line=b"GET /@\x00b HTTP/1.1"), 400, REJECTS, REQUEST_LINE),
    refused("rl-8bit-uri", get(line=b"GET /@\xe9 HTTP/1.1"), 400, REJECTS, REQUEST_LINE),
    refused("rl-fragment", get(line=b"GET /@#b HTTP/1.1"), 400, ACCEPTS, "a target has no fragment (3.2)"),
    refused("rl-relative", get(line=b"GET x HTTP/1.1"), 400, REJECTS, REQUEST_LINE),
    refused("rl-star-get", get(line=b"GET * HTTP/1.1"), 400, ACCEPTS, "'*' is for OPTIONS (3.2.4)"),
    refused("rl-09", b"GET /@\r\n\r\n", 400, ACCEPTS, "HTTP/0.9 is refused"),
    refused("rl-http2", get(line=b"GET /@ HTTP/2.0"), 505, ACCEPTS, "HTTP/2 is not spoken here"),
    refused("rl-http12", get(line=b"GET /@ HTTP/1.2"), 505, REJECTS, "1.0 and 1.1 only (2.5 leaves it open)"),
    refused("rl-http1.10", get(line=b"GET /@ HTTP/1.10"), 400, REJECTS, "one digit each (2.3)"),
    refused("rl-http-lower", get(line=b"GET /@ http/1.1"), 400, REJECTS, REQUEST_LINE),
    refused(
        "rl-lower-method", get(line=b"get /@ HTTP/1.1"), 501, REJECTS, "methods have a case; this one is unknown (9.1)"
    ),
    refused("rl-bad-method", get(line=b"G@T /@ HTTP/1.1"), 400, REJECTS, "a method is a token (9.1)"),
    refused("rl-connect", get(line=b"CONNECT a.test:443 HTTP/1.1"), 405, UPGRADE, "no forward proxy"),
    refused("rl-trace", get(line=b"TRACE /@ HTTP/1.1"), 405, ACCEPTS, "credentials are never echoed"),
    forwarded("lead-crlf", b"\r\n" + get(), PLAIN, ACCEPTS, "one empty line is ignored (2.2)"),
    refused("lead-space", b" " + get(), 400, REJECTS, REQUEST_LINE),
    # --- target
    refused("uri-9k", get(line=b"GET /@" + b"a" * 9_000 + b" HTTP/1.1"), 414, ACCEPTS, "limit 8190 (3: at least 8000)"),
    refused("uri-70k", get(line=b"GET /@" + b"a" * 70_000 + b" HTTP/1.1"), 414, ACCEPTS, "limit 8190, and it is named"),
    forwarded(
        "uri-dotdot",
        get(line=b"GET /@/../x/./y HTTP/1.1"),
        Reaches(target=b"/v/uri-dotdot/../x/./y"),
        ACCEPTS,
        "sent on raw; routes are matched on the normalised path",
    ),
    forwarded(
        "uri-enc-slash",
        get(line=b"GET /@%2f..%2Fx HTTP/1.1"),
        Reaches(target=b"/v/uri-enc-slash%2f..%2Fx"),
        ACCEPTS,
        "sent on raw; an encoded slash is data",
    ),
    refused("uri-bad-pct", get(line=b"GET /@%zz HTTP/1.1"), 400, ACCEPTS, "'%' HEXDIG HEXDIG (RFC 3986 section 2.1)"),
    # --- hop by hop
    forwarded(
        "hop-conn-host",
        get(b"Connection: close, Host"),
        Reaches(fields=((b"host", b"a.test"),)),
        ACCEPTS,
        "fields that we answer for are not dropped on demand (7.6.1)",
        Fate.CLOSE,
    ),
    forwarded(
        "hop-conn-xff",
        get(b"X-Forwarded-For: 6.6.6.6", b"X-Own: 1", b"Connection: X-Forwarded-For, X-Own"),
        Reaches(fields=((b"x-forwarded-for", b"127.0.0.1"),), absent=(b"x-own",)),
        ACCEPTS,
        "nominated fields are dropped, but not those that we answer for (7.6.1)",
    ),
    forwarded(
        "hop-keepalive",
        get(b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive"),
        Reaches(absent=(b"keep-alive", b"proxy-connection")),
        ACCEPTS,
        "for this hop only (7.6.1)",
    ),
    forwarded("hop-te-gzip", get(b"TE: gzip", b"Connection: TE"), Reaches(absent=(b"te",)), ACCEPTS, "(10.1.4)"),
    forwarded(
        "hop-upgrade-noconn",
        get(b"Upgrade: websocket"),
        Reaches(absent=(b"upgrade",)),
        ACCEPTS,
        "needs Connection: upgrade (7.8)",
    ),
    forwarded(
        "hop-upgrade-h2c",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        Reaches(absent=(b"upgrade", b"http2-settings")),
        UPGRADE,
        "smuggling by h2c",
    ),
    # --- upgrades and expectations
    refused(
        "ws-no-key",
        get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        400,
        UPGRADE,
        "RFC 6455 section 4.2.1",
    ),
    refused(
        "ws-upgrade-body",
        get(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Content-Length: 5",
        )
        + b"hello",
        400,
        UPGRADE,
        "who reads the body, and who the tunnel?",
    ),
    refused("expect-bad", post(b"hello", b"Content-Length: 5", b"Expect: 200-ok"), 417, ACCEPTS, "(10.1.1)"),
    forwarded(
        "expect-100",
        post(b"", b"Content-Length: 5", b"Expect: 100-continue"),
        Reaches(body=b"hello", absent=(b"expect",)),
        WAITS,
        "answered once a node is chosen (10.1.1)",
        after=b"hello",
    ),
    # --- bodies where they are rare, and several requests at once
    forwarded(
        "get-body-cl",
        post(b"hello", b"Content-Length: 5", line=b"GET /@ HTTP/1.1"),
        Reaches(method=b"GET", body=b"hello"),
        ACCEPTS,
        "never ignored: it would be the next request",
    ),
    refused(
        "get10-body",
        post(b"hello", b"Content-Length: 5", line=b"GET /@ HTTP/1.0"),
        400,
        ACCEPTS,
        "an HTTP/1.0 hop may not know the body",
    ),
    _vector("pipeline2", get() + get(), (200, 200), Fate.KEEP, (PLAIN, PLAIN), ACCEPTS, SERIAL),
    _vector(
        "post-nocl-extra",
        get(line=b"POST /@ HTTP/1.1") + get(),
        (200, 200),
        Fate.KEEP,
        (Reaches(method=b"POST"), Reaches(method=b"GET")),
        ACCEPTS,
        SERIAL,
    ),
    late("cl-short", post(b"hello", b"Content-Length: 10"), WAITS, "neither side is used again"),
)

# What the limits and rules above have on their other side, and forms that comparisons leave out.
NEIGHBOURS = (
    forwarded("hdr-100", get(*(b"X-%d: a" % n for n in range(99))), PLAIN, ACCEPTS, "exactly at the limit"),
    forwarded("uri-8k", get(line=b"GET /@" + b"a" * 8_000 + b" HTTP/1.1"), PLAIN, ACCEPTS, "at least 8000 (3)"),
    refused("uri-nul", get(line=b"GET /@%00 HTTP/1.1"), 400, ACCEPTS, "an encoded NUL ends a path somewhere"),
    refused("cl-over-body", post(b"", b"Content-Length: 999999999999"), 413, WAITS, "over limits.body, before reading"),
    refused("rl-http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, REJECTS, "RFC 9113 section 3.4"),
    refused("lead-2crlf", b"\r\n\r\n" + get(), 400, ACCEPTS, "one empty line, not any number"),
    forwarded(
        "te-trailers-only",
        get(b"TE: trailers, gzip;q=0.5", b"Connection: te"),
        PLAIN,
        ACCEPTS,
        "what reaches a node is at most 'trailers'",
    ),
    forwarded(
        "xff-untrusted",
        get(b"X-Forwarded-For: 6.6.6.6", b"X-Real-IP: 6.6.6.6", b"X-Forwarded-Proto: gopher"),
        Reaches(
            fields=((b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1"), (b"x-forwarded-proto", b"http"))
        ),
        ACCEPTS,
        "nobody that we trust says so",
    ),
    forwarded(
        "id-two-lines",
        get(b"X-Request-Id: one", b"X-Request-Id: two"),
        PLAIN,
        ACCEPTS,
        "replaced: a node would take either",
    ),
    forwarded("ok-10-keep", get(b"Connection: keep-alive", line=b"GET /@ HTTP/1.0"), PLAIN, ACCEPTS, "asked for (9.3)"),
    forwarded("ok-close", get(b"Connection: close"), PLAIN, ACCEPTS, "asked for (9.6)", Fate.CLOSE),
    forwarded(
        "ok-options-star", get(line=b"OPTIONS * HTTP/1.1"), Reaches(target=b"*", method=b"OPTIONS"), ACCEPTS, "3.2.4"
    ),
    forwarded("chunk-empty", chunked(b"0\r\n\r\n"), PLAIN, ACCEPTS, "a body of nothing"),
    forwarded("chunk-case", chunked(b"A\r\n0123456789\r\n000\r\n\r\n"), Reaches(body=b"0123456789"), ACCEPTS, "7.1"),
)
