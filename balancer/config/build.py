"""Configuration and run-time changes to the snapshot that workers run on."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from balancer import model
from balancer.config import certificates
from balancer.config.addresses import node_url
from balancer.config.edge import Certificate, Listen, ListenTls
from balancer.config.inventory import Node, NodeTls, Route
from balancer.config.overlay import NOTHING, NodeIntent, Overlay
from balancer.config.schema import Config
from balancer.config.settings import settings
from balancer.config.slots import Slots, assign
from balancer.errors import ConfigError
from balancer.scoreboard import MAX_LISTENERS, MAX_NODES

Read = Callable[[str], bytes]
_MAX_ROUTES = 1024


@dataclass(frozen=True, slots=True)
class Built:
    """A snapshot, the PEM contents that it refers to by index, and the slots to give to the next build."""

    snapshot: model.Snapshot
    pems: tuple[bytes, ...]
    slots: Slots


def read_file(path: str) -> bytes:
    """Return the content of a file. Raises ConfigError."""
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc


def snapshot(
    config: Config,
    overlay: Overlay = NOTHING,
    *,
    generation: int,
    slots: Slots | None = None,
    busy_nodes: Collection[int] = (),
    workers: int = 1,
    read: Read = read_file,
) -> Built:
    """Return the snapshot of a configuration that was checked, with the overlay on it.

    `slots`: those of the previous build, `busy_nodes`: node slots in which exchanges still run, `workers`: what
    `workers: auto` comes to. Raises ConfigError when a certificate cannot be used or no slot is free.
    """
    slots = slots or Slots()
    pems = _Pems(read)
    added = {name: intent for name, intent in overlay.nodes.items() if intent.added and name not in config.node_map}
    node_slots, retired = assign(
        [*config.node_map, *added], slots.nodes, slots.retired_nodes, size=MAX_NODES, busy=busy_nodes
    )
    binds = [str(listen.bind) for listen in config.listen]
    listener_slots, retired_listeners = assign(binds, slots.listeners, slots.retired_listeners, size=MAX_LISTENERS)
    routes = [route.name for route in config.routes]
    route_slots, retired_routes = assign(routes, slots.routes, slots.retired_routes, size=_MAX_ROUTES)
    names = tuple(config.node_map)
    made = replace(
        settings(config, generation),
        listeners=tuple(_listener(config, item, listener_slots[item.bind], pems) for item in config.listen),
        nodes=(
            *(
                _node(config, name, node, node_slots[name], overlay.nodes.get(name), pems)
                for name, node in config.node_map.items()
            ),
            *(_added(config, name, node_slots[name], intent, pems) for name, intent in added.items()),
        ),
        routes=tuple(_route(route, route_slots[route.name]) for route in config.routes),
        designations=tuple(
            model.Designation(name, item.order or names, *_holder(overlay, name), header=item.header)
            for name, item in config.designated.items()
        ),
        pause=overlay.pause,
        workers=int(config.workers) or workers,
    )
    kept = Slots(node_slots, listener_slots, route_slots, retired, retired_listeners, retired_routes)
    return Built(made, tuple(pems.contents), kept)


def _holder(overlay: Overlay, name: str) -> tuple[str | None, int]:
    holder = overlay.holders.get(name)
    return (holder.node, holder.epoch) if holder else (None, 0)


@dataclass(slots=True)
class _Pems:
    """PEM contents by index; the same content is kept once."""

    read: Read
    contents: list[bytes] = field(default_factory=list)

    def add(self, *paths: str) -> int:
        content = b"\n".join(self.read(path) for path in paths)
        if content not in self.contents:
            self.contents.append(content)
        return self.contents.index(content)


def _listener(config: Config, listen: Listen, slot: int, pems: _Pems) -> model.Listener:
    tls = _listener_tls(config, listen.tls, pems) if listen.tls else None
    return model.Listener(slot, str(listen.bind), tls, tuple(map(str, listen.proxy_protocol)))


def _listener_tls(config: Config, tls: ListenTls, pems: _Pems) -> model.ListenerTls:
    first = (Certificate(cert=tls.cert, key=tls.key),) if tls.cert else ()
    return model.ListenerTls(
        certificates=tuple(_certificate(item, pems) for item in (*first, *tls.certificates)),
        client_ca=pems.add(tls.client_ca) if tls.client_ca else None,
        client_required=tls.client_required,
        minimum_version=tls.minimum_version or config.tls.minimum_version,
    )


def _certificate(item: Certificate, pems: _Pems) -> tuple[tuple[str, ...], int]:
    index = pems.add(item.cert, *([item.key] if item.key else []))
    names = item.names or certificates.describe(pems.contents[index], item.cert).names
    return tuple(name.lower() for name in names), index


def _node(config: Config, name: str, node: Node, slot: int, intent: NodeIntent | None, pems: _Pems) -> model.Node:
    parts = node.url.parts
    admin = intent.admin if intent and intent.admin is not None else model.Admin.ENABLED
    return model.Node(
        name=name,
        slot=slot,
        host=parts.host,
        port=parts.port,
        unix_path=parts.unix_path,
        tls=_node_tls(config, node.tls or NodeTls(), parts.host, pems) if parts.scheme == "https" else None,
        weight=intent.weight if intent and intent.weight is not None else node.weight,
        capacity=node.capacity,
        admin=admin,
        url=str(node.url),
    )


def _added(config: Config, name: str, slot: int, intent: NodeIntent, pems: _Pems) -> model.Node:
    added = intent.added
    if added is None:
        raise ConfigError(f"node {name} has no address")
    node = Node(url=node_url(added.url), weight=added.weight, capacity=added.capacity)
    return _node(config, name, node, slot, intent, pems)


def _node_tls(config: Config, tls: NodeTls, host: str, pems: _Pems) -> model.NodeTls:
    ca = tls.ca or config.tls.ca
    return model.NodeTls(tls.server_name or host, pems.add(ca) if ca else None, tls.verify)


def _route(route: Route, slot: int) -> model.Route:
    match = route.match
    return model.Route(
        name=route.name,
        slot=slot,
        match=model.Match(
            path=match.path,
            host=match.host,
            methods=match.methods,
            headers=tuple((name.lower(), value) for name, value in match.headers.items()),
        ),
        designated=route.to.designated if route.to else None,
        nodes=route.to.nodes if route.to else (),
        response_timeout_s=float(route.timeout) if route.timeout is not None else None,
        park=route.park,
        retry=route.retry,
    )
