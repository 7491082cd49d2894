"""A client's connection: reading requests one after the other, sending answers, keeping alive, ending politely."""

import logging
from typing import TYPE_CHECKING

from balancer.core.chunked import ChunkFollower
from balancer.core.exchange import Cause, State
from balancer.core.forwarded import client_behind
from balancer.core.headers import forwarded_for, forwarded_lines, request_head
from balancer.core.http1 import R_CONNECTION, Incomplete, Refusal, RequestHead, parse_request
from balancer.core.requestid import kept
from balancer.core.retry import IDEMPOTENT
from balancer.model import Outcome
from balancer.net.exchange import Exchange, make_exchange
from balancer.net.listener import Gate
from balancer.net.poller import PEER_CLOSED, READ, WRITE
from balancer.net.requestbody import RequestBody
from balancer.net.site import Site, Target
from balancer.net.stream import COPY_BYTES, HEAD_BYTES, NOT_NOW, READABLE, Socket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from balancer.core.message import Field
    from balancer.net.plane import Plane

logger = logging.getLogger(__name__)

FIRST_READ_BYTES = 16 << 10  # while requests may have to wait, no more than this is read with a head
TAILS = 1024  # so many are remembered
LAST_REQUEST_NS = 1_000_000_000

_DONE = State.DONE  # a member looked up in its enum costs 90 ns
_CAUSE_OF_REFUSAL = {
    413: Cause.TOO_LARGE,
    414: Cause.TOO_LARGE,
    431: Cause.TOO_LARGE,
    417: Cause.EXPECTATION,
    405: Cause.NOT_SERVED,
    501: Cause.NOT_SERVED,
    505: Cause.NOT_SERVED,
}


