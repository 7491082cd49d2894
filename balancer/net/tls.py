"""TLS on both sides: contexts from descriptors, non-blocking sockets, and client connections that begin with it."""

import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from balancer.core.exchange import Cause
from balancer.model import ListenerTls, NodeTls
from balancer.net.downstream import Downstream
from balancer.net.listener import Gate
from balancer.net.poller import READ, WRITE
from balancer.net.proxyprotocol import Malformed, Unfinished, parse_proxy
from balancer.scoreboard import W_TLS_FAILED, W_TLS_HANDSHAKES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from balancer.net.plane import Plane

logger = logging.getLogger(__name__)

QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
PEEK_BYTES = 4096


class TlsSocket:
    """A non-blocking SSLSocket with the interface of `stream.Socket`.

    BlockingIOError instead of SSLWant..., and it tells when a read left something decrypted behind, since no poller
    sees that. Once hands are shaken it calls the SSL object inside, because SSLSocket's
    own methods check in Python what cannot be here: 0.9 us less a request.
    """

    __slots__ = ("_session", "_tls", "raw")

    def __init__(self, raw: socket.socket, tls: ssl.SSLSocket) -> None:
        self.raw = raw
        self._tls = tls
        self._session: Any = None  # the `_ssl._SSLSocket` inside

    def quickly(self) -> "tuple[Callable[[int], bytes], Callable[[bytes | memoryview], int]]":
        """Return `recv` and `send_once` of the session itself, after hands are shaken: 0.1 us less for each call."""
        return self._session.read, self._session.write

    def left_over(self) -> bool:
        """Whether decrypted bytes did not fit into the buffer of the last read: a record is decrypted whole."""
        return self._session is not None and self._session.pending() > 0

    def handshake(self) -> int | None:
        """Go on shaking hands: 0 done, READ or WRITE to wait for, None failed."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        except OSError as error:
            logger.debug("TLS handshake failed: %s", error)
            return None
        self._session = self._tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - see the class
        return 0

    def recv(self, size: int) -> bytes:
        """See stream.Socket."""
        try:
            data: bytes = self._session.read(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""
        return data

    def recv_into(self, buffer: "bytearray | memoryview") -> int:
        """See stream.Socket."""
        size = len(buffer)
        try:
            count: int = self._session.read(size, buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return 0
        return count

    def send(self, data: "bytes | memoryview") -> int:
        """See stream.Socket. OpenSSL takes one record a call, so go on until it takes no more."""
        session, sent, size = self._session, 0, len(data)
        try:
            sent = session.write(data)
            while sent < size:
                sent += session.write(memoryview(data)[sent:])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not sent:
                raise BlockingIOError from None
        return sent

    def sendmsg(self, buffers: "Iterable[bytes | memoryview]") -> int:
        """See stream.Socket."""
        return self.send(b"".join(buffers))

    def fileno(self) -> int:
        """See stream.Socket."""
        return self._tls.fileno()

    def shutdown(self, how: int) -> None:
        """Send close_notify, then half-close."""
        self._notify()
        self._tls.shutdown(how)

    def _notify(self) -> None:
        try:
            self._tls.unwrap()
        except (OSError, ValueError):
            return  # its own close_notify has not come: expected, we do not wait for it

    def close(self) -> None:
        """Send close_notify and close."""
        self._notify()
        self._tls.close()


class NodeContext:
    """Makes TLS connections to one node."""

    __slots__ = ("_context", "_name")

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._context = context
        self._name = name

    def wrap(self, raw: socket.socket) -> TlsSocket:
        """Put TLS around a connected socket."""
        tls = self._context.wrap_socket(
            raw, server_hostname=self._name, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        return TlsSocket(tls, tls)


def _path(pems: list[int], index: int) -> str:
    """Return a path under which OpenSSL can read a descriptor that was handed to us."""
    os.lseek(pems[index], 0, os.SEEK_SET)
    return f"/proc/self/fd/{pems[index]}"


def node_context(tls: NodeTls, pems: list[int]) -> NodeContext:
    """Return how to speak TLS to a node. Raises ssl.SSLError, OSError, IndexError for what cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is not None:
        context.load_verify_locations(_path(pems, tls.ca))
    else:
        context.load_default_certs()
    return NodeContext(context, tls.server_name)


