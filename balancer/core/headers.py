"""What of a head goes on to the other side, and what we add: hop-by-hop fields, X-Forwarded-*, request ids.

Source: RFC 9110 sections 7.6.1 (hop-by-hop) and 7.6.3 (Via).
"""

from dataclasses import dataclass
from typing import Final

from balancer.core.forwarded import Networks, client_behind, external_client
from balancer.core.message import Field, RequestHead, ResponseHead
from balancer.model import Forwarding

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings "
    b"proxy-authenticate proxy-authorization".split()
)
# Fields that a client cannot have removed by naming them in Connection.
PROTECTED: Final = frozenset(
    b"host content-length content-type content-encoding content-range transfer-encoding x-forwarded-for "
    b"x-forwarded-proto x-forwarded-host forwarded x-real-ip x-request-id x-external-client x-arv-designation "
    b"authorization cookie via cache-control".split()
)
_DROPPED_FROM_REQUESTS = HOP_BY_HOP | {b"content-length", b"expect", b"x-external-client"}


@dataclass(frozen=True, slots=True)
class Rules:
    """Header hygiene of one snapshot, in the form that heads are built from."""

    id_name: bytes  # as sent
    id_lower: bytes
    default_host: bytes
    via: bytes
    trusted: Networks
    internal: Networks
    external_client: bool
    drop_underscore: bool
    drop_dotted: bool

    @classmethod
    def of(cls, forwarding: Forwarding, id_header: str) -> "Rules":
        """Compile the configuration. Raises ValueError for a bad network."""
        name = id_header.encode("latin-1")
        return cls(
            name,
            name.lower(),
            forwarding.default_host.encode("latin-1"),
            f"Via: 1.1 {forwarding.via}\r\n".encode("latin-1") if forwarding.via else b"",
            Networks(forwarding.trusted_proxies),
            Networks(forwarding.internal_networks),
            forwarding.external_client_header,
            forwarding.drop_underscore,
            forwarding.drop_dotted,
        )

    def external_client_line(self, address: str) -> bytes:
        """Return the X-External-Client line for a client, or nothing."""
        if not self.external_client:
            return b""
        return b"X-External-Client: %b\r\n" % external_client(address, self.internal)

    def peer_lines(self, peer: str, scheme: bytes) -> bytes:
        """Return the lines that are the same for all requests of an untrusted peer; X-Forwarded-Host is not in it."""
        address = peer.encode("latin-1")
        return b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\n%b%b" % (
            address,
            address,
            scheme,
            self.external_client_line(peer),
            self.via,
        )


def forwarded_for(head: RequestHead) -> list[bytes]:
    """Return the values of all X-Forwarded-For lines: what a trusted proxy added may be on a line of its own."""
    return [value for name, _, value in head.fields if name == b"x-forwarded-for"]


def forwarded_lines(head: RequestHead, rules: Rules, peer: str, scheme: bytes, *, trusted: bool) -> bytes:
    """Return the X-Forwarded-*, X-Real-IP, X-External-Client and Via lines of a request.

    From a trusted peer X-Forwarded-For is extended and the others are kept when they are there; from any other all
    are replaced.
    """
    if not trusted:
        return rules.peer_lines(peer, scheme) + b"X-Forwarded-Host: %b\r\n" % (head.host or rules.default_host)
    chain = b", ".join(value for value in forwarded_for(head) if value)
    client = client_behind(peer, forwarded_for(head), rules.trusted)
    address = peer.encode("latin-1")
    return b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\n%b%bX-Forwarded-Host: %b\r\n" % (
        b"%b, %b" % (chain, address) if chain else address,
        client.encode("latin-1"),
        head.value(b"x-forwarded-proto") or scheme,
        rules.external_client_line(client),
        rules.via,
        head.value(b"x-forwarded-host") or head.host or rules.default_host,
    )


_REPLACED = frozenset(b"x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip".split())


def _kept_of_request(item: Field, head: RequestHead, rules: Rules, *, trusted: bool) -> bool:
    name = item[0]
    if name in _DROPPED_FROM_REQUESTS or name in _REPLACED or name == rules.id_lower:
        return False
    if name.startswith(b"x-arv-") or (name in head.nominated and name not in PROTECTED):
        return False
    if not trusted and (name == b"forwarded" or name.startswith(b"x-forwarded-")):
        return False
    return not ((rules.drop_underscore and b"_" in name) or (rules.drop_dotted and b"." in name))


def request_head(head: RequestHead, rules: Rules, lines: bytes, *, trusted: bool) -> bytes:
    """Return the head to send to a node, without the request id, the designation and the final empty line.

    `lines` is what `forwarded_lines` made. A body's framing and an upgrade that is allowed are restated.
    """
    parts = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, head.target, head.host or rules.default_host)]
    parts += [b"%b: %b\r\n" % item[1:] for item in head.fields if _kept_of_request(item, head, rules, trusted=trusted)]
    parts.append(lines)
    if head.chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif head.content_length is not None:
        parts.append(b"Content-Length: %d\r\n" % head.content_length)
    if head.upgrade:
        parts.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    elif head.te_trailers:
        parts.append(b"Connection: TE\r\nTE: trailers\r\n")
    return b"".join(parts)


_DROPPED_FROM_RESPONSES = HOP_BY_HOP | {b"x-arv-balance"}


def response_head(head: ResponseHead, rules: Rules, request_id: bytes, framing: bytes) -> bytes:
    """Return the head to send to the client.

    Args:
        head: the node's.
        rules: for the name of the request id.
        request_id: one line of it replaces whatever the node sent.
        framing: the lines that state framing and the fate of the connection, made by us.
    """
    parts = [b"HTTP/1.1 ", head.line[9:], b"\r\n"]
    length_is_due = not head.drop_length  # said twice alike, it is passed on once, and in its canonical form
    for name, sent, value in head.fields:
        if name in _DROPPED_FROM_RESPONSES or name == rules.id_lower:
            continue
        if name in head.nominated and name not in PROTECTED:
            continue
        if name != b"content-length":
            parts.append(b"%b: %b\r\n" % (sent, value))
        elif length_is_due:
            length_is_due = False
            parts.append(b"%b: %d\r\n" % (sent, int(value)))
    parts.append(b"%b: %b\r\n%b\r\n" % (rules.id_name, request_id, framing))
    return b"".join(parts)
