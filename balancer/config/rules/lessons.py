"""Warnings: what is allowed, but has surprised operators."""

from collections.abc import Iterator
from ipaddress import ip_network

from balancer.config.arvados import REQUEST_TIMEOUT_S
from balancer.config.errors import Fault, Loc, warning
from balancer.config.rules.context import Context
from balancer.config.scalars import Duration

_STEP_S = 30.0  # stopping, upgrading and starting one node: what an Arvados controller package takes


def one_node(context: Context) -> Iterator[Fault]:
    """One node cannot be drained without a pause."""
    if context.nodes_known and len(context.node_names) == 1 and context.sound(("nodes",)):
        yield warning(
            ("nodes",), "only one node: while it is down or drained, requests wait", "add a second one", at_key=True
        )


def weight_zero(context: Context) -> Iterator[Fault]:
    """A node that takes nothing is easily forgotten."""
    base: Loc = ("nodes", "overrides") if context.cluster is not None else ("nodes",)
    for name, node in context.config.node_map.items():
        if node.weight == 0:
            hint = "drain it instead: that is shown by status, with a reason"
            yield warning((*base, name, "weight"), "weight 0: it takes no balanced requests", hint)


def plain_public_listener(context: Context) -> Iterator[Fault]:
    """Tokens travel in these requests."""
    for loc, listen in context.validated.each(("listen",), context.config.listen):
        if listen.tls is None and not listen.bind.is_loopback and not listen.proxy_protocol:
            yield warning(
                (*loc, "bind"), "plain HTTP on a public address: tokens can be read on the way", "add tls: {cert, key}"
            )


def plain_public_admin(context: Context) -> Iterator[Fault]:
    """The admin API speaks plain HTTP."""
    listen = context.config.admin.listen
    if listen is not None and not listen.is_loopback:
        hint = "bind 127.0.0.1 and come by ssh, or put TLS in front"
        yield warning(("admin", "listen"), "plain admin API on a public address: tokens can be read on the way", hint)


def unused_tokens(context: Context) -> Iterator[Fault]:
    """Tokens are for TCP; on the Unix socket the user counts."""
    admin = context.config.admin
    if admin.tokens and admin.listen is None and context.sound(("admin",)):
        yield warning(("admin", "tokens"), "tokens are not used without admin.listen", at_key=True)


def pause_budget(context: Context) -> Iterator[Fault]:
    """A stop-all upgrade parks requests for a drain and a step; they should not expire in it."""
    park, drain = context.config.park.timeout, context.config.drain.timeout
    locs: tuple[Loc, Loc] = (("park", "timeout"), ("drain", "timeout"))
    if drain <= park < drain + _STEP_S and context.sound(*locs):
        needed = Duration(drain + _STEP_S)
        yield warning(
            next((loc for loc in locs if context.written(*loc)), locs[0]),
            f"park.timeout {park} may end before an upgrade step does: "
            f"drain.timeout {drain} and about {Duration(_STEP_S)} for the step",
            f"write park.timeout: {needed} or more, or a shorter drain.timeout",
        )


def request_timeout(context: Context) -> Iterator[Fault]:
    """Arvados answers within its own RequestTimeout; ours must not cut it before."""
    config, loc = context.config, ("timeouts", "response")
    if config.preset != "arvados" and context.cluster is None:
        return
    theirs = context.cluster.request_timeout_s if context.cluster else REQUEST_TIMEOUT_S
    if config.timeouts.response < theirs and context.sound(loc):
        yield warning(
            loc,
            f"response {config.timeouts.response} is below Arvados' API.RequestTimeout {Duration(theirs)}",
            "long queries would be cut with 504 while the node still works on them",
        )


def unverified_nodes(context: Context) -> Iterator[Fault]:
    """TLS without verification protects from nobody on the way."""
    base: Loc = ("nodes", "overrides") if context.cluster is not None else ("nodes",)
    for name, node in context.config.node_map.items():
        if node.tls is not None and not node.tls.verify:
            yield warning(
                (*base, name, "tls", "verify"), "the node's certificate is not verified", "set ca: to its authority"
            )


def arvados_file(context: Context) -> Iterator[Fault]:
    """What the Arvados file itself has to teach."""
    cluster, loc = context.cluster, ("nodes", "from", "arvados")
    if cluster is None:
        return
    if cluster.tls_insecure:
        yield warning(loc, f"TLS.Insecure is on in {cluster.path}", "its own services verify no certificate; we do")
    for text in cluster.skipped:
        yield warning(loc, f"{text} (in {cluster.path})")
    if context.written("cluster") and context.config.cluster != cluster.id and context.sound(("cluster",)):
        yield warning(("cluster",), f"cluster is '{context.config.cluster}', the Arvados file says '{cluster.id}'")


def arvados_token(context: Context) -> Iterator[Fault]:
    """Arvados' health check answers 401 without its token."""
    config = context.config
    is_arvados = config.preset == "arvados" and config.health.path == "/_health/ping"
    has_token = config.health.token is not None or context.written("health", "token")
    if is_arvados and not has_token and context.sound(("health",), ("nodes",), ("preset",)):
        hint = "set it to the cluster's ManagementToken, such as {file: /etc/arv-balance/management-token}"
        yield warning(("health", "token"), "no token: an Arvados node answers 401 to its health check", hint)


def external_clients(context: Context) -> Iterator[Fault]:
    """Arvados sends external clients to the keep proxy."""
    config = context.config
    if config.forwarding.external_client and not config.internal_networks and context.sound(("internal_networks",)):
        written = context.written("forwarding", "external_client")
        yield warning(
            ("forwarding", "external_client") if written else ("preset",),
            "X-External-Client is not sent while internal_networks is empty: every client counts as internal",
            "such as internal_networks: [10.0.0.0/8]",
        )


def trusts_everybody(context: Context) -> Iterator[Fault]:
    """Who trusts every proxy lets every client choose its address."""
    for loc, network in context.validated.each(("trusted_proxies",), context.config.trusted_proxies):
        if ip_network(network).prefixlen == 0:
            yield warning(loc, "everybody is a trusted proxy: clients choose the address that is logged and forwarded")


def unused_hash(context: Context) -> Iterator[Fault]:
    """`hash:` alone changes nothing."""
    balance = context.config.balance
    if context.written("balance", "hash") and balance.policy != "hash" and context.sound(("balance",)):
        yield warning(("balance", "hash"), f"hash is not used with policy {balance.policy}", at_key=True)


def unreachable_routes(context: Context) -> Iterator[Fault]:
    """The first route that matches wins."""
    earlier: list[tuple[str, object]] = []
    for loc, route in context.validated.each(("routes",), context.config.routes):
        if not context.sound((*loc, "match")):
            continue
        everything = not any((route.match.path, route.match.host, route.match.methods, route.match.headers))
        first = next((name for name, match in earlier if match is None or match == route.match), None)
        if first is not None and context.written(*loc):
            yield warning((*loc, "name"), f"never reached: route '{first}' before it matches the same requests")
        elif first is not None:
            hint = f"put the route '{first}' behind one that is named {route.name}, or narrow its match"
            yield warning(("preset",), f"the preset's route '{route.name}' is never reached", hint)
        earlier.append((route.name, None if everything else route.match))


RULES = (
    one_node,
    weight_zero,
    plain_public_listener,
    plain_public_admin,
    unused_tokens,
    pause_budget,
    request_timeout,
    unverified_nodes,
    arvados_file,
    arvados_token,
    external_clients,
    trusts_everybody,
    unused_hash,
    unreachable_routes,
)