class ListenerContexts:
    """Certificates of a listener by server name."""

    __slots__ = ("_exact", "_suffixes", "default")

    def __init__(self, tls: ListenerTls, pems: list[int]) -> None:
        """Load all. Raises ssl.SSLError, OSError, IndexError for what cannot be used."""
        self._exact: dict[str, ssl.SSLContext] = {}
        self._suffixes: dict[str, ssl.SSLContext] = {}
        contexts = [(names, _server_context(tls, pems, index)) for names, index in tls.certificates]
        self.default = contexts[0][1]
        for names, context in contexts:
            for name in names:
                if name.startswith("*."):
                    self._suffixes.setdefault(name[1:].lower(), context)
                else:
                    self._exact.setdefault(name.lower(), context)
        self.default.sni_callback = self._choose

    def _choose(self, sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Set the context for a server name; an unknown one gets the default certificate."""
        if name:
            lower = name.lower()
            found = self._exact.get(lower) or self._suffixes.get(lower[lower.find(".") :] if "." in lower else "")
            if found is not None:
                sock.context = found


def _server_context(tls: ListenerTls, pems: list[int], index: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_path(pems, index))
    context.minimum_version = ssl.TLSVersion[tls.minimum_version.replace(".", "_")]
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    # Tickets would be sealed with a key of this process alone: with several workers most resumptions fail after
    # the client sent its ticket. docs/decisions/0012 has the numbers.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if tls.client_ca is not None:
        context.load_verify_locations(_path(pems, tls.client_ca))
        context.verify_mode = ssl.CERT_REQUIRED if tls.client_required else ssl.CERT_OPTIONAL
    return context


class TlsClient(Downstream):
    """A client connection that begins with a PROXY header, a TLS handshake, or both in this order."""

    __slots__ = ("_contexts", "_needs_proxy", "_raw", "_refused_for", "_settled", "_tls")

    def __init__(
        self,
        plane: "Plane",
        raw: socket.socket,
        gate: Gate,
        address: tuple[str, int],
        contexts: ListenerContexts | None,
        refused_for: Cause | None = None,
    ) -> None:
        """`refused_for`: what its request is refused for, once it is there."""
        super().__init__(plane, raw, raw.fileno(), gate, *address)
        self._refused_for = refused_for
        self._raw = raw
        self._contexts = contexts
        self._needs_proxy = gate.must_send_proxy(address[0])
        self._settled = self.is_ordinary = False
        self._tls: TlsSocket | None = None

    def ready_otherwise(self, mask: int) -> None:
        """See Downstream."""
        if self._settled:
            super().ready_otherwise(mask)
            self.look_for_rest()
            return
        if self._needs_proxy and not self._take_proxy():
            return
        if self._contexts is not None and not self._shake_hands():
            return
        if self._refused_for is not None:
            self.worker.turn_away(self, self._refused_for)
            return
        self._settled = self.is_ordinary = True
        self.interest(READ)

    def interest(self, mask: int) -> None:
        """See Stream. What OpenSSL holds came before: no poller will tell of it."""
        super().interest(mask)
        self.look_for_rest()

    def look_for_rest(self) -> None:
        """See Downstream."""
        if self.mask & READ and self._tls is not None and self._tls.left_over():
            self.reactor.again.append(self._read_rest)

    def _read_rest(self) -> None:
        if not self.closed and self.mask & READ:
            self.ready(READ)

    def _take_proxy(self) -> bool:
        """Take the PROXY header, and not a byte more: what follows may be TLS."""
        try:
            seen = self._raw.recv(PEEK_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            seen = b""
        found = parse_proxy(seen)
        if isinstance(found, Unfinished) and seen:
            # Peeked bytes keep the socket readable: look again in a while instead of spinning.
            self.interest(0)
            self.reactor.call_later(20_000_000, lambda: self.interest(READ))
            return False
        if isinstance(found, Malformed | Unfinished):
            self.close()
            return False
        self._raw.recv(found.length)
        if found.address is not None:
            self.peer, self.port = found.address
        self._needs_proxy = False
        return True

    def _shake_hands(self) -> bool:
        sock: Any = self.sock
        if not isinstance(sock, TlsSocket):
            assert self._contexts is not None
            if self._speaks_plainly():
                self.worker.count(W_TLS_FAILED)
                self.worker.turn_away(self, Cause.PLAIN_ON_TLS)
                return False
            try:
                tls = self._contexts.default.wrap_socket(
                    self._raw, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
                )
            except OSError:
                self.close()
                return False
            sock = self._tls = TlsSocket(tls, tls)
            self.use(sock)
        wanted = sock.handshake()
        if wanted is None:
            self.worker.count(W_TLS_FAILED)
            self.close()
            return False
        if wanted:
            self.interest(wanted)
            return False
        self.recv, self.send_once = sock.quickly()
        self.worker.count(W_TLS_HANDSHAKES)
        self._acknowledge()
        return True

    def _acknowledge(self) -> None:
        """Acknowledge the client's last handshake message now, since we answer it with nothing.

        A client without TCP_NODELAY holds its request back until then: 42 ms with the kernel's delayed acknowledgement.
        """
        if QUICK_ACK is not None and not self.gate.is_unix and self._tls is not None:
            self._tls.raw.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    def _speaks_plainly(self) -> bool:
        """Whether the first byte begins a method instead of a handshake: OpenSSL would take it, and tell too little."""
        try:
            first = self._raw.recv(1, socket.MSG_PEEK)
        except OSError:  # nothing there yet, or broken: the handshake finds out
            return False
        return b"A" <= first <= b"Z"


__all__ = ["ListenerContexts", "NodeContext", "TlsClient", "TlsSocket", "node_context"]
