"""Pure hot paths, nanoseconds a call: `python -P -m bench.core [NAME...]`.

The best of several short runs is shown, which a busy machine disturbs least.
"""

import sys
import timeit
from collections.abc import Callable, Iterator

from balancer.core.chunked import ChunkFollower
from balancer.core.http1 import FAST_RESPONSE, fast_request, parse_request, parse_response
from balancer.core.routing import RouteTable
from balancer.core.selection import Candidate, make_chooser
from balancer.model import Balance, Limits, Match, Policy, Route

SMALL_REQUEST = b"GET /small?n=1000000001 HTTP/1.1\r\nHost: xarv1.example.com\r\n\r\n"
REAL_REQUEST = b"""\
GET /arvados/v1/collections?n=00000000001000000001 HTTP/1.1\r
Host: xarv1.example.com\r
User-Agent: arvados-python-client/3.1.2 (Linux; x86_64) Python/3.11.7 httplib2/0.22.0\r
Accept: application/json, text/javascript;q=0.9, */*;q=0.5\r
Accept-Encoding: gzip, deflate, br\r
Accept-Language: en-GB,en;q=0.9,de;q=0.7\r
Authorization: Bearer v2/xarv1-gj3su-0123456789abcde/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdmi\r
Cookie: _session_id=7c1f3cbb0b1d4a0e9d2c5f6a8b7e4d31; remember_user=eyJfcmFpbHMiOnsibWVzc2FnZ\r
Referer: https://workbench.xarv1.example.com/collections/xarv1-4zz18-0123456789abcde\r
Origin: https://workbench.xarv1.example.com\r
Cache-Control: no-cache\r
X-Requested-With: XMLHttpRequest\r
traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r
X-Arvados-Client: workbench2/3.1.2-1\r
X-Request-Id: req-00000000001000000001\r
\r
"""
SMALL_RESPONSE = b"""\
HTTP/1.1 200 OK\r
Server: nginx/1.22.1\r
Date: Tue, 24 Nov 2026 07:00:00 GMT\r
Content-Type: application/octet-stream\r
Content-Length: 1024\r
Connection: keep-alive\r
X-Answer: 0123456789abcdef0123456789abcdef\r
X-Request-Id: req-00000000001000000001\r
\r
"""
REAL_RESPONSE = b"""\
HTTP/1.1 200 OK\r
Server: nginx/1.22.1\r
Date: Tue, 24 Nov 2026 07:00:00 GMT\r
Content-Type: application/json\r
Content-Length: 1024\r
Connection: keep-alive\r
X-Request-Id: req-00000000001000000001\r
ETag: W/"0123456789abcdef0123456789abcdef"\r
X-Runtime: 0.0123\r
Cache-Control: max-age=0, private, must-revalidate\r
Strict-Transport-Security: max-age=63072000; includeSubDomains\r
X-Frame-Options: SAMEORIGIN\r
X-Content-Type-Options: nosniff\r
X-Permitted-Cross-Domain-Policies: none\r
Referrer-Policy: strict-origin-when-cross-origin\r
Access-Control-Allow-Origin: *\r
Access-Control-Allow-Methods: GET, HEAD, PUT, POST, PATCH, DELETE\r
Access-Control-Allow-Headers: Authorization, Content-Type, X-Requested-With\r
Access-Control-Max-Age: 86486400\r
Vary: Accept, Accept-Encoding, Origin\r
X-XSS-Protection: 0\r
Content-Security-Policy: frame-ancestors 'self'\r
\r
"""
CHUNKED = (b"400\r\n" + b"x" * 1024 + b"\r\n") * 4 + b"0\r\n\r\n"


def paths() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield (name, call) of each hot path."""
    request, limits = fast_request(100).match, Limits()
    yield "request, small head, fast path", lambda: request(SMALL_REQUEST)
    yield "request, 850-byte head, fast path", lambda: request(REAL_REQUEST)
    yield "request, 850-byte head, slow path", lambda: parse_request(REAL_REQUEST, limits)
    yield "response, small head, fast path", lambda: FAST_RESPONSE.match(SMALL_RESPONSE)
    yield "response, 850-byte head, fast path", lambda: FAST_RESPONSE.match(REAL_RESPONSE)
    yield "response, 850-byte head, slow path", lambda: parse_response(REAL_RESPONSE, b"GET")
    yield "chunked body, 4 chunks of 1 KiB", lambda: ChunkFollower().feed(CHUNKED)
    yield "route, 3 routes, none matches", _routing()
    for nodes in (2, 64):
        for policy in Policy:
            yield f"choose, claim, release: {policy}, {nodes} nodes", _choosing(policy, nodes)


def _routing() -> Callable[[], object]:
    templates = ("/arvados/v1/nodes/{uuid}/ping", "/_health/*", "/metrics")
    table = RouteTable(tuple(Route(f"r{slot}", slot, Match(path=path)) for slot, path in enumerate(templates)))
    return lambda: table.match(b"GET", b"xarv1.example.com", b"/arvados/v1/collections?n=1", lambda _name: None)


def _choosing(policy: Policy, nodes: int) -> Callable[[], object]:
    chooser = make_chooser(Balance(policy=policy), [Candidate(slot, name=f"n{slot}") for slot in range(nodes)])

    def once() -> None:
        slot = chooser.choose((), b"client", lambda: 0.5)
        if slot is not None:
            chooser.claimed(slot)
            chooser.released(slot)

    return once


def nanoseconds(call: Callable[[], object]) -> float:
    """Return the best time of one call."""
    timer = timeit.Timer(call)
    count, _seconds = timer.autorange(lambda _count, _seconds: None)
    count = max(1, count // 10)
    return min(timer.repeat(repeat=20, number=count)) / count * 1e9


def main(wanted: list[str]) -> None:
    """Print the figures of all paths whose name contains one of the wanted words."""
    for name, call in paths():
        if not wanted or any(word in name for word in wanted):
            print(f"{name:60} {nanoseconds(call):9,.0f} ns")


if __name__ == "__main__":
    main(sys.argv[1:])
