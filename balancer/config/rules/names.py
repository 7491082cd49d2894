"""Things that must be there, names that must exist, and things that may be there only once."""

from collections.abc import Iterable, Iterator

from balancer.config.errors import Fault, Loc, did_you_mean
from balancer.config.rules.context import Context
from balancer.scoreboard import MAX_LISTENERS, MAX_NODES


def needed(context: Context) -> Iterator[Fault]:
    """A balancer needs an address to listen on and a node."""
    config = context.config
    if not config.listen and context.sound(("listen",)):
        yield Fault(("listen",), "nothing to listen on", 'such as listen: [{bind: "0.0.0.0:8080"}]', at_key=True)
    if not context.node_names and context.sound(("nodes",)):
        yield Fault(("nodes",), "no nodes", 'such as nodes: {api1: {url: "http://10.0.0.11:8003"}}', at_key=True)


def too_many(context: Context) -> Iterator[Fault]:
    """The shared memory of the workers has room for so many."""
    if len(context.config.listen) > MAX_LISTENERS:
        yield Fault(("listen",), f"more than {MAX_LISTENERS} listeners", at_key=True)
    if len(context.node_names) > MAX_NODES:
        yield Fault(("nodes",), f"more than {MAX_NODES} nodes", at_key=True)


def twice_in_a_list(context: Context) -> Iterator[Fault]:
    """Lists of single values are sets."""
    for loc in context.document.containers:
        value = context.document.value(loc)
        if not isinstance(value, tuple) or loc[:1] == ("dns",):
            continue
        for index, item in enumerate(value):
            if isinstance(item, str | int) and item in value[:index]:
                yield Fault((*loc, index), f"'{item}' is in the list twice", "remove one of them")


def _twice(items: Iterable[tuple[Loc, str]], message: str) -> Iterator[Fault]:
    seen: dict[str, Loc] = {}
    for loc, value in items:
        if value in seen:
            first = Fault(seen[value], "").path
            yield Fault(loc, message.format(value=value, first=first))
        else:
            seen[value] = loc


def binds(context: Context) -> Iterator[Fault]:
    """One address has one listener, the admin API's included. Port 0 is another one each time."""
    items = [
        ((*loc, "bind"), str(listen.bind))
        for loc, listen in context.validated.each(("listen",), context.config.listen)
        if listen.bind.is_unix or listen.bind.port
    ]
    admin = context.config.admin
    if admin.listen is not None and (admin.listen.is_unix or admin.listen.port):
        items.append((("admin", "listen"), str(admin.listen)))
    items.append((("admin", "socket"), f"unix:{admin.socket}"))
    yield from _twice(items, "'{value}' is taken by {first}")


def node_addresses(context: Context) -> Iterator[Fault]:
    """Two nodes at one address would share their capacity and hide each other's state."""
    if context.cluster is None:
        items = (((("nodes", name, "url")), str(node.url)) for name, node in context.config.node_map.items())
        yield from _twice(items, "'{value}' is the address of {first} too")


def own_addresses(context: Context) -> Iterator[Fault]:
    """A balancer that is its own node sends each request around in a circle."""
    if context.cluster is None:
        own = {
            item.bind if item.bind.is_unix else f"{'https' if item.tls else 'http'}://{item.bind}": loc
            for loc, item in context.validated.each(("listen",), context.config.listen)
        }
        for name, node in context.config.node_map.items():
            if str(node.url) in own:
                listener = Fault((*own[str(node.url)], "bind"), "").path
                yield Fault(("nodes", name, "url"), f"'{node.url}' is this balancer itself: {listener}")


def route_names(context: Context) -> Iterator[Fault]:
    """Metrics and `explain` tell routes by their name."""
    routes = context.validated.each(("routes",), context.config.routes)
    yield from _twice((((*loc, "name"), route.name) for loc, route in routes), "'{value}' is the name of {first} too")


def token_names(context: Context) -> Iterator[Fault]:
    """Events tell who did something by the token's name."""
    tokens = context.validated.each(("admin", "tokens"), context.config.admin.tokens)
    yield from _twice((((*loc, "name"), token.name) for loc, token in tokens), "'{value}' is the name of {first} too")


def _node(context: Context, loc: Loc, name: str, *, at_key: bool = False) -> Iterator[Fault]:
    known = context.node_names
    if context.nodes_known and name not in known:
        hint = did_you_mean(name, known) or f"nodes: {', '.join(known)}"
        yield Fault(loc, f"there is no node '{name}'", hint, at_key=at_key)


def designated_nodes(context: Context) -> Iterator[Fault]:
    """Candidates of a designation are nodes."""
    for name, designated in context.config.designated.items():
        for loc, node in context.validated.each(("designated", name, "order"), designated.order):
            yield from _node(context, loc, node)


def overridden_nodes(context: Context) -> Iterator[Fault]:
    """What is overridden must be in the inventory."""
    if context.cluster is not None:
        raw = context.document.value(("nodes", "overrides"))
        for name in raw if isinstance(raw, dict) else ():
            yield from _node(context, ("nodes", "overrides", name), name, at_key=True)


def route_targets(context: Context) -> Iterator[Fault]:
    """A route leads to a designation or to nodes that exist."""
    known = context.designated_names
    for loc, route in context.validated.each(("routes",), context.config.routes):
        if route.to is None:
            continue
        target = (*loc, "to")
        if (route.to.designated is None) == (not route.to.nodes) and context.sound(target):
            yield Fault(target, "needs either designated or nodes", "such as to: {designated: dns}", at_key=True)
        if route.to.designated is not None and route.to.designated not in known:
            hint = did_you_mean(route.to.designated, known) or (
                f"designated: {', '.join(known)}" if known else "such as designated: {dns: {order: [...]}}"
            )
            yield Fault((*target, "designated"), f"there is no designated '{route.to.designated}'", hint)
        for item, node in context.validated.each((*target, "nodes"), route.to.nodes):
            yield from _node(context, item, node)


RULES = (
    needed,
    too_many,
    twice_in_a_list,
    binds,
    node_addresses,
    own_addresses,
    route_names,
    token_names,
    designated_nodes,
    overridden_nodes,
    route_targets,
)
