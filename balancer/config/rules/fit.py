"""Values that must fit together."""

import re
from collections.abc import Iterator

from balancer.config.errors import Fault, Loc
from balancer.config.rules.context import Context
from balancer.core.routing import template_fault

_SOCKET_PATH = 107  # sockaddr_un of Linux, without the final zero


def _blamed(context: Context, *locs: Loc) -> Loc:
    """The first of these that the file itself sets, so that the caret is on something that can be changed."""
    return next((loc for loc in locs if context.written(*loc)), locs[0])


def min_serving(context: Context) -> Iterator[Fault]:
    """At least one node must be free to drain, if there is more than one."""
    wanted, nodes = context.config.balance.min_serving, len(context.node_names)
    loc = ("balance", "min_serving")
    if context.nodes_known and context.sound(loc) and nodes and wanted >= max(nodes, 2):
        yield Fault(loc, f"{wanted} of {nodes} nodes: none could ever be drained", f"write at most {nodes - 1}")


def weights(context: Context) -> Iterator[Fault]:
    """Somebody has to take the balanced requests."""
    nodes = context.config.node_map
    if nodes and not any(node.weight for node in nodes.values()) and context.sound(("nodes",)):
        yield Fault(("nodes",), "every node has weight 0: none takes balanced requests", at_key=True)


def health_times(context: Context) -> Iterator[Fault]:
    """A check has to be over before the next one starts."""
    health = context.config.health
    interval, timeout, fast = (("health", key) for key in ("interval", "timeout", "fast_interval"))
    if health.timeout > health.interval and context.sound(interval, timeout):
        yield Fault(
            _blamed(context, timeout, interval),
            f"timeout {health.timeout} is longer than interval {health.interval}",
            "a check has to end before the next one starts",
        )
    if context.written(*fast) and health.fast_interval > health.interval and context.sound(interval, fast):
        yield Fault(fast, f"fast_interval {health.fast_interval} is slower than interval {health.interval}")


def parking_outlasts_draining(context: Context) -> Iterator[Fault]:
    """A pause first waits for what is in flight; what it parks meanwhile must not expire before that."""
    park, drain = context.config.park.timeout, context.config.drain.timeout
    locs = ("park", "timeout"), ("drain", "timeout")
    if park < drain and context.sound(*locs):
        yield Fault(
            _blamed(context, *locs),
            f"park.timeout {park} is shorter than drain.timeout {drain}",
            "requests parked by a pause would expire before the pause is reached",
        )


def heads(context: Context) -> Iterator[Fault]:
    """Parts of a head are not larger than the head."""
    limits = context.config.limits
    for key in ("header_field_bytes", "target_bytes"):
        value = getattr(limits, key)
        locs = ("limits", key), ("limits", "header_bytes")
        if int(value) > int(limits.header_bytes) and context.sound(*locs):
            yield Fault(_blamed(context, *locs), f"{key} {value} is larger than header_bytes {limits.header_bytes}")


def parked_per_client(context: Context) -> Iterator[Fault]:
    """One client's part is not larger than the whole."""
    park, loc = context.config.park, ("park", "max_per_client")
    if park.max_per_client is not None and park.max_per_client > park.max and context.sound(loc, ("park", "max")):
        yield Fault(loc, f"max_per_client {park.max_per_client} is larger than max {park.max}", "write 0 for no limit")


def hash_name(context: Context) -> Iterator[Fault]:
    """A header or cookie has a name, the client address has none."""
    chosen, loc = context.config.balance.hash, ("balance", "hash")
    if not context.sound(loc):
        return
    if chosen.by == "client" and chosen.name is not None:
        yield Fault((*loc, "name"), "a hash by client has no name", "set by: header or by: cookie")
    if chosen.by != "client" and chosen.name is None:
        yield Fault(
            (*loc, "by"), f"a hash by {chosen.by} needs a name", f"such as {{by: {chosen.by}, name: X-Session}}"
        )


def designation_store(context: Context) -> Iterator[Fault]:
    """Several balancers agree on one node only through one store."""
    config = context.config
    for name, item in config.designated.items():
        loc: Loc = ("designated", name)
        if config.peers and item.failover == "automatic" and item.store != "postgres" and context.sound(loc):
            yield Fault(
                _blamed(context, (*loc, "failover"), (*loc, "store"), loc, ("peers",)),
                "no automatic fail-over with peers: each balancer would choose for itself",
                "set store: postgres, or failover: manual",
                at_key=True,
            )
        if item.store == "postgres" and config.state.database is None and context.sound(loc, ("state",)):
            yield Fault(
                (*loc, "store"), "store: postgres needs state.database", "such as state: {database: {file: ...}}"
            )


