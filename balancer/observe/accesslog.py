"""Access log lines: json, combined, haproxy. Values are escaped and secrets left out here and nowhere else.

Heads hold no control bytes (the parser refuses them), so only quotes, backslashes and bytes above 127 need escaping.
Header fields are not logged but User-Agent, so Authorization and Cookie never are.
"""

import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote_to_bytes

from balancer.model import AccessLog

REDACTED = b"[redacted]"


class Clock(Protocol):
    """Makes wall time out of monotonic ns."""

    def iso(self, mono_ns: int, /) -> bytes:
        """RFC 3339."""

    def combined(self, mono_ns: int, /) -> bytes:
        """Of the combined format."""

    def haproxy(self, mono_ns: int, /) -> bytes:
        """Of HAProxy."""


class Connection(Protocol):
    """Where an exchange came from."""

    peer: str
    port: int


class Entry(Protocol):
    """What is logged of an exchange; times are monotonic ns, 0 not reached."""

    @property
    def client(self) -> Connection:
        """Its connection."""

    @property
    def target(self) -> "Routed":
        """Where it was routed."""

    client_address: str
    method: bytes
    path: bytes
    http11: bool
    agent: bytes
    request_id: bytes
    status: int
    request_bytes: int
    response_bytes: int
    last_node: bytes
    history: bytes
    attempts: int
    retry_reason: str
    started_at: int
    chosen_at: int
    connected_at: int
    first_byte_at: int
    waited_ns: int

    @property
    def cause(self) -> str:
        """One word."""


class Routed(Protocol):
    """A route, or the default."""

    @property
    def name(self) -> bytes:
        """Its name."""


Formatter = Callable[[Entry, Clock, int], bytes]


class Redactor:
    """Replaces the values of query parameters by name, in any spelling that a node would decode to that name."""

    __slots__ = ("_names", "_plain")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(name.lower().encode() for name in names)
        wanted = b"|".join(re.escape(name) for name in sorted(self._names)) or rb"(?!)"
        self._plain = re.compile(rb"(?i:(?<![^&;])(" + wanted + rb")(?:\[[^\]&;=]*\])*=)[^&;]*").sub

    def query(self, query: bytes) -> bytes:
        """Return `query` without secrets."""
        if b"%" not in query and b"+" not in query:
            return self._plain(rb"\1=" + REDACTED, query)
        return b"&".join(self._pair(pair) for pair in re.split(rb"[&;]", query))

    def _pair(self, pair: bytes) -> bytes:
        name, equals, _ = pair.partition(b"=")
        decoded = unquote_to_bytes(name.replace(b"+", b" ")).strip().lower().partition(b"[")[0]
        return name + b"=" + REDACTED if equals and decoded in self._names else pair


_UNSAFE = re.compile(rb'["\\\x00-\x1f\x7f-\xff]')
_HIGH = re.compile(rb"[\x00-\x1f\x7f-\xff]")


def quoted(value: bytes) -> bytes:
    """Return `value` fit to stand between quotes in JSON and in the other formats."""
    if _UNSAFE.search(value) is None:
        return value
    text = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return _HIGH.sub(lambda found: b"\\u%04x" % found[0][0], text)


def make_formatter(log: AccessLog) -> Formatter | None:
    """Return the function that makes a line of the configured format; None: no log."""
    redactor = Redactor(log.redact)
    makers: dict[str, Callable[[Redactor], Formatter]] = {"json": _json, "combined": _combined, "haproxy": _haproxy}
    maker = makers.get(log.format)
    return None if maker is None else maker(redactor)


