"""Access log lines: json, combined, haproxy. Values are escaped here; `balancer.core.redaction` leaves secrets out.

Heads hold no control bytes (the parser refuses them), so only quotes, backslashes and bytes above 127 need escaping.
Header fields are not logged but User-Agent, so Authorization and Cookie never are.
"""

import re
from collections.abc import Callable
from typing import Final, Protocol

from balancer.core.exchange import Cause
from balancer.core.redaction import Redactor
from balancer.model import AccessLog


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


_HIGH = re.compile(rb"[\x00-\x1f\x7f-\xff]")


def is_plain(value: bytes) -> bool:
    """Whether `value` may stand between quotes as it is. By way of str: its tests take 20 to 80 ns, a regex 500."""
    if not value.isascii() or 34 in value or 92 in value:  # quote, backslash
        return False
    return value.decode("ascii").isprintable()


def quoted(value: bytes) -> bytes:
    """Return `value` fit to stand between quotes in JSON and in the other formats."""
    if is_plain(value):
        return value
    text = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return _HIGH.sub(lambda found: b"\\u%04x" % found[0][0], text)


def make_formatter(log: AccessLog) -> Formatter | None:
    """Return the function that makes a line of the configured format; None: no log."""
    redactor = Redactor(log.redact)
    makers: dict[str, Callable[[Redactor], Formatter]] = {"json": _json, "combined": _combined, "haproxy": _haproxy}
    maker = makers.get(log.format)
    return None if maker is None else maker(redactor)


_STATUS = {status: b"%d" % status for status in range(600)}
_OK = Cause.OK  # looking a member up in its enum costs 90 ns
_REMEMBERED = 1024  # addresses and agents of clients; the same ones come again and again


def _seconds(ns: int) -> bytes:
    return b"%.6f" % (ns / 1e9)


_OPENING = b'{"timestamp":"%b","severity":"INFO","event.name":"http.access","http.request.method":"'
_FROM = b',"client.address":"%b","user_agent.original":"%b","network.protocol.version":"1.%d","request_id":"'
_ATTEMPTS = (
    b'","arv.node":"%b","arv.attempts":%d,"arv.history":"%b","arv.retry_reason":"%b"'
    b',"arv.queue_s":%.6f,"arv.connect_s":%.6f,"arv.ttfb_s":'
)
_WELL = b',"arv.termination":"ok","arv.bytes_in":0,"arv.bytes_out":'
_END = b',"arv.termination":"%b","arv.bytes_in":%d,"arv.bytes_out":'
_ROUTE = b',"arv.route_class":"%b"}\n'


class _Pieces:
    """Pieces of JSON lines that are the same for many, made once."""

    def __init__(self) -> None:
        self.froms: dict[tuple[str, bytes, bool], bytes] = {}
        self.nodes: dict[bytes, bytes] = {}
        self.routes: dict[bytes, bytes] = {}

    def from_of(self, key: tuple[str, bytes, bool]) -> bytes:
        """Address, agent and protocol of a client."""
        if len(self.froms) >= _REMEMBERED:
            self.froms.clear()
        address, agent, http11 = key
        made = self.froms[key] = _FROM % (address.encode(), quoted(agent), http11)
        return made

    def at_once(self, node: bytes) -> bytes:
        """One attempt, on a kept connection, without waiting."""
        made = self.nodes[node] = _ATTEMPTS % (node, 1, b"", b"", 0.0, 0.0)
        return made

    def route_of(self, name: bytes) -> bytes:
        """The end of a line."""
        made = self.routes[name] = _ROUTE % name
        return made


def _attempts(entry: Entry) -> bytes:
    chosen, connected = entry.chosen_at, entry.connected_at
    return _ATTEMPTS % (
        entry.last_node,
        entry.attempts if chosen else 0,
        entry.history,
        entry.retry_reason.encode(),
        entry.waited_ns / 1e9,
        (connected - chosen) / 1e9 if connected and chosen else 0.0,
    )


