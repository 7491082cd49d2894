"""A connection to a node: connecting, sending a request, reading the answer, waiting idle in the pool."""

import errno
import logging
import socket
from typing import TYPE_CHECKING

from balancer.core.chunked import ChunkFollower
from balancer.core.headers import response_head
from balancer.core.http1 import (
    FAST_RESPONSE,
    P_CONNECTION,
    P_ID,
    Incomplete,
    Refusal,
    ResponseHead,
    parse_response,
)
from balancer.core.retry import Failure
from balancer.net.nodes import NodeState
from balancer.net.poller import READ, WRITE
from balancer.net.reactor import Reactor
from balancer.net.responsebody import CONNECTING, HANDSHAKE, HEAD, HOLD, IDLE, STREAM, UNTIL_CLOSE, ResponseBody
from balancer.net.stream import COPY_BYTES, HEAD_BYTES, NOT_NOW, READABLE, Socket
from balancer.scoreboard import N_CONNECTS

if TYPE_CHECKING:
    import re

    from balancer.net.exchange import Exchange

logger = logging.getLogger(__name__)

TRAILER_BYTES = 16 << 10


_match = FAST_RESPONSE.match
_STATUS = {b"%d" % status: status for status in range(200, 600)}  # 25 ns, int() takes 80


class Upstream(ResponseBody):
    """One connection."""

    __slots__ = ("data", "idle_since")

    def __init__(self, reactor: Reactor, sock: Socket, fd: int, node: NodeState) -> None:
        super().__init__(reactor, sock, fd, node)
        self.idle_since = 0  # ns; when it went back to the pool last
        self.data = b""  # of an unfinished head

    @classmethod
    def connect(cls, reactor: Reactor, node: NodeState, exchange: "Exchange") -> "Upstream | None":
        """Begin to connect; None when that failed at once."""
        raw = socket.socket(node.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if node.family != socket.AF_UNIX:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = raw.connect_ex(node.address) if node.address is not None else errno.EADDRNOTAVAIL
        except OSError:
            code = -1
        if code not in (0, errno.EINPROGRESS):
            raw.close()
            return None
        node.count(N_CONNECTS)
        self = cls(reactor, raw, raw.fileno(), node)
        self.exchange = exchange
        if code == 0 and node.tls is None:
            self.phase = IDLE
            self.mask = READ
        else:
            self.mask = WRITE
        reactor.watch(self.fd, self.mask, self)
        return self

    @property
    def reused(self) -> bool:
        """Whether it carried an exchange before."""
        return self.idle_since > 0

    # --- events ----------------------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        if mask == READ and self.phase == HEAD and not self.wide:
            try:
                data = self.recv(HEAD_BYTES)
            except NOT_NOW:
                return
            except OSError:
                data = b""
            found = None if self.data else _match(data)
            if found is not None:
                self._fast_head(found, data, len(data))
            elif data:
                self._slow_head(self.data + data)
            else:
                self.lost()
            return
        if self.phase <= HANDSHAKE:
            self._progress(mask)
            return
        if mask & WRITE:
            self.flush()
        if mask & READABLE and not self.closed:
            self._read()

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("connection to node %s failed inside: %r", self.node.node.name, error, exc_info=error)
        exchange = self.exchange
        self.close()
        if exchange is not None:
            exchange.node_failed(Failure.PROTOCOL, "internal error")

    def _progress(self, mask: int) -> None:
        """Go on connecting and, with TLS, shaking hands."""
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        if self.phase == CONNECTING:
            raw = self.sock
            assert isinstance(raw, socket.socket)
            code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.close()
                exchange.connect_failed("refused" if code == errno.ECONNREFUSED else errno.errorcode.get(code, "error"))
                return
            if not mask & WRITE:
                return
            self.phase = HANDSHAKE
            if self.node.tls is not None:
                self.use(self.node.tls.wrap(raw))
        if self.node.tls is not None:
            wanted = self.sock.handshake()  # type: ignore[attr-defined]
            if wanted is None:
                self.close()
                exchange.connect_failed("tls")
                return
            if wanted:
                self.interest(wanted)
                return
        self.interest(READ)
        exchange.connected(self)

    def begin(self, exchange: "Exchange", out: bytes) -> None:
        """Send a request in phase two of this turn."""
        self.exchange = exchange
        self.phase = HEAD
        self.out = out
        self.reactor.sends.append(self)

    def begin_at_once(self, exchange: "Exchange", head: bytes, body: memoryview) -> None:
        """Send a request with much body now."""
        self.exchange = exchange
        self.phase = HEAD
        if self.write(body, head) and self.out:
            exchange.sent_bytes += len(head) + len(body) - len(self.out)

    def flush(self) -> None:
        """See Stream; an ordinary request by hand: it goes whole, and no body follows."""
        exchange, out = self.exchange, self.out
        if self.mask == READ and out and exchange is not None and not exchange.body_open and not self.closed:
            try:
                sent = self.send_once(out)
            except OSError:
                sent = 0  # it is full or broken: the general way finds out again
            if sent == len(out):
                self.out = b""
                return
            self.out = out[sent:]
            self.progressed(sent)
        super().flush()

    def drained(self) -> None:
        """See Stream: the client's body may go on."""
        exchange = self.exchange
        if exchange is not None and exchange.body_open:
            exchange.client.body_may_go_on()

    def progressed(self, sent: int) -> None:
        """See Stream."""
        if self.exchange is not None:
            self.exchange.sent_bytes += sent

    def send_failed(self, error: OSError) -> None:
        """The node takes nothing more. It may have answered already, so look before giving up."""
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        self.out = b""
        if self.phase == HEAD:
            self._read()
        if self.exchange is exchange and not self.closed:
            self.lost()

    # --- reading ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self.pipe is not None:
            self._splice(self.pipe)
            return
        reactor = self.reactor
        phase = self.phase
        try:
            count = self.recv_into(reactor.buffer)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count == 0:
            self.lost()
            return
        if phase == HEAD:
            if count <= COPY_BYTES and not self.data:
                data = reactor.view[:count].tobytes()  # slices of bytes cost half of those of a memoryview
                found = _match(data)
                if found is not None:
                    self._fast_head(found, data, count)
                else:
                    self._slow_head(data)
                return
            if not self.data:
                found = _match(reactor.buffer, 0, count)
                if found is not None:
                    self._fast_head(found, reactor.view[: found.end()].tobytes(), count)
                    return
            self._slow_head(self.data + reactor.view[:count].tobytes())
        elif phase == STREAM:
            self._stream(reactor.view[:count])
        elif phase == HOLD:
            self._hold(reactor.view[:count])
        else:  # idle: a node has nothing to say without a request
            self._leave_pool()

    def lost(self) -> None:
        """The node closed the connection, or it broke."""
        exchange = self.exchange
        if exchange is None:
            self._leave_pool()
            return
        if self.left == UNTIL_CLOSE and self.follower is None and self.phase in (STREAM, HOLD):
            self.left = 0
            self.reusable = False
            self._body_ended()
            return
        phase, begun = self.phase, bool(self.data)
        self.close()
        if phase in (HOLD, STREAM) or begun:
            exchange.node_failed(Failure.TRUNCATED, "truncated")
        else:
            exchange.node_failed(Failure.RESET, "reset")

    def _leave_pool(self) -> None:
        if self in self.node.pool:
            self.node.pool.remove(self)
        self.close()

    def _fast_head(self, found: "re.Match[bytes]", data: bytes, count: int) -> None:
        """An ordinary head with Content-Length. All of this is one function: a call costs 60 ns.

        `data` is the head and, up to COPY_BYTES, what was read with it; `count` is all that was read.
        """
        exchange = self.exchange
        assert exchange is not None
        status, connection, connection_value, length, _id_line, id_value, chunked = found.groups()
        if length is None or chunked is not None or not exchange.http11 or exchange.method == b"HEAD":
            self._slow_head(data if count <= COPY_BYTES else self.reactor.view[:count].tobytes())
            return
        head_end = found.end()
        total = int(length)
        left = total - (count - head_end)
        exchange.status = _STATUS[status]
        exchange.first_byte_at = self.reactor.now
        self.reusable = connection_value != b"close" and left >= 0
        if (
            id_value == exchange.request_id
            and left <= 0
            and count <= COPY_BYTES
            and not (exchange.close or exchange.body_open)
        ):  # most answers: only the Connection line has to go, if there is one
            answer = data[: head_end + total]
            if connection is not None:
                answer = answer[: found.start(P_CONNECTION) - 1] + answer[found.end(P_CONNECTION) :]
            exchange.response_bytes = total
            client = exchange.client
            if client.out:
                client.respond(answer)
            else:  # `respond` by hand
                exchange.downstream = True
                client.out = answer
                self.reactor.sends.append(client)
                client.deadline = self.reactor.now + exchange.site.send_idle_ns
            exchange.node_done()
            return
        if id_value is not None and id_value != exchange.request_id:
            spans = [(found.start(P_ID) - 2, found.end(P_ID))]
            if connection is not None:
                spans.append((found.start(P_CONNECTION) - 1, found.end(P_CONNECTION)))
            first, second, id_value = _without(data[: head_end - 2], *spans), b"", None
        elif connection is not None:
            first, second = data[: found.start(P_CONNECTION) - 1], data[found.end(P_CONNECTION) : head_end - 2]
        else:
            first, second = data[: head_end - 2], b""
        if id_value is None or exchange.close or exchange.body_open:
            ending = exchange.ending(kept_id=id_value is not None)
        else:
            ending = b"\r\n"
        if left > 0:
            exchange.response_head = first + second + ending
            self.left = left
            self.follower = None
            view = memoryview(data) if count <= COPY_BYTES else self.reactor.view
            self._begin_body(view[head_end:count], total)
            return
        exchange.response_bytes = total
        client = exchange.client
        if count <= COPY_BYTES:
            client.respond(b"".join((first, second, ending, data[head_end : head_end + total])))
        else:
            client.respond_now(first + second + ending, self.reactor.view[head_end : head_end + total])
        exchange.node_done()

    def _slow_head(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        parsed = parse_response(data, exchange.method)
        if isinstance(parsed, Incomplete):
            self.data = data
            return
        self.data = b""
        if isinstance(parsed, Refusal):
            self.close()
            exchange.node_failed(Failure.PROTOCOL, "protocol", parsed.reason)
            return
        rest = data[parsed.length :]
        if parsed.status < 200:
            self._interim(parsed, rest)
            return
        exchange.status = parsed.status
        exchange.first_byte_at = self.reactor.now
        self.reusable = parsed.keep_alive
        self._final_head(exchange, parsed, rest)

    def _interim(self, head: ResponseHead, rest: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        if head.status == 101:
            exchange.switch_protocols(self, head, rest)
            return
        exchange.interim(head)
        if rest and not self.closed:
            self._slow_head(rest)

    def _final_head(self, exchange: "Exchange", head: ResponseHead, rest: bytes) -> None:
        framing = exchange.framing_of(head)
        exchange.response_head = response_head(head, exchange.site.rules, exchange.request_id, framing)
        self.follower = ChunkFollower(trailer_bytes=TRAILER_BYTES) if head.chunked else None
        self.left = UNTIL_CLOSE if head.chunked or head.content_length is None else head.content_length
        if self.left == 0:
            if rest:
                self.reusable = False
            self.phase = HOLD
            self.held = []
            self._body_ended()
        elif self.left == UNTIL_CLOSE:
            self._begin_unknown(rest)
        else:
            self.left -= min(len(rest), self.left)
            if self.left == 0:
                self.phase = HOLD
                size = head.content_length or 0
                self.reusable = self.reusable and len(rest) == size
                self.held = [rest[:size]]
                self._body_ended()
            else:
                self._begin_body(memoryview(rest), head.content_length or 0)


def _without(head: bytes, *spans: tuple[int, int]) -> bytes:
    """Return `head` without some stretches."""
    for start, end in sorted(spans, reverse=True):
        head = head[:start] + head[end:]
    return head
