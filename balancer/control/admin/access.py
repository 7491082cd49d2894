"""Who asks, and what they may do: peer credentials on the Unix socket, tokens and roles on TCP."""

import hmac
import pwd
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

from balancer.control.admin.problem import ProblemError

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED


class Role(IntEnum):
    """What a caller may do; a higher one includes the lower ones."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` goes into intents and events."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the configuration names it, with its secret."""

    name: str
    role: Role
    secret: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a TCP request decides: `host` and `origin` as sent, "" when absent."""

    host: str
    origin: str
    fetch_site: str
    authorization: str
    is_mutation: bool
    is_loopback: bool


def unix_caller(sock: socket.socket) -> Caller:
    """Return who is at the other end of a Unix socket. Who may open it is an admin; the name is for the record."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return Caller(name, Role.ADMIN)


def tcp_caller(asked: Asked, tokens: Sequence[Token], hosts: Sequence[str]) -> Caller:
    """Return who asks over TCP. Raises ProblemError for a wrong Host, a foreign Origin or a wrong token.

    Without any configured token, loopback may read and nobody may change anything. The Host list defeats DNS
    rebinding, the Origin check keeps other sites' pages from acting with a browser's credentials.
    """
    check_origin(asked, hosts)
    if not tokens:
        if asked.is_loopback and not asked.is_mutation:
            return Caller("loopback", Role.VIEWER)
        raise ProblemError(
            403,
            "no token is configured, so this address only answers reads from this machine",
            hint="use the Unix socket, or configure admin.tokens",
        )
    return _token_caller(asked.authorization, tokens)


def monitoring_caller(asked: Asked, token: bytes, hosts: Sequence[str]) -> Caller | None:
    """Return who asks when it is a monitor with the cluster's management token, None when it is not."""
    scheme, _, given = asked.authorization.partition(" ")
    if not token or scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(given), token):
        return None
    check_origin(asked, hosts)
    return Caller("management token", Role.VIEWER)


def check_origin(asked: Asked, hosts: Sequence[str]) -> None:
    """Raise ProblemError for a Host that is not ours, or a change that another site's page asks for."""
    host = host_name(asked.host)
    if not _is_known(host, hosts):
        raise ProblemError(421, f"this is not {host or 'that host'!r}", why="the Host field names another server")
    if asked.is_mutation and not _is_same_origin(asked):
        raise ProblemError(403, "the request comes from another site", why="its Origin is not this server's")


def _token_caller(authorization: str, tokens: Sequence[Token]) -> Caller:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise ProblemError(401, "a token is needed", hint="send it as Authorization: Bearer TOKEN")
    found = find_token(_bytes(given), tokens)
    if found is None:
        raise ProblemError(401, "the token is not known")
    return Caller(found.name, found.role)


def _bytes(given: str) -> bytes:
    """Return what was sent in a field; bytes that are no UTF-8 came as surrogates."""
    return given.strip().encode("utf-8", "surrogateescape")


def find_token(secret: bytes, tokens: Sequence[Token]) -> Token | None:
    """Return the token with this secret."""
    found = None
    for token in tokens:  # all are compared, so that the time tells nothing about which one fits
        if token.secret and hmac.compare_digest(token.secret, secret):
            found = token
    return found


def host_name(host: str) -> str:
    """Return a Host field without its port, lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_known(host: str, hosts: Sequence[str]) -> bool:
    if host == "localhost" or host in hosts:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True  # an address cannot be made to mean another machine, as a name can


def _is_same_origin(asked: Asked) -> bool:
    if asked.fetch_site and asked.fetch_site not in {"same-origin", "none"}:
        return False
    if not asked.origin:
        return True  # not a browser: browsers send it with every unsafe method
    try:
        return urlsplit(asked.origin).netloc.lower() == asked.host.lower()
    except ValueError:
        return False
