"""Who the client is: the peer, or the nearest address that no trusted proxy vouches away."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

UNIX = "unix:"  # the peer of a Unix socket listener, and the word that trusts it
_MEMO_MAX = 4096

Address = IPv4Address | IPv6Address


def parse_address(text: str) -> Address | None:
    """Return an address as X-Forwarded-For may hold it, or None.

    With or without port and brackets; without zone; an IPv4-mapped IPv6 address is the IPv4 address.
    """
    text = text.strip()
    if text.startswith("["):
        text, _, rest = text[1:].partition("]")
        if rest and not (rest.startswith(":") and rest[1:].isdigit()):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not port.isdigit():
            return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Networks:
    """A set of CIDR networks with quick membership: one dict look-up for an address seen before, else a bisection.

    Raises ValueError for a text that is no network.
    """

    __slots__ = ("_bounds", "_memo", "_unix")

    def __init__(self, networks: Iterable[str]) -> None:
        texts = tuple(networks)
        self._unix = UNIX in texts
        # Even and odd bounds of disjoint stretches on one line; IPv4 lies at its mapped place in IPv6.
        self._bounds = _disjoint(_stretch(text) for text in texts if text != UNIX)
        self._memo: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        known = self._memo.get(address)
        if known is None:
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            known = self._memo[address] = self._look(address)
        return known

    def __bool__(self) -> bool:
        return self._unix or bool(self._bounds)

    def _look(self, text: str) -> bool:
        if text == UNIX:
            return self._unix
        address = parse_address(text)
        return address is not None and bisect_right(self._bounds, _place(address)) % 2 == 1


def _place(address: Address) -> int:
    return int(address) if address.version == 6 else int(address) | 0xFFFF << 32


def _stretch(text: str) -> tuple[int, int]:
    network = ip_network(text.strip(), strict=False)
    first = _place(network.network_address)
    return first, first + network.num_addresses


def _disjoint(stretches: Iterable[tuple[int, int]]) -> list[int]:
    bounds: list[int] = []
    for first, end in sorted(stretches):
        if bounds and first <= bounds[-1]:
            bounds[-1] = max(bounds[-1], end)
        else:
            bounds += (first, end)
    return bounds


def client_address(peer: str, forwarded_for: Sequence[bytes], trusted: Networks) -> str:
    """Return the client's address: X-Forwarded-For from right to left through trusted proxies.

    Args:
        peer: address of the connection, `unix:` for a Unix socket.
        forwarded_for: values of all X-Forwarded-For lines in order.
        trusted: proxies whose word on the next hop is taken. An entry that is no address ends the walk: the last
            proxy that is known to be one of ours is then as far as anybody can tell.
    """
    return client_behind(peer, forwarded_for, trusted) if peer in trusted else peer


def client_behind(proxy: str, forwarded_for: Sequence[bytes], trusted: Networks) -> str:
    """Return the client's address for a peer that is known to be a trusted proxy; see `client_address`."""
    client = proxy
    for entry in reversed([entry for line in forwarded_for for entry in line.split(b",")]):
        address = parse_address(entry.decode("latin-1"))
        if address is None:
            break
        client = str(address)
        if client not in trusted:
            break
    return client


def forwarded_for_value(peer: str, forwarded_for: Sequence[bytes], trusted: Networks) -> bytes:
    """Return the one X-Forwarded-For value for the node: a trusted proxy's list goes on, anybody else's is replaced."""
    own = b"127.0.0.1" if peer == UNIX else peer.encode("latin-1")
    if peer not in trusted:
        return own
    return b", ".join([*(line.strip() for line in forwarded_for if line.strip()), own])


def external_client(client: str, internal: Networks) -> bytes:
    """Return the value of X-External-Client: 0 for clients of the internal networks, 1 for all others."""
    return b"0" if client in internal or client == UNIX else b"1"