class Downstream(RequestBody):
    """One client connection."""

    __slots__ = ("gate", "peer", "port", "requests", "tail", "tail_host", "tail_site")

    def __init__(self, worker: "Plane", sock: Socket, fd: int, gate: Gate, peer: str, port: int) -> None:
        super().__init__(worker, sock, fd)
        self.gate = gate
        self.peer = peer
        self.port = port
        self.requests = 0
        self.tail = self.tail_host = b""
        self.tail_site: Site | None = None

    # --- events ------------------------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:
        """See reactor.Handler; an ordinary head by hand."""
        if mask == READ and self.is_ordinary and self.exchange is None:
            try:
                data = self.recv(HEAD_BYTES)
            except NOT_NOW:
                return
            except OSError:
                data = b""
            if len(data) == HEAD_BYTES:
                self.is_ordinary = False
                self.look_for_rest()
            if data:
                self._parse(self.data + data if self.data else data)
            else:
                self.close()
            return
        self.ready_otherwise(mask)

    def ready_otherwise(self, mask: int) -> None:
        """Do what readiness allows where it is not an ordinary head."""
        if mask & WRITE:
            self.flush()
        if mask & PEER_CLOSED and not self.mask & READ and not self.closed:
            self._peer_closed()
            return
        if mask & READABLE and not self.closed:
            exchange = self.exchange
            if exchange is None:
                self._read_head()
            elif exchange.body_open and exchange.state is not State.PARKED:
                self.read_body(exchange)
            else:
                self.read_ahead(exchange)

    def look_for_rest(self) -> None:
        """Come again for what the socket took from the kernel and still holds: only TLS does."""

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("connection of client %s failed inside: %r", self.peer, error, exc_info=error)
        self.abort(Cause.CLIENT_LEFT)

    def send_failed(self, error: OSError) -> None:
        """See Stream."""
        self.abort(Cause.CLIENT_LEFT)

    def abort(self, cause: Cause) -> None:
        """The connection is useless: end what is under way, and it."""
        exchange = self.exchange
        if exchange is not None and exchange.complete and not exchange.done and not self.out:
            exchange.end(exchange.outcome, exchange.cause)
        elif exchange is not None:
            exchange.client_left(cause)
        self.close()

    def close(self) -> None:
        """See Stream."""
        if not self.closed:
            self.exchange = None
            self.worker.connection_closed(self)
            super().close()

    def _peer_closed(self) -> None:
        """The client sends no more (one-shot: with the interest kept, a level-triggered poller would spin)."""
        exchange = self.exchange
        if exchange is not None and self.worker.site.snapshot.limits.half_close:
            self.interest(self.mask & ~PEER_CLOSED)
            return
        self.abort(Cause.CLIENT_LEFT)

    # --- heads -------------------------------------------------------------------------------------------------

    def _read_head(self) -> None:
        if self.lingering >= 0:
            self.throw_away()
            return
        view = self.reactor.view
        try:
            count = self.recv_into(view if not self.worker.waiting else view[:FIRST_READ_BYTES])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self.close()
            return
        self.is_ordinary = count < HEAD_BYTES
        self._parse(self.data + view[:count])

    def _parse(self, data: bytes) -> None:
        """Understand a head. The ordinary one is handled here in one go: a function call costs 60 ns."""
        worker = self.worker
        site = worker.site
        found = site.fast(data)
        if found is None:
            self._parse_slowly(data)
            return
        method, target, host, agent, connection, value, length, _id_line, request_id = found.groups()
        end = found.end()
        if (
            host is None
            or end > site.fast_bytes
            or len(target) > site.target_bytes
            or (length is not None and int(length) > site.body_bytes)
            or (request_id is not None and not site.default_accept and not site.accept_id(request_id))
        ):
            self._parse_slowly(data)
            return
        exchange = make_exchange()
        exchange.client = self
        exchange.site = site
        exchange.method = method
        exchange.path = target
        exchange.host = host
        if agent is not None:
            exchange.agent = agent
        exchange.started_at = self.reactor.now
        tail = self.tail if host == self.tail_host and site is self.tail_site else self._make_tail(site, host)
        chosen = site.everything
        if site.routes is not None or site.keyed:
            chosen = self._route(exchange, data)
        exchange.target = chosen
        if request_id is None:
            made = site.ids.made
            exchange.request_id = request_id = made.pop() if made else site.ids.make()
            id_line = b"X-Request-Id: %b\r\n" % request_id
        else:
            exchange.request_id = request_id
            id_line = b""
        if connection is not None:
            start, stop = found.span(R_CONNECTION)
            before, after = data[: start - 1], data[stop : end - 2]
            exchange.head = b"".join((before, after, tail, id_line, chosen.designation, b"\r\n"))
            if value == b"close":
                exchange.close = True
        else:
            exchange.head = b"".join((data[: end - 2], tail, id_line, chosen.designation, b"\r\n"))
        worker.cells[worker.accepted_cell] += 1  # `Plane.accept` by hand: a call is 60 ns
        self.exchange = exchange
        self.requests += 1
        if length is not None:
            # A view of a large body spares two copies of it.
            rest = data[end:] if len(data) <= COPY_BYTES else memoryview(data)[end:]
            self.take_body(exchange, rest, int(length))
        else:
            self.data = data[end:] if end != len(data) else b""
        if worker.closing or self.requests == site.requests_per_connection:
            exchange.close = True
        exchange.start()

    def _route(self, exchange: Exchange, data: bytes) -> Target:
        """Return where a request of the fast path goes, and set its key. Here because a closure slows its function."""
        site = exchange.site

        def lookup(name: bytes) -> bytes | None:
            return _field(data, name)

        if site.keyed:
            exchange.key = site.key_of(self.peer, lookup)
        return site.target_of(exchange.method, exchange.host, exchange.path, lookup)

    def _make_tail(self, site: Site, host: bytes) -> bytes:
        """Return our lines for requests of this client to `host`; they are the same for each."""
        self.tail_site, self.tail_host = site, host
        key = (self.peer, host, self.gate.scheme)
        tail = site.tails.get(key)  # clients open many connections one after the other
        if tail is None:
            if len(site.tails) >= TAILS:
                site.tails.clear()
            tail = site.rules.peer_lines(self.peer, self.gate.scheme) + b"X-Forwarded-Host: %b\r\n" % host
            site.tails[key] = tail
        self.tail = tail
        return tail

    def is_trusted(self, site: Site) -> bool:
        """Whether the peer is one of trusted_proxies."""
        return site.unix_trusted if self.gate.is_unix else self.peer in site.rules.trusted

    def _parse_slowly(self, data: bytes) -> None:
        site = self.worker.site
        parsed = parse_request(data, site.snapshot.limits, site.snapshot.forwarding)
        if isinstance(parsed, Incomplete):
            if not self.data:
                self.deadline = self.reactor.now + site.header_ns
            self.data = data
            return
        if isinstance(parsed, Refusal):
            self._refuse(data, parsed)
            return
        self._begin(data, parsed, site)

    def _begin(self, data: bytes, head: RequestHead, site: Site) -> None:
        """Begin an exchange from a head that was parsed field by field."""
        worker = self.worker
        trusted = self.is_trusted(site)
        exchange = self._new_exchange(site, head.method, head.target, head.host)
        exchange.http11 = head.minor == 1
        exchange.agent = head.value(b"user-agent") or b""
        exchange.expects_continue = head.expect_continue
        exchange.upgrade = head.upgrade
        exchange.te_trailers = head.te_trailers
        exchange.request_id = self._request_id(head.fields, site)
        if trusted:
            exchange.client_address = client_behind(self.peer, forwarded_for(head), site.rules.trusted)
        exchange.target = site.target_of(head.method, head.host, head.target, head.value)
        lines = forwarded_lines(head, site.rules, self.peer, self.gate.scheme, trusted=trusted)
        exchange.head = b"".join(
            (
                request_head(head, site.rules, lines, trusted=trusted),
                exchange.id_line(),
                exchange.target.designation,
                b"\r\n",
            )
        )
        exchange.close = not head.keep_alive
        if site.keyed:
            exchange.key = site.key_of(exchange.client_address or self.peer, head.value)
        worker.accept()
        self.exchange = exchange
        self.requests += 1
        if head.chunked:
            limits = site.snapshot.limits
            self.follower = ChunkFollower(limits.chunk_extension_bytes, limits.trailer_bytes)
            exchange.body_open = True
            exchange.hold_body = head.method in IDEMPOTENT
            self.data = data[head.length :]
            if not self.take_chunks(exchange):
                return
        else:
            self.take_body(exchange, data[head.length :], head.content_length or 0)
        if not exchange.body_open:
            exchange.expects_continue = False  # all of it is here
        if worker.closing or self.requests == site.requests_per_connection:
            exchange.close = True
        if head.upgrade and worker.tunnels.full:
            exchange.answer(Cause.TUNNELS_FULL)
            return
        exchange.start()

    def _new_exchange(self, site: Site, method: bytes, path: bytes, host: bytes) -> Exchange:
        exchange = make_exchange()
        exchange.client = self
        exchange.site = site
        exchange.target = site.everything
        exchange.method = method
        exchange.path = path
        exchange.host = host
        exchange.head = exchange.request_id = b""
        exchange.started_at = self.reactor.now
        return exchange

    def _request_id(self, fields: "Iterable[Field]", site: Site) -> bytes:
        """Return the client's id when it is one valid line, else a new one."""
        sent = [value for name, _, value in fields if name == site.rules.id_lower]
        return kept(sent, site.accept_id) or site.ids.make()

    def _refuse(self, data: bytes, refusal: Refusal) -> None:
        """Answer a head that may not be forwarded; the connection ends with it."""
        line = data.lstrip(b"\r\n").partition(b"\r\n")[0].split(b" ")
        whole = len(line) == 3
        exchange = self._new_exchange(
            self.worker.site, line[0][:32] if whole else b"-", line[1][:8192] if whole else b"-", b""
        )
        exchange.request_id = self._request_id(refusal.fields, self.worker.site)
        exchange.close = True
        self.worker.accept()
        self.exchange = exchange
        self.data = b""
        exchange.answer(_CAUSE_OF_REFUSAL.get(refusal.status, Cause.MALFORMED), refusal.reason, refusal.status)

    def exchange_over(self) -> None:
        """The answer is with the kernel: book the exchange, go on with the next request or end."""
        exchange = self.exchange
        if exchange is None or self.closed:
            return
        self.exchange = None
        if not exchange.done:  # `Exchange.end` by hand
            exchange.done = True
            exchange.state = _DONE
            self.worker.exchange_ended(exchange)
        if exchange.close:
            self._end(exchange)
            return
        self.body_began_at = 0
        self.deadline = self.reactor.now + exchange.site.keepalive_ns
        if self.worker.closing:
            self.expect_last_request()
        if self.mask != READ:
            self.interest(READ)
        if self.data:
            self.reactor.again.append(self._next)

    def expect_last_request(self) -> None:
        """The worker stops: answer a request that is on its way (with `Connection: close`), else end soon.

        Closing at once would reset a request that a client sends at this very moment.
        """
        if self.requests and not self.data:
            self.deadline = min(self.deadline, self.reactor.now + LAST_REQUEST_NS)

    def _next(self) -> None:
        """Go on with a request that was pipelined."""
        if self.exchange is None and not self.closed and self.data:
            data, self.data = self.data, b""
            self._parse(data)

    def _end(self, exchange: Exchange) -> None:
        """Close after an answer. With input unread the kernel would reset and take the answer from the client."""
        if exchange.outcome is Outcome.US or exchange.body_open or self.data:
            self.linger()
        else:
            self.close()

    # --- time --------------------------------------------------------------------------------------------------

    def expired(self) -> None:
        """The deadline passed."""
        exchange = self.exchange
        if exchange is not None:
            exchange.expired()
        elif self.data and self.lingering < 0:
            exchange = self._new_exchange(self.worker.site, b"-", b"-", b"")
            exchange.request_id = self.worker.site.ids.make()
            exchange.close = True
            self.worker.accept()
            self.exchange = exchange
            exchange.answer(Cause.HEADER_TIMEOUT)
        else:
            self.close()


def _field(data: bytes, name: bytes) -> bytes | None:
    """Find a field in a head that the fast path took; rarely asked, so nothing is kept for it."""
    end = data.find(b"\r\n\r\n")
    at = data[:end].lower().find(b"\r\n" + name + b":")
    if at < 0:
        return None
    at += len(name) + 3
    stop = data.find(b"\r\n", at)
    return data[at:stop].strip(b" \t")
