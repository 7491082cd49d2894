"""Settings that an engine has no place for, beside the behaviours of `capabilities`: nothing is dropped silently.

A test changes every key of the file and demands that either the rendered file changes or a feature names the key.
"""

from collections.abc import Callable

from balancer.config.schema import Config
from balancer.render.feature import EVERYWHERE, Cell, Feature, near, no

_GO = ("traefik", "caddy")
_OWN = "they are arv-balance's own and have no counterpart there"
_ENVIRONMENT = "it is taken from the environment variable ARV_BALANCE_HEALTH_TOKEN; put the secret there"


def _all(cell: Cell, *engines: str) -> dict[str, Cell]:
    return dict.fromkeys(engines or EVERYWHERE, cell)


def _hashes(config: Config) -> bool:
    return config.balance.policy == "hash"


def _slow_starts(config: Config) -> bool:
    return float(config.balance.slow_start) > 0


def _weighs(config: Config) -> bool:
    return len({node.weight for node in config.node_map.values()}) > 1 and config.balance.policy != "round_robin"


def _limits_nodes(config: Config) -> bool:
    return any(node.capacity for node in config.node_map.values())


def _retries(config: Config) -> bool:
    return bool(config.retry.on and config.retry.retries)


def _half_retries(config: Config) -> bool:
    """Retries without connections that broke, or the other way round."""
    return _retries(config) and not {"connect", "reset"} <= set(config.retry.on)


def _by_route(key: str) -> Callable[[Config], bool]:
    return lambda config: any(key in route.model_fields_set for route in config.routes)


def _listener(key: str) -> Callable[[Config], bool]:
    return lambda config: any(key in listen.model_fields_set for listen in config.listen)


def _separate_key(config: Config) -> bool:
    pairs = [listen.tls for listen in config.listen if listen.tls]
    return any(tls.key or any(item.key for item in tls.certificates) for tls in pairs)


def _names_certificates(config: Config) -> bool:
    return any(item.names for listen in config.listen if listen.tls for item in listen.tls.certificates)


def _client_certificates(config: Config) -> bool:
    return any(listen.tls.client_ca for listen in config.listen if listen.tls)


def _token_elsewhere(config: Config) -> bool:
    return config.health.token is not None and config.health.token.env is None