def _json(redactor: Redactor) -> Formatter:
    # A line is one join of few pieces: 1.1 us, against 4.5 us for formatting its 21 values. Lines of one turn have one
    # time, and often one duration.
    pieces = _Pieces()
    froms, nodes, routes = pieces.froms, pieces.nodes, pieces.routes
    opened_at, opening = -1, b""
    spent_ns, spent = -1, b""

    def line(entry: Entry, clock: Clock, now: int) -> bytes:
        nonlocal opened_at, opening, spent_ns, spent
        if now != opened_at:
            opened_at, opening = now, _OPENING % clock.iso(now)
        started, chosen, first, cause = entry.started_at, entry.chosen_at, entry.first_byte_at, entry.cause
        if now - started != spent_ns:
            spent_ns = now - started
            spent = _seconds(spent_ns)
        target = redactor.target(entry.path)
        path, _, query = target.partition(b"?")
        # What a node answered had a target of visible characters (34 is the quote, 92 the backslash).
        if 34 in target or 92 in target or (cause is not _OK and not is_plain(target)):
            path, query = quoted(path), quoted(query)
        node, route, size_in = entry.last_node, entry.target.name, entry.request_bytes
        is_ordinary = chosen and entry.connected_at == chosen and entry.attempts == 1 and not entry.waited_ns
        if not is_ordinary or entry.history:
            attempts = _attempts(entry)
        else:
            attempts = nodes[node] if node in nodes else pieces.at_once(node)
        key = (entry.client_address or entry.client.peer, entry.agent, entry.http11)
        return b"".join(
            (
                opening,
                entry.method,
                b'","url.path":"',
                path,
                b'","url.query":"',
                query,
                b'","http.response.status_code":',
                _STATUS[entry.status],
                b',"http.server.request.duration":',
                spent,
                froms[key] if key in froms else pieces.from_of(key),
                entry.request_id,
                attempts,
                (spent if first == now else _seconds(first - started)) if first else b"0.000000",
                _WELL if cause is _OK and not size_in else _END % (cause.encode(), size_in),
                b"%d" % entry.response_bytes,
                routes[route] if route in routes else pieces.route_of(route),
            )
        )

    return line


def _request(entry: Entry, redactor: Redactor) -> bytes:
    target = quoted(redactor.target(entry.path))
    return b"%b %b HTTP/1.%d" % (entry.method, target, 1 if entry.http11 else 0)


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
TERMINATION: Final[dict[str, bytes]] = {
    Cause.OK: b"----",
    Cause.MALFORMED: b"PR--",
    Cause.TOO_LARGE: b"PR--",
    Cause.NOT_SERVED: b"PR--",
    Cause.EXPECTATION: b"PR--",
    Cause.BAD_CHUNK: b"PD--",
    Cause.HEADER_TIMEOUT: b"cR--",
    Cause.BODY_TIMEOUT: b"cD--",
    Cause.BODY_SLOW: b"cD--",
    Cause.CLIENT_LEFT: b"CD--",
    Cause.CLIENT_STALLED: b"cD--",
    Cause.PARK_TIMEOUT: b"sQ--",
    Cause.QUEUE_TIMEOUT: b"sQ--",
    Cause.PARK_FULL: b"SQ--",
    Cause.QUEUE_FULL: b"SQ--",
    Cause.PAUSED: b"SQ--",
    Cause.NO_NODE: b"SC--",
    Cause.NODE_REFUSED: b"SC--",
    Cause.NODE_RESET: b"SH--",
    Cause.NODE_TRUNCATED: b"SD--",
    Cause.NODE_PROTOCOL: b"PH--",
    Cause.NODE_TIMEOUT: b"sH--",
    Cause.NODE_CUT: b"SD--",
    Cause.NODE_STALLED: b"sD--",
    Cause.TUNNEL_CLOSED: b"----",
    Cause.TUNNEL_IDLE: b"cD--",
    Cause.TUNNELS_FULL: b"PR--",
    Cause.CONNECTIONS_FULL: b"PC--",
    Cause.PLAIN_ON_TLS: b"PR--",
    Cause.STOPPING: b"KQ--",
    Cause.STOPPED: b"KD--",
    Cause.CUT: b"KD--",
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
            TERMINATION[entry.cause],
            max(0, entry.attempts - 1),
            _request(entry, redactor),
        )

    return line
