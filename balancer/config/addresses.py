"""Addresses as texts: networks, what to listen on, where nodes are."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from balancer.config.scalars import Text, bad
from balancer.errors import ConfigError


class Network(Text, str):
    """A network in CIDR form, or one address."""

    __slots__ = ()
    _pattern, _example, _noun = r"[0-9A-Fa-f:.]+(?:/\d{1,3})?", "10.0.0.0/8", "a network"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the network in its canonical form."""
        text = cls._text(value)
        try:
            return cls(ipaddress.ip_network(text))
        except ValueError:
            pass
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            hint = "write an address or a network: 10.0.0.5, 10.0.0.0/8, fd00::/8"
            raise bad(f"{text!r} is not a network", hint) from None
        raise bad(f"{text!r} has bits set behind its prefix", f"write {meant}")


class Bind(Text, str):
    """Where to listen: `ADDRESS:PORT`, `[ADDRESS]:PORT` or `unix:/path`."""

    __slots__ = ()
    _pattern, _example, _noun = r"unix:/.+|[^/ ]*:\d{1,5}", "0.0.0.0:443", "an address to listen on"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the address in its canonical form."""
        text = cls._text(value)
        if text.startswith("unix:"):
            if text.startswith("unix:/") and len(text) - 5 <= 100:
                return cls(text)
            raise bad(f"{text!r} cannot be listened on", "write unix: and an absolute path of at most 100 bytes")
        host, colon, port = text.rpartition(":")
        if not colon:
            raise bad(f"{text!r} has no port", f"write {text}:443" if text else "write 0.0.0.0:443")
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise bad(f"{port!r} is not a port", "write a number from 1 to 65535 behind the colon")
        return cls(f"{cls._host(host, int(port))}:{int(port)}")

    @staticmethod
    def _host(host: str, port: int) -> str:
        if host == "localhost":
            return host
        try:
            address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        except ValueError:
            hint = "write an address of this machine, or 0.0.0.0 or [::] for all of them"
            raise bad(f"{host!r} is not an address to listen on", hint) from None
        if address.version == 6 and not host.startswith("["):
            raise bad(f"'{host}:{port}' is ambiguous", f"write IPv6 addresses in brackets: [{host}]:{port}")
        return f"[{address}]" if address.version == 6 else str(address)

    @property
    def is_unix(self) -> bool:
        """True for a socket in the file system."""
        return self.startswith("unix:")

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach it."""
        host = self.rpartition(":")[0].strip("[]")
        return self.is_unix or host == "localhost" or ipaddress.ip_address(host).is_loopback

    @property
    def port(self) -> int:
        """Its port; 0 lets the system choose, and for a Unix socket."""
        return 0 if self.is_unix else int(self.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A node's URL taken apart. `unix_path` is set instead of host and port for `unix:/path`."""

    scheme: str
    host: str
    port: int
    unix_path: str = ""


class NodeUrl(Text, str):
    """Where a node listens: `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/path`."""

    __slots__ = ()
    _pattern, _example, _noun = r"https?://[^/?#@ ]+/?|unix:/.+", "http://10.0.0.11:8003", "a node's URL"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the URL in its canonical form, without a final slash. Never repeats credentials."""
        text = cls._text(value)
        if "@" in text and not text.startswith("unix:"):
            raise bad("a node's URL cannot hold credentials", "remove everything before the @")
        if text.startswith("unix:"):
            if text.startswith("unix:/"):
                return cls(text)
            raise bad(f"{text!r} is not a node's URL", "write unix: and an absolute path")
        return cls(cls._http(text))

    @staticmethod
    def _http(text: str) -> str:
        example = "write http://HOST:PORT, https://HOST:PORT or unix:/path"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise bad(f"{text!r} is not a node's URL", example) from None
        if parts.scheme not in ("http", "https") or not host or re.search(r"[^\w.:%-]", host):
            raise bad(f"{text!r} is not a node's URL", example)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise bad(f"{text!r} has a path", "nodes are whole servers: write the URL up to the port")
        shown = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 80)}"

    @property
    def parts(self) -> UrlParts:
        """Scheme, host and port, or the path of a Unix socket."""
        if self.startswith("unix:"):
            return UrlParts("unix", "", 0, self[5:])
        split = urlsplit(self)
        return UrlParts(split.scheme, cast(str, split.hostname), cast(int, split.port))


class BadTextError(ConfigError):
    """A text from elsewhere than the file cannot be used. `hint` says what to write."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def node_url(text: object) -> NodeUrl:
    """Return a node's URL that comes from a command or the admin API. Raises BadTextError."""
    try:
        return NodeUrl.parse(text)
    except PydanticCustomError as exc:
        context = exc.context or {}
        raise BadTextError(context["message"], context["hint"]) from None
