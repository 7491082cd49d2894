"""Which worker accepts from which listening socket."""

from collections.abc import Callable, Iterable, Sequence

from balancer.supervisor.rules import missing_shares
from balancer.supervisor.sockets import Bind, Registry
from balancer.wire import Message

Send = Callable[[int, Message, tuple[int, ...]], None]  # to the worker on a slot, if there is one


class Allotment:
    """Hands out the sockets of a registry. Ownership belongs to a slot, so a successor finds it."""

    def __init__(self, registry: Registry, send: Send) -> None:
        self._registry = registry
        self._send = send

    def share(self, slots: Sequence[int]) -> None:
        """See to it that every socket has an owner among `slots`, and each of them a socket of every bind."""
        for listener, bind in self._registry.binds.items():
            owners = [frozenset(held.owners) for held in bind.sockets]
            for slot, indices in missing_shares(owners, slots, shared=bind.shared).items():
                self._give(slot, listener, bind, indices)

    def take_back(self, slot: int) -> None:
        """Make `slot` the only owner of its sockets again, after others kept them in its absence."""
        for listener, bind in self._registry.binds.items():
            mine = [held for held in bind.sockets if slot in held.owners]
            others = {owner for held in mine for owner in held.owners} - {slot}
            if bind.shared or not others:
                continue
            for held in mine:
                held.owners &= {slot}
            for other in others:
                self._send(other, _listeners(listener, 0), ())
                self._give(other, listener, bind, [i for i, held in enumerate(bind.sockets) if other in held.owners])

    def withdraw(self, listener: int, slots: Iterable[int]) -> None:
        """Tell workers to accept no more on a listener slot."""
        for slot in slots:
            self._send(slot, _listeners(listener, 0), ())

    def disown(self, slot: int) -> None:
        """Forget a slot that nobody will sit on."""
        for bind in self._registry.binds.values():
            for held in bind.sockets:
                held.owners.discard(slot)

    def of(self, slot: int) -> dict[str, list[int]]:
        """Descriptors by listener slot, for a worker that starts."""
        return {
            str(listener): [held.sock.fileno() for held in bind.sockets if slot in held.owners]
            for listener, bind in self._registry.binds.items()
        }

    def _give(self, slot: int, listener: int, bind: Bind, indices: Sequence[int]) -> None:
        for index in indices:
            bind.sockets[index].owners.add(slot)
        fds = tuple(bind.sockets[index].sock.fileno() for index in indices)
        if fds:
            self._send(slot, _listeners(listener, len(fds)), fds)


def _listeners(listener: int, count: int) -> Message:
    return {"type": "listeners", "listeners": {str(listener): count}}
