"""Listening sockets: opened once, held for as long as their bind is configured, handed to workers."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balancer.errors import BalanceError

DEFAULT_BACKLOG = 4096  # the kernel lowers it to net.core.somaxconn
DEFAULT_UNIX_MODE = 0o660
UNIX_PREFIX = "unix:"
Address = tuple[Any, ...]
_HINTS = {
    errno.EADDRINUSE: "another process listens there, `ss -ltnp` says which",
    errno.EACCES: "not allowed for this user; ports below 1024 need CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
}


class BindError(BalanceError):
    """Binds that cannot be opened; nothing was changed. `faults` are (listener slot, bind, reason)."""

    def __init__(self, faults: Sequence[tuple[int, str, str]]) -> None:
        super().__init__("; ".join(f"{bind}: {reason}" for _slot, bind, reason in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bind as control asks for it."""

    slot: int
    bind: str
    backlog: int = DEFAULT_BACKLOG
    mode: int = DEFAULT_UNIX_MODE


@dataclass(slots=True)
class Held:
    """One listening socket and the worker slots that accept from it."""

    sock: socket.socket
    owners: set[int] = field(default_factory=set)

    @property
    def identity(self) -> tuple[int, int]:
        """Equal for duplicates of the same socket."""
        status = os.fstat(self.sock.fileno())
        return status.st_dev, status.st_ino


@dataclass(slots=True)
class Bind:
    """All sockets of one bind. `shared`: every worker accepts from each; `inherited`: the service manager's."""

    wanted: Wanted
    sockets: list[Held] = field(default_factory=list)
    shared: bool = False
    inherited: bool = False

    @property
    def address(self) -> str:
        """Where it really listens: the port is known when it was asked for as 0."""
        return describe(self.sockets[0].sock)


def split(bind: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[HOST]:PORT`; `*` and nothing are all IPv4 addresses."""
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{bind!r} is not HOST:PORT")
    host = host.strip("[]")
    return ("0.0.0.0" if host in ("", "*") else host), int(port)  # noqa: S104 - what the operator wrote


def describe(sock: socket.socket) -> str:
    """Return the address of a listening socket as a bind is written."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return UNIX_PREFIX + (name.decode() if isinstance(name, bytes) else str(name))
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def open_sockets(wanted: Wanted, count: int, at: str | None = None) -> list[socket.socket]:
    """Open `count` sockets of a bind (a Unix bind: one). `at` is where its first ones listen already.

    Raises OSError or ValueError with nothing left open.
    """
    if wanted.bind.startswith(UNIX_PREFIX):
        return [_open_unix(wanted)]
    host, port = split(at or wanted.bind)
    family, _kind, _proto, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if at is None and port:
        _refuse_taken(family, address)
    opened: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for _ in range(count):
            sock = _open_tcp(family, address, wanted.backlog)
            undo.callback(sock.close)
            opened.append(sock)
            address = sock.getsockname()
        undo.pop_all()
    return opened


def _refuse_taken(family: int, address: Address) -> None:
    # SO_REUSEPORT would let us share the port with any process of the same user; without it bind tells.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        _prepare(probe)
        probe.bind(address)


def _prepare(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # a bind is what it says, as with nginx


def _open_tcp(family: int, address: Address, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        _prepare(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it: a call saved each
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(wanted: Wanted) -> socket.socket:
    path = Path(wanted.bind.removeprefix(UNIX_PREFIX))
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~wanted.mode)  # so that it never exists with wider rights
    try:
        sock.bind(str(path))
        sock.listen(wanted.backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on. Raises OSError when it is in use or something else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its queue is full, so somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def reason(exc: OSError | ValueError) -> str:
    """Say why a bind cannot be opened."""
    if not isinstance(exc, OSError) or exc.errno is None:
        return str(exc)
    hint = _HINTS.get(exc.errno, "")
    return f"{exc.strerror} ({hint})" if hint else str(exc.strerror)


@dataclass(frozen=True, slots=True)
class Change:
    """Sockets opened for a wanted set of binds, not yet in use; give it to `commit` or to `undo`."""

    binds: Mapping[int, Bind]
    opened: tuple[tuple[Bind, Held], ...]
    removed: tuple[Bind, ...]


class Registry:
    """The binds by listener slot, and sockets that wait for a bind to claim them (socket activation, takeover)."""

    def __init__(self) -> None:
        self.binds: dict[int, Bind] = {}
        self.spare: list[socket.socket] = []

    def prepare(self, wanted: Iterable[Wanted], workers: int) -> Change:
        """Open what is missing. Raises BindError naming every bind that fails, with nothing changed."""
        binds: dict[int, Bind] = {}
        opened: list[tuple[Bind, Held]] = []
        faults: list[tuple[int, str, str]] = []
        spare = list(self.spare)
        for want in wanted:
            bind = self.binds.get(want.slot)
            if bind is None or bind.wanted.bind != want.bind:
                bind = self._claimed(want, spare)
            binds[want.slot] = bind
            try:
                opened += [(bind, Held(sock)) for sock in self._missing(bind, want, workers)]
            except (OSError, ValueError) as exc:
                faults.append((want.slot, want.bind, reason(exc)))
        if faults:
            _close(opened)
            raise BindError(faults)
        kept = {id(bind) for bind in binds.values()}
        removed = tuple(bind for bind in self.binds.values() if id(bind) not in kept)
        return Change(binds, tuple(opened), removed)

    def commit(self, change: Change) -> None:
        """Make the change current. The sockets of `change.removed` are left to the caller to close."""
        for bind, held in change.opened:
            bind.sockets.append(held)
        self.binds = dict(change.binds)
        claimed = {held.sock.fileno() for bind in self.binds.values() for held in bind.sockets}
        self.spare = [sock for sock in self.spare if sock.fileno() not in claimed]

    @staticmethod
    def undo(change: Change) -> None:
        """Close what was opened."""
        _close(change.opened)

    @staticmethod
    def _claimed(want: Wanted, spare: list[socket.socket]) -> Bind:
        mine = [sock for sock in spare if _is_at(sock, want.bind)]
        for sock in mine:
            spare.remove(sock)
        unix = want.bind.startswith(UNIX_PREFIX)
        return Bind(want, [Held(sock) for sock in mine], shared=unix or bool(mine), inherited=bool(mine))

    @staticmethod
    def _missing(bind: Bind, want: Wanted, workers: int) -> list[socket.socket]:
        if bind.inherited or (bind.shared and bind.sockets):
            return []  # a service manager's socket outlives us; one that we added would not
        count = workers - len(bind.sockets)
        if count <= 0:
            return []
        return open_sockets(want, count, bind.address if bind.sockets else None)


def _is_at(sock: socket.socket, bind: str) -> bool:
    if bind.startswith(UNIX_PREFIX):
        return sock.family == socket.AF_UNIX and describe(sock) == bind
    if sock.family == socket.AF_UNIX:
        return False
    try:
        host, port = split(bind)
        family, _kind, _proto, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, ValueError):
        return False
    return sock.family == family and sock.getsockname()[:2] == address[:2]


def _close(opened: Iterable[tuple[Bind, Held]]) -> None:
    for bind, held in opened:
        if bind.wanted.bind.startswith(UNIX_PREFIX):
            Path(bind.wanted.bind.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)
        held.sock.close()


def activated(environment: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Return the listening sockets that a service manager passed (sd_listen_fds(3)); [] when there are none."""
    if environment.get("LISTEN_PID") != str(pid):
        return []
    found: list[socket.socket] = []
    for fd in range(3, 3 + int(environment.get("LISTEN_FDS", "0"))):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        found.append(sock)
    return found
