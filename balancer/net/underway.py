"""What runs in a worker: for people who ask, for a drain that waits, and ending it by force."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from balancer.core.exchange import NO_ANSWER, Cause

if TYPE_CHECKING:
    from balancer.net.exchange import Exchange
    from balancer.net.plane import Plane
    from balancer.net.tunnel import Tunnel


def describe(plane: "Plane", node: str | None, limit: int) -> list[dict[str, Any]]:
    """Return what is under way, oldest first; tunnels, which are meant to last, come behind all others."""
    now = plane.reactor.now
    open_ones = [client.exchange for client in plane.clients if client.exchange is not None]
    tunnels = [tunnel.exchange for tunnel in plane.tunnels.open_ones]
    found = []
    for exchange in (*sorted(open_ones, key=_age), *sorted(tunnels, key=_age)):
        at = exchange.node or exchange.tunnel_node
        name = at.node.name if at is not None else None
        if node is None or node == name:
            found.append(
                {
                    "request_id": exchange.request_id.decode("latin-1"),
                    "method": exchange.method.decode("latin-1"),
                    "path": exchange.path.partition(b"?")[0].decode("latin-1"),
                    "node": name,
                    "age_s": round((now - exchange.started_at) / 1e9, 3),
                    "state": exchange.state.name.lower(),
                    "client": exchange.client_address or exchange.client.peer,
                }
            )
    return found[:limit]


def _age(exchange: "Exchange") -> int:
    return exchange.started_at


def held_back(plane: "Plane") -> int:
    """Return how many exchanges at nodes a pause waits for; those of exempt routes go on and are not among them."""
    return sum(exchange.target.park for exchange in _at_nodes(plane, None))


def cut(plane: "Plane", node: str | None) -> int:
    """End every exchange and tunnel at a node, or all that a pause holds up; return how many.

    Who has not got a byte of the answer yet gets 503 with Retry-After, the others are reset: a close could look like
    the end of the answer.
    """
    found = [exchange for exchange in _at_nodes(plane, node) if node is not None or exchange.target.park]
    for exchange in found:
        if exchange.downstream:
            exchange.abandon_node()
            exchange.end(NO_ANSWER[Cause.STOPPED], Cause.STOPPED)
            exchange.client.reset()
        else:
            exchange.answer(Cause.CUT)
    tunnels = [tunnel for tunnel in plane.tunnels.open_ones if _is_at(tunnel, node)]
    for tunnel in tunnels:
        tunnel.close(Cause.STOPPED)
    return len(found) + len(tunnels)


def _at_nodes(plane: "Plane", node: str | None) -> Iterator["Exchange"]:
    for client in list(plane.clients):
        exchange = client.exchange
        if exchange is not None and exchange.node is not None and node in (None, exchange.node.node.name):
            yield exchange


def _is_at(tunnel: "Tunnel", node: str | None) -> bool:
    at = tunnel.exchange.tunnel_node
    return node is None or (at is not None and at.node.name == node)
