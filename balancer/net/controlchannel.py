"""The worker's control socket: snapshots in, questions answered, events out (docs/architecture.md)."""

import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import balancer
from balancer import snapshot as snapshots
from balancer.errors import BalanceError, WireError
from balancer.net import underway
from balancer.net.poller import READ, WRITE
from balancer.scoreboard import MAGIC
from balancer.wire import Channel, Message

if TYPE_CHECKING:
    from balancer.net.plane import Plane

logger = logging.getLogger(__name__)


class Holdings:
    """Descriptors that a new parent may ask for: the present snapshot with its PEM files, and the wakes."""

    def __init__(self, plane: "Plane", wakes: list[int]) -> None:
        self.plane = plane
        self.wakes = wakes
        self.snapshot: list[int] = []

    def take_snapshot(self, fds: list[int]) -> int:
        """Run on the snapshot in `fds` and keep them; return its generation.

        Raises BalanceError with nothing changed, `fds` closed.
        """
        try:
            # Every process that was handed this memfd shares one file offset: read by position only.
            snapshot = snapshots.decode(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
            self.plane.apply(snapshot, fds[1:])
        except (OSError, ValueError, LookupError, BalanceError) as error:
            for fd in fds:
                os.close(fd)
            where = "a certificate cannot be used: " if isinstance(error, ssl.SSLError) else ""
            raise BalanceError(f"{where}{error}") from error
        for fd in self.snapshot:
            os.close(fd)
        self.snapshot = fds
        return snapshot.generation


class ControlSocket:
    """Listens for control and for a new parent."""

    def __init__(self, plane: "Plane", holdings: Holdings, path: str) -> None:
        self.plane = plane
        self.holdings = holdings
        self.path = path
        self.peers: set[Peer] = set()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def listen(self) -> None:
        """Bind and listen; the folder's mode keeps others out."""
        if os.path.exists(self.path):  # noqa: PTH110 - left by a worker of the same pid long ago
            os.unlink(self.path)  # noqa: PTH108
        self.sock.bind(self.path)
        self.sock.listen(16)
        self.plane.reactor.watch(self.sock.fileno(), READ, self)
        self.plane.tell_event = self.tell_all

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        del mask
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        peer = Peer(self, Channel(sock))
        self.peers.add(peer)
        self.plane.reactor.watch(peer.fd, READ, peer)

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("the control socket failed inside: %r", error, exc_info=error)

    def tell_all(self, event: Message) -> None:
        """Send an event to everybody who is connected."""
        for peer in list(self.peers):
            peer.send(event)

    def close(self) -> None:
        """Close all and remove the socket."""
        for peer in list(self.peers):
            peer.close()
        self.sock.close()
        if os.path.exists(self.path):  # noqa: PTH110
            os.unlink(self.path)  # noqa: PTH108


class Peer:
    """One connection to the control socket."""

    def __init__(self, owner: ControlSocket, channel: Channel) -> None:
        self.owner = owner
        self.plane = owner.plane
        self.channel = channel
        self.fd = channel.fileno()

    def ready(self, mask: int) -> None:
        """See reactor.Handler."""
        try:
            if mask & WRITE:
                self.channel.flush()
                self._watch()
            if mask & ~WRITE:
                for message, fds in self.channel.receive():
                    self._handle(message, list(fds))
        except WireError:
            self.close()

    def broken(self, error: Exception) -> None:
        """See reactor.Handler."""
        logger.error("a control message failed inside: %r", error, exc_info=error)
        self.close()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send; a peer that is gone or reads nothing is dropped."""
        if self not in self.owner.peers:
            return
        try:
            self.channel.send(message, fds)
            self._watch()
        except WireError:
            self.close()

    def _watch(self) -> None:
        self.plane.reactor.poller.modify(self.fd, READ | (WRITE if self.channel.wants_write else 0))

    def close(self) -> None:
        """Close at the end of the turn."""
        if self in self.owner.peers:
            self.owner.peers.discard(self)
            self.plane.reactor.forget(self.fd)
            self.plane.reactor.closing.append(self.channel.close)

    def _handle(self, message: Message, fds: list[int]) -> None:
        match message.get("type"):
            case "snapshot" if fds:
                self._snapshot(fds)
            case "listeners":
                self._listeners(message["listeners"], fds)
            case "exchanges":
                found = underway.describe(self.plane, message.get("node"), int(message.get("limit", 100)))
                self.send({"type": "exchanges", "exchanges": found})
            case "held-back":
                self.send({"type": "held-back", "exchanges": underway.held_back(self.plane)})
            case "cut":
                self.send({"type": "cut", "cut": underway.cut(self.plane, message.get("node"))})
            case "reopen-log":
                self._reopen(fds)
            case "stop":
                self.plane.stop(float(message["deadline_s"]), final=bool(message.get("final")))
            case "handover":
                self._handover()
            case other:
                self._close_all(fds)
                logger.warning("a control message of unknown type %r was ignored", other)

    @staticmethod
    def _close_all(fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)

    def _snapshot(self, fds: list[int]) -> None:
        try:
            generation = self.owner.holdings.take_snapshot(fds)
        except BalanceError as error:
            self.owner.tell_all({"type": "event", "kind": "certificate-failed", "reason": str(error)})
            self.send({"type": "refused", "reason": str(error)})
            return
        # The answer goes at the end of the turn: then the loop runs on it.
        self.plane.reactor.again.append(lambda: self.send({"type": "applied", "generation": generation}))

    def _listeners(self, listeners: dict[str, int], fds: list[int]) -> None:
        for slot, count in listeners.items():
            if count:
                self.plane.add_sockets(int(slot), [socket.socket(fileno=fds.pop(0)) for _ in range(count)])
            else:
                self.plane.drop_sockets(int(slot))
        self._close_all(fds)
        self.send({"type": "listening"})

    def _reopen(self, fds: list[int]) -> None:
        try:
            self.plane.log.reopen(fds[0] if fds else None)
        except OSError as error:
            self.send({"type": "refused", "reason": f"the log cannot be opened: {error}"})
        else:
            self.send({"type": "reopened"})
        self._close_all(fds)

    def _handover(self) -> None:
        plane, holdings = self.plane, self.owner.holdings
        listeners = {slot: [a.sock.fileno() for a in acceptors] for slot, acceptors in plane.sockets.items()}
        answer: dict[str, Any] = {
            "type": "handover",
            "slot": plane.slot,
            "pid": os.getpid(),
            "version": balancer.__version__,
            "layout": MAGIC,
            "listeners": {str(slot): len(sockets) for slot, sockets in listeners.items()},
            "snapshot": len(holdings.snapshot),
            "wakes": len(holdings.wakes),
        }
        flat = [fd for sockets in listeners.values() for fd in sockets]
        self.send(answer, (plane.board.fd, *holdings.wakes, *flat, *holdings.snapshot))