def admin_tokens(context: Context) -> Iterator[Fault]:
    """Over TCP nobody is known without a token; on loopback that is enough to look, and no more."""
    admin = context.config.admin
    is_open = admin.listen is not None and not admin.listen.is_loopback
    if is_open and not admin.tokens and context.sound(("admin",)):
        hint = "such as tokens: [{name: ops, role: operator, file: /etc/arv-balance/ops-token}]"
        yield Fault(("admin", "listen"), "admin.listen needs tokens", hint)


def secret_kinds(context: Context) -> Iterator[Fault]:
    """A secret is in one place."""
    for loc, secret in context.secrets():
        if len(secret.kinds) == 1 or not context.sound(loc) or not context.written(*loc):
            continue
        what = f"{' and '.join(secret.kinds)} are set" if secret.kinds else "says not where the secret is kept"
        yield Fault(loc, f"{what}, exactly one is needed", f"keys: {', '.join(type(secret).model_fields)}", at_key=True)


def path_templates(context: Context) -> Iterator[Fault]:
    """`{name}` is a whole segment, `*` the whole last one."""
    for loc, route in context.validated.each(("routes",), context.config.routes):
        path = route.match.path
        if path is None:
            continue
        segments = path[1:].split("/")
        bad = [s for s in segments[:-1] if not _segment(s)] + [s for s in segments[-1:] if s != "*" and not _segment(s)]
        names = [s for s in segments if s.startswith("{")]
        if bad:
            hint = "a whole segment is text or {name}; the last one may be *"
            yield Fault((*loc, "match", "path"), f"'{bad[0]}' is not a segment of a path template", hint)
        elif len(set(names)) < len(names):
            yield Fault((*loc, "match", "path"), "a name is in the template twice", "give each segment its own name")
        elif (fault := template_fault(path)) is not None:  # what workers would refuse
            hint = "paths are matched decoded and without dot segments: /a%41 is /aA"
            yield Fault((*loc, "match", "path"), f"not a path template: {fault}", hint)


def _segment(text: str) -> bool:
    return bool(re.fullmatch(r"\{[A-Za-z_][A-Za-z0-9_]*\}|[^{}*]*", text))


def socket_paths(context: Context) -> Iterator[Fault]:
    """The kernel takes at most 107 bytes for the path of a Unix socket."""
    paths: list[tuple[Loc, str, int]] = [
        (("state", "dir"), context.config.state.dir, _SOCKET_PATH - len("/run/worker-63-4194304.sock")),
        (("admin", "socket"), context.config.admin.socket, _SOCKET_PATH),
    ]
    if context.cluster is None:
        paths += [
            (("nodes", name, "url"), node.url.parts.unix_path, _SOCKET_PATH)
            for name, node in context.config.node_map.items()
        ]
    for loc, path, most in paths:
        if len(path.encode()) > most and context.sound(loc):
            yield Fault(loc, f"the path is too long for Unix sockets: {len(path.encode())} bytes", f"at most {most}")


def node_tls(context: Context) -> Iterator[Fault]:
    """TLS settings are for https nodes."""
    if context.cluster is None:
        for name, node in context.config.node_map.items():
            loc = ("nodes", name, "tls")
            if node.tls is not None and node.url.parts.scheme != "https" and context.sound(loc, ("nodes", name, "url")):
                yield Fault(
                    loc, f"tls is set, but {node.url} is not https", "write https:// or remove tls", at_key=True
                )


def listener_tls(context: Context) -> Iterator[Fault]:
    """A TLS listener has a certificate."""
    for loc, listen in context.validated.each(("listen",), context.config.listen):
        tls, here = listen.tls, (*loc, "tls")
        if tls is None or not context.sound(here):
            continue
        if not tls.cert and not tls.certificates:
            yield Fault(here, "needs a certificate", "such as tls: {cert: /path.pem, key: /path.key}", at_key=True)
        elif tls.key and not tls.cert:
            yield Fault((*here, "key"), "a key without cert", "add cert: /path.pem")
        if tls.client_required and not tls.client_ca:
            yield Fault((*here, "client_required"), "needs client_ca", "the authority whose certificates are accepted")


RULES = (
    min_serving,
    weights,
    health_times,
    parking_outlasts_draining,
    heads,
    parked_per_client,
    hash_name,
    designation_store,
    admin_tokens,
    secret_kinds,
    path_templates,
    socket_paths,
    node_tls,
    listener_tls,
)