SETTINGS: tuple[Feature, ...] = (
    Feature(
        "own",
        "names and versions of the cluster, admin API, state, peers, DNS, draining, log level",
        cells=_all(no(_OWN)),
        keys=(
            *(
                "cluster",
                "admin",
                "state",
                "peers.NAME",
                "dns",
                "drain",
                "versions",
                "log.level",
                "balance.min_serving",
            ),
            *("designated.NAME.store", "preset"),
        ),
    ),
    Feature(
        "workers",
        "the number of workers",
        lambda config: int(config.workers) > 0,
        {
            "envoy": no("say it at its start: --concurrency"),
            **_all(no("say it in its environment: GOMAXPROCS"), *_GO),
        },
        ("workers",),
    ),
    Feature(
        "weights with other policies",
        "weights with other policies than round_robin",
        _weighs,
        _all(no("weights count with round_robin only"), "caddy"),
        ("nodes.NAME.weight",),
    ),
    Feature(
        "capacity",
        "the capacity of a node",
        _limits_nodes,
        _all(no("it has no limit for one node; let nodes queue or refuse themselves"), "envoy", *_GO),
        ("nodes.NAME.capacity",),
    ),
    Feature(
        "queue",
        "requests wait for a node below its capacity",
        _limits_nodes,
        {
            "nginx": no("over the capacity of all nodes it answers 502 at once"),
            "envoy": near("their number is limited, not their time"),
            **_all(no("there is no capacity to wait for"), *_GO),
        },
        ("queue",),
    ),
    Feature(
        "hash key",
        "the hash policy by a field or cookie",
        lambda config: _hashes(config) and config.balance.hash.by != "client",
        {"traefik": near("it goes by the client's address only")},
        ("balance.hash",),
    ),
    Feature(
        "least requests",
        "least_requests: the best of all nodes",
        lambda config: config.balance.policy == "least_requests",
        {"traefik": near("the better of two random ones")},
        ("balance.policy",),
    ),
    Feature(
        "slow start",
        "a node that became healthy grows to its full weight",
        _slow_starts,
        _all(no("it gets its full share at once; give its weight by hand"), "nginx", *_GO),
        ("balance.slow_start",),
    ),
    Feature(
        "slow start with hash",
        "the same with the hash policy",
        lambda config: _slow_starts(config) and _hashes(config),
        {"envoy": no("it gets its full share at once")},
        ("balance.slow_start",),
    ),
    Feature(
        "health checks",
        "active checks of the nodes",
        cells={"nginx": no("it has no active checks; stop a sick node, or drain it here and render again")},
        keys=("health",),
    ),
    Feature(
        "rise and fall",
        "several successes or failures in a row make a node healthy or not",
        lambda config: config.health.rise > 1 or config.health.fall > 1,
        {"traefik": near("one is enough")},
        ("health.rise", "health.fall"),
    ),
    Feature(
        "fast checks",
        "quicker checks while a node is changing its state",
        cells={"caddy": near("checks come at one interval")},
        keys=("health.fast_interval",),
    ),
    Feature(
        "health token",
        "the token of health checks is read from where the file says",
        _token_elsewhere,
        _all(near(_ENVIRONMENT), "haproxy", "envoy", *_GO),
        ("health.token",),
    ),
    Feature(
        "retry budget",
        "retries are a share of the requests",
        _retries,
        {
            **_all(no("each request has its retries, however many fail"), "haproxy", "nginx", *_GO),
            "envoy": near("a share of the requests that are under way, without a window"),
        },
        ("retry.budget",),
    ),
    Feature(
        "retry kinds",
        "retries for some kinds of failures only",
        _half_retries,
        _all(near("no connection and a broken one are one kind"), "nginx", *_GO),
        ("retry.on",),
    ),
    Feature(
        "retry elsewhere",
        "every further attempt goes to another node",
        lambda config: _retries(config) and config.balance.policy in ("least_requests", "two_choices"),
        _all(near("the same node may be chosen again, so a node that refuses is sometimes seen"), *_GO),
        ("retry",),
    ),
    Feature(
        "route retry",
        "retries by route",
        _by_route("retry"),
        {"nginx": near("the rules of retry: hold for all routes")},
        ("routes[].retry",),
    ),
    Feature(
        "route timeout",
        "deadlines by route",
        _by_route("timeout"),
        {"nginx": near("timeouts.response holds for all routes")},
        ("routes[].timeout",),
    ),
    Feature(
        "backlog",
        "connections that may wait in the kernel",
        _listener("backlog"),
        _all(near("it is what net.core.somaxconn says"), *_GO),
        ("listen[].backlog",),
    ),
    Feature(
        "proxy protocol",
        "the PROXY protocol of some networks",
        _listener("proxy_protocol"),
        {
            "nginx": near("everybody has to send its header; X-Forwarded-For of trusted proxies is not followed"),
            "envoy": near("everybody may send its header; let nobody else reach the port"),
            **_all(near("a header of anybody else is ignored, not refused"), *_GO),
        },
        ("listen[].proxy_protocol",),
    ),
    Feature(
        "separate keys",
        "private keys in files of their own",
        _separate_key,
        {"haproxy": near("the key is read from the certificate's file, or from that name with .key behind it")},
        ("listen[].tls.key", "listen[].tls.certificates[].key"),
    ),
    Feature(
        "names of certificates",
        "server names that are not those in the certificate",
        _names_certificates,
        _all(near("the names in the certificate count"), "haproxy", "envoy", *_GO),
        ("listen[].tls.certificates[].names",),
    ),
    Feature(
        "default certificate",
        "the first certificate is for names that are in none",
        _names_certificates,
        {"caddy": near("any of them is")},
    ),
    Feature(
        "client certificates by listener",
        "certificates of clients on some listeners",
        lambda config: _client_certificates(config) and len(config.listen) > 1,
        {"traefik": near("the first listener's rule holds for all")},
        ("listen[].tls.client_ca", "listen[].tls.client_required"),
    ),
    Feature(
        "header field size",
        "one field that is too long is refused with 431",
        cells=_all(near("only the size of the whole head is limited"), "haproxy", "envoy", *_GO),
        keys=("limits.header_field_bytes",),
    ),
    Feature(
        "framing extras",
        "chunk extensions and trailers are limited",
        cells=_all(near("by limits of its own")),
        keys=("limits.chunk_extensions", "limits.trailers"),
    ),
    Feature(
        "slow uploads",
        "a slowest rate of uploads",
        lambda config: int(config.limits.min_rate) > 0,
        {
            **_all(near("only a pause of timeouts.body_idle ends one"), "haproxy", "nginx"),
            **_all(no("nothing ends one; nodes have to"), "envoy", *_GO),
        },
        ("limits.min_rate", "limits.min_rate_after"),
    ),
    Feature(
        "number of tunnels",
        "a limit for tunnels",
        cells=_all(near("they count as connections only")),
        keys=("limits.tunnels",),
    ),
    Feature(
        "connections",
        "a limit for connections of clients",
        cells=_all(no("limit its file descriptors: LimitNOFILE="), *_GO),
        keys=("limits.connections",),
    ),
    Feature(
        "requests per connection",
        "a limit for requests on one connection",
        lambda config: config.limits.requests_per_connection > 0,
        _all(no("connections stay until they are idle"), "haproxy", *_GO),
        ("limits.requests_per_connection",),
    ),
    Feature(
        "idle clients",
        "deadlines for clients that send or read nothing",
        cells={
            "haproxy": near("the longer of body_idle and send_idle holds for both"),
            "envoy": near("timeouts.response_idle holds for both"),
            **_all(no("a client may pause as long as it likes"), *_GO),
        },
        keys=("timeouts.body_idle", "timeouts.send_idle"),
    ),
    Feature(
        "idle nodes",
        "a deadline between two parts of an answer",
        cells={
            **_all(near("timeouts.response holds for it, too"), "haproxy", "nginx"),
            **_all(no("a node may pause as long as it likes"), *_GO),
        },
        keys=("timeouts.response_idle",),
    ),
    Feature(
        "idle tunnels",
        "a deadline for silent tunnels",
        cells={
            "nginx": near("timeouts.response holds for them: clients have to send pings more often"),
            **_all(no("they stay until a side ends them"), *_GO),
        },
        keys=("timeouts.tunnel_idle",),
    ),
    Feature(
        "waiting, bounded",
        "waiting requests go on in their order, at a rate, within caps",
        cells=_all(no("nothing waits there; keep an arv-balance for planned pauses")),
        keys=("park", "routes[].park"),
    ),
    Feature(
        "underscore kept",
        "field names with `_` are kept",
        lambda config: not config.forwarding.drop_underscore,
        _all(near("those that spell a field it knows are dropped"), *_GO),
        ("forwarding.drop_underscore",),
    ),
    Feature(
        "dotted fields kept",
        "field names with `.` are kept while those with `_` are dropped",
        lambda config: config.forwarding.drop_underscore and not config.forwarding.drop_dotted,
        {"nginx": near("both are dropped")},
        ("forwarding.drop_dotted",),
    ),
    Feature(
        "log format",
        "the access log in another format than JSON",
        lambda config: config.log.access in ("combined", "haproxy"),
        {
            **_all(near("it is JSON"), "caddy"),
            **_all(near("`haproxy` becomes `combined`"), "nginx", "envoy", "traefik"),
        },
        ("log.access",),
    ),
    Feature(
        "log file",
        "the access log in a file",
        lambda config: config.log.access != "off" and config.log.path != "-",
        {"haproxy": near("it goes to standard output; send that to the file")},
        ("log.path",),
    ),
)