def _json(redactor: Redactor) -> Formatter:
    def line(entry: Entry, clock: Clock, now: int) -> bytes:
        path, mark, query = entry.path.partition(b"?")
        chosen, first = entry.chosen_at, entry.first_byte_at
        if mark:
            query = quoted(redactor.query(query))
        return (
            b'{"timestamp":"%b","severity":"INFO","event.name":"http.access","http.request.method":"%b","url.path":"%b",'
            b'"url.query":"%b","http.response.status_code":%d,"http.server.request.duration":%.6f,"client.address":"%b",'
            b'"user_agent.original":"%b","network.protocol.version":"%b","request_id":"%b","arv.node":"%b",'
            b'"arv.attempts":%d,"arv.history":"%b","arv.retry_reason":"%b","arv.queue_s":%.6f,"arv.connect_s":%.6f,'
            b'"arv.ttfb_s":%.6f,"arv.termination":"%b","arv.bytes_in":%d,"arv.bytes_out":%d,"arv.route_class":"%b"}\n'
        ) % (
            clock.iso(now),
            entry.method,
            quoted(path),
            query,
            entry.status,
            (now - entry.started_at) / 1e9,
            (entry.client_address or entry.client.peer).encode(),
            quoted(entry.agent),
            b"1.1" if entry.http11 else b"1.0",
            entry.request_id,
            entry.last_node,
            entry.attempts if chosen else 0,
            entry.history,
            entry.retry_reason.encode(),
            entry.waited_ns / 1e9,
            (entry.connected_at - chosen) / 1e9 if entry.connected_at and chosen else 0.0,
            (first - entry.started_at) / 1e9 if first else 0.0,
            entry.cause.encode(),
            entry.request_bytes,
            entry.response_bytes,
            entry.target.name,
        )

    return line


def _request(entry: Entry, redactor: Redactor) -> bytes:
    path, mark, query = entry.path.partition(b"?")
    target = path + b"?" + redactor.query(query) if mark else path
    return b"%b %b HTTP/1.%d" % (entry.method, quoted(target), 1 if entry.http11 else 0)


def _combined(redactor: Redactor) -> Formatter:
    def line(entry: Entry, clock: Clock, now: int) -> bytes:
        return b'%b - - [%b] "%b" %d %d "-" "%b"\n' % (
            (entry.client_address or entry.client.peer).encode(),
            clock.combined(now),
            _request(entry, redactor),
            entry.status or 499,
            entry.response_bytes,
            quoted(entry.agent) or b"-",
        )

    return line


# HAProxy's two letters: who ended it, and in which phase (its manual, "Session state at disconnection").
TERMINATION = {
    "ok": b"----",
    "malformed": b"PR--",
    "too-large": b"PR--",
    "not-served": b"PR--",
    "expectation": b"PR--",
    "bad-chunk": b"PD--",
    "header-timeout": b"cR--",
    "body-timeout": b"cD--",
    "body-slow": b"cD--",
    "client-left": b"CD--",
    "client-stalled": b"cD--",
    "park-timeout": b"sQ--",
    "queue-timeout": b"sQ--",
    "park-full": b"SQ--",
    "queue-full": b"SQ--",
    "paused": b"SQ--",
    "no-node": b"SC--",
    "node-refused": b"SC--",
    "node-reset": b"SH--",
    "node-truncated": b"SD--",
    "node-protocol": b"PH--",
    "node-timeout": b"sH--",
    "node-cut": b"SD--",
    "node-stalled": b"sD--",
    "tunnel-closed": b"----",
    "tunnel-idle": b"cD--",
}


def _ms(since: int, until: int) -> int:
    return (until - since) // 1_000_000 if since and until else -1


def _haproxy(redactor: Redactor) -> Formatter:
    def line(entry: Entry, clock: Clock, now: int) -> bytes:
        started, chosen, connected, first = entry.started_at, entry.chosen_at, entry.connected_at, entry.first_byte_at
        backend = entry.target.name or b"nodes"
        return b'%b:%d [%b] fe %b/%b 0/%d/%d/%d/%d %d %d - - %b 1/1/0/0/%d 0/0 "%b"\n' % (
            (entry.client_address or entry.client.peer).encode(),
            entry.client.port,
            clock.haproxy(started),
            backend,
            entry.last_node or b"<NOSRV>",
            entry.waited_ns // 1_000_000,
            _ms(chosen, connected),
            _ms(connected, first),
            (now - started) // 1_000_000,
            entry.status or -1,
            entry.response_bytes,
            TERMINATION.get(entry.cause, b"PR--"),
            max(0, entry.attempts - 1),
            _request(entry, redactor),
        )

    return line
