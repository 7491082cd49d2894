"""Client connections whose requests are refused whatever they are, so that clients learn why."""

from typing import TYPE_CHECKING

from balancer.net.downstream import Downstream
from balancer.net.poller import READ
from balancer.net.tls import TlsSocket

if TYPE_CHECKING:
    from balancer.core.exchange import Cause
    from balancer.core.http1 import RequestHead
    from balancer.net.site import Site

PATIENCE_NS = 2_000_000_000  # for a head: whoever is silent for so long is not waiting for an answer


class TurnedAway(Downstream):
    """Takes the place of `old`, whose socket becomes ours. Its first request is answered with `cause`, then it ends."""

    __slots__ = ("_cause",)

    def __init__(self, old: Downstream, cause: "Cause") -> None:
        super().__init__(old.worker, old.sock, old.fd, old.gate, old.peer, old.port)
        self._cause = cause
        self.mask = old.mask
        self.deadline = self.reactor.now + PATIENCE_NS
        old.closed = True

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        super().ready(mask)
        sock = self.sock
        if isinstance(sock, TlsSocket) and sock.left_over() and not self.closed:
            self.reactor.again.append(self._read_rest)

    def _read_rest(self) -> None:
        if not self.closed:
            self.ready(READ)

    def _parse(self, data: bytes) -> None:
        self._parse_slowly(data)

    def _begin(self, data: bytes, head: "RequestHead", site: "Site") -> None:
        del data
        exchange = self._new_exchange(site, head.method, head.target, head.host)
        exchange.request_id = self._request_id(head.fields, site)
        exchange.http11 = head.minor == 1
        exchange.close = True
        self.worker.accept()
        self.exchange = exchange
        self.requests += 1
        self.data = b""
        exchange.answer(self._cause)
