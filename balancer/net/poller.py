"""Readiness of descriptors, level-triggered: epoll, or `selectors` where there is none."""

import select
import selectors
from typing import Protocol

READ, WRITE, ERROR, HANGUP = 1, 4, 8, 16  # EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
PEER_CLOSED = 0x2000  # EPOLLRDHUP: the peer sends no more; with `selectors` only reading tells


class Poller(Protocol):
    """What `select.epoll` offers; masks are its numbers."""

    def register(self, fd: int, mask: int, /) -> None:
        """Watch `fd`."""

    def modify(self, fd: int, mask: int, /) -> None:
        """Watch `fd` for something else; 0 leaves only ERROR and HANGUP."""

    def unregister(self, fd: int, /) -> None:
        """Stop watching."""

    def poll(self, timeout: float | None = None, maxevents: int = -1, /) -> list[tuple[int, int]]:
        """Return (fd, mask) pairs; `timeout` in seconds."""

    def close(self) -> None:
        """Give the descriptor back."""


class SelectorsPoller:
    """The same over `selectors`, for development on other systems.

    Has no PEER_CLOSED: a parked client that leaves is noticed when it is answered.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._silent: set[int] = set()

    def register(self, fd: int, mask: int) -> None:
        """See Poller."""
        events = self._events(mask)
        if events:
            self._selector.register(fd, events)
        else:
            self._silent.add(fd)

    def modify(self, fd: int, mask: int) -> None:
        """See Poller."""
        self.unregister(fd)
        self.register(fd, mask)

    def unregister(self, fd: int) -> None:
        """See Poller."""
        if fd in self._silent:
            self._silent.discard(fd)
        else:
            self._selector.unregister(fd)

    def poll(self, timeout: float | None = None, _maxevents: int = -1) -> list[tuple[int, int]]:
        """See Poller."""
        found = self._selector.select(timeout)
        return [
            (key.fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
            for key, events in found
        ]

    def close(self) -> None:
        """See Poller."""
        self._selector.close()

    @staticmethod
    def _events(mask: int) -> int:
        return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def make_poller(*, force_selectors: bool = False) -> Poller:
    """Return the best poller of this system."""
    if force_selectors or not hasattr(select, "epoll"):
        return SelectorsPoller()
    return select.epoll()
