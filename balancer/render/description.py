"""What every engine is told: the configuration with the nodes' present state, in the terms that templates need."""

import re
from dataclasses import dataclass

from balancer.config.inventory import Node, NodeTls, Route
from balancer.config.overlay import NOTHING, Overlay
from balancer.config.schema import Config
from balancer.errors import ConfigError
from balancer.model import Admin
from balancer.render.spelling import pattern

TOKEN_VARIABLE = "ARV_BALANCE_HEALTH_TOKEN"  # noqa: S105  a name
_FIELD = re.compile(r"[A-Za-z0-9_-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class RenderedNode:
    """A node for a template. `drained`: an intent took it out; `ca` is a path or None for the system's bundle."""

    name: str
    host: str
    port: int
    unix_path: str
    tls: NodeTls | None
    server_name: str
    ca: str | None
    weight: int
    capacity: int
    drained: bool

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RenderedRoute:
    """A route for a template. `nodes` are the candidates in order; `ordered`: the first that is up gets all."""

    name: str
    path: str | None  # the template, for comments
    path_pattern: str | None  # regex over the raw path
    host: str | None
    methods: tuple[str, ...]
    headers: tuple[tuple[str, str | None], ...]
    nodes: tuple[RenderedNode, ...]
    ordered: bool
    sticks: bool  # of an ordered route: it does not return to an earlier node by itself
    timeout_s: float | None
    retry: bool


@dataclass(frozen=True, slots=True)
class Description:
    """One site. `config` is what templates read settings from; nodes and routes are resolved here."""

    source: str  # file name, for the first comment line
    config: Config
    nodes: tuple[RenderedNode, ...]
    routes: tuple[RenderedRoute, ...]

    @property
    def token_variable(self) -> str:
        """The environment variable that holds the token of health checks, "" when they need none.

        Engines read no files of ours. Raises ConfigError for a name that no engine could take.
        """
        token = self.config.health.token
        name = "" if token is None else token.env or TOKEN_VARIABLE
        if name and not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of an environment variable that an engine can read")
        return name

    @property
    def serving(self) -> tuple[RenderedNode, ...]:
        """Nodes that take balanced requests."""
        return tuple(node for node in self.nodes if not node.drained)


def describe(config: Config, source: str, overlay: Overlay = NOTHING) -> Description:
    """Return the description of a checked configuration with `overlay` (what operators changed) on it.

    Raises ConfigError for a field name that an engine's language would take apart.
    """
    _check_fields(config)
    nodes = {name: _node(config, name, node, overlay) for name, node in config.node_map.items()}
    for name, intent in overlay.nodes.items():
        if intent.added is not None and name not in nodes:
            added = Node.model_validate(
                {"url": intent.added.url, "weight": intent.added.weight, "capacity": intent.added.capacity}
            )
            nodes[name] = _node(config, name, added, overlay)
    present = {name: node for name, node in nodes.items() if _admin(overlay, name) is not Admin.REMOVED}
    routes = tuple(_route(config, route, present, overlay) for route in config.routes)
    return Description(source, config, tuple(present.values()), routes)


def _check_fields(config: Config) -> None:
    names = [config.request_id.header, config.balance.hash.name or "x"]
    names += [name for route in config.routes for name in route.match.headers]
    for name in names:
        if not _FIELD.fullmatch(name):
            raise ConfigError(f"the field name {name!r} cannot be rendered: only letters, digits, `-` and `_` can")


def _admin(overlay: Overlay, name: str) -> Admin:
    intent = overlay.nodes.get(name)
    return intent.admin if intent is not None and intent.admin is not None else Admin.ENABLED


def _node(config: Config, name: str, node: Node, overlay: Overlay) -> RenderedNode:
    parts, intent = node.url.parts, overlay.nodes.get(name)
    tls = (node.tls or NodeTls()) if parts.scheme == "https" else None
    return RenderedNode(
        name=name,
        host=parts.host,
        port=parts.port,
        unix_path=parts.unix_path,
        tls=tls,
        server_name=(tls.server_name if tls else None) or parts.host,
        ca=(tls.ca if tls else None) or config.tls.ca,
        weight=intent.weight if intent is not None and intent.weight is not None else node.weight,
        capacity=node.capacity,
        drained=_admin(overlay, name) is not Admin.ENABLED,
    )


def _route(config: Config, route: Route, nodes: dict[str, RenderedNode], overlay: Overlay) -> RenderedRoute:
    ordered = route.to is not None and route.to.designated is not None
    names: tuple[str, ...] = ()
    if route.to is not None and route.to.designated is not None:
        names = _order(config, route.to.designated, overlay)
    elif route.to is not None:
        names = route.to.nodes
    return RenderedRoute(
        name=route.name,
        path=route.match.path,
        path_pattern=pattern(route.match.path) if route.match.path else None,
        host=route.match.host,
        methods=route.match.methods,
        headers=tuple((name.lower(), value) for name, value in route.match.headers.items()),
        nodes=tuple(nodes[name] for name in (names or tuple(nodes)) if name in nodes),
        ordered=ordered,
        sticks=_sticks(config, route),
        timeout_s=float(route.timeout) if route.timeout is not None else None,
        retry=route.retry,
    )


def _sticks(config: Config, route: Route) -> bool:
    name = route.to.designated if route.to is not None else None
    designated = config.designated.get(name) if name is not None else None
    return designated is None or designated.failback == "manual"


def _order(config: Config, name: str, overlay: Overlay) -> tuple[str, ...]:
    """The candidates, the present holder first: an engine that starts now must not move the designation."""
    designated = config.designated.get(name)
    order = (designated.order if designated else ()) or tuple(config.node_map)
    holder = overlay.holders.get(name)
    if holder is not None and holder.node in order:
        order = (holder.node, *(other for other in order if other != holder.node))
    # Nobody but an operator moves it, so no engine may.
    return order[:1] if designated is not None and designated.failover == "manual" else order
