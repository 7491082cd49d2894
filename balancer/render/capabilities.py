"""The capability matrix: feature by engine, exact unless a cell says otherwise.

Every cell that a scenario of tests/engines covers is held against the running engine: one that says "exact" and is not
fails the test, and so does one that names a difference that is not there.
"""

from balancer.config.schema import Config
from balancer.render.feature import EVERYWHERE, Feature, near, no


def _routed(config: Config) -> bool:
    return bool(config.routes)


def _designated(config: Config) -> bool:
    return any(route.to is not None and route.to.designated is not None for route in config.routes)


def _manual_failback(config: Config) -> bool:
    return _designated(config) and any(item.failback == "manual" for item in config.designated.values())


def _trusts(config: Config) -> bool:
    return bool(config.trusted_proxies)


def _external(config: Config) -> bool:
    return config.forwarding.external_client and bool(config.internal_networks)


def _secure(config: Config) -> bool:
    return any(listen.tls for listen in config.listen)


def _least(config: Config) -> bool:
    return config.balance.policy in ("least_requests", "two_choices")


def _hashes_fields(config: Config) -> bool:
    return config.balance.policy == "hash" and config.balance.hash.by != "client"


def _logs(config: Config) -> bool:
    return config.log.access != "off"


def _redacts(config: Config) -> bool:
    return _logs(config) and bool(config.log.redact)


def _retries(config: Config) -> bool:
    return bool(config.retry.on and config.retry.retries)


def _body_expected(config: Config) -> bool:
    return bool(config.health.expect.json_ or config.health.expect.body)


_NO_ID = "Traefik makes and checks no ids; put arv-balance or another engine in front, or let nodes make them"
_STATUS_501 = "refused with 501 instead of 400"
_FOLDED = "unfolded and passed on, as RFC 9112 section 5.2 allows"
_FRAMINGS = "Transfer-Encoding counts and Content-Length is removed, as RFC 9112 section 6.3 allows"
_CUT = "what a node had sent goes to the client at once and is cut; clients have to ask again"
_PARK = "requests get 503 at once while no node can serve; keep an arv-balance for planned pauses"
_EPOCH = "no epoch is known there; nodes must not insist on X-Arv-Designation"
_FAILBACK = "it returns to the earlier node by itself; take that node out by hand first"
_NO_CHECKS = "it has no active checks of the body; stop a sick node, or drain it here and render again"

FEATURES: tuple[Feature, ...] = (
    Feature("weights", "requests by weight"),
    Feature("drained node", "a drained node gets nothing"),
    Feature("ping route", "routes in every spelling of their path", _routed),
    Feature("ping route with ..", "routes of paths with `..` segments", _routed),
    Feature("no other path", "routes take no other path", _routed),
    Feature(
        "fail-over",
        "fail-over of a designated node in order",
        _designated,
        {
            "nginx": no(f"only from a node that refuses connections: {_NO_CHECKS}"),
            "traefik": no(f"only by the status of checks: {_NO_CHECKS}"),
        },
    ),
    Feature(
        "fail-back",
        "no return to an earlier designated node by itself",
        _manual_failback,
        {name: no(_FAILBACK) for name in ("nginx", "envoy", "traefik", "caddy")},
        keys=("designated.NAME.failback",),
    ),
    Feature(
        "designation sent",
        "X-Arv-Designation",
        _designated,
        {name: no(_EPOCH) for name in EVERYWHERE},
        keys=("designated.NAME.header",),
    ),
    Feature("designation forged", "X-Arv-Designation of a client is removed"),
    Feature("request id made", "a request id is made", cells={"traefik": no(_NO_ID)}, keys=("request_id",)),
    Feature("request id kept", "a client's valid request id is kept and returned", cells={"traefik": no(_NO_ID)}),
    Feature("request id replaced", "a client's invalid request id is replaced", cells={"traefik": no(_NO_ID)}),
    Feature(
        "request id twice",
        "two request ids are replaced by one",
        cells={"traefik": no(_NO_ID), "nginx": near("before 1.23 the first of them counts")},
    ),
    Feature(
        "request id of the node", "a node's own request id is replaced in its answer", cells={"traefik": no(_NO_ID)}
    ),
    Feature(
        "request id on own answers", "the request id is on the balancer's own answers", cells={"traefik": no(_NO_ID)}
    ),
    Feature(
        "error pages",
        "the balancer's own answers are JSON with the request id",
        cells={"traefik": no("its own answers are plain text")},
    ),
    Feature("forwarded fields", "X-Forwarded-For, -Proto, -Host"),
    Feature(
        "forwarded fields, others",
        "other X-Forwarded-* and Forwarded of strangers are removed",
        cells={
            "nginx": near("those that are known by name"),
            "traefik": near("those that it knows by name; Forwarded is removed from everybody"),
        },
    ),
    Feature(
        "real address",
        "X-Real-IP through a trusted proxy",
        _trusts,
        {"traefik": no("it is the proxy's address; nodes have to read X-Forwarded-For")},
    ),
    Feature(
        "real address through several",
        "X-Real-IP through several trusted proxies",
        _trusts,
        {"traefik": no("it is the last proxy's address; nodes have to read X-Forwarded-For")},
    ),
    Feature("external client", "X-External-Client", _external),
    Feature(
        "external client behind a proxy",
        "X-External-Client of clients behind a trusted proxy",
        lambda config: _external(config) and _trusts(config),
        {
            "envoy": near("all of them are external; let internal clients connect directly"),
            "traefik": near("the proxy's own address decides; let internal clients connect directly"),
        },
    ),
    Feature("via", "Via"),
    Feature("hop-by-hop", "hop-by-hop fields of requests are removed"),
    Feature("hop-by-hop of answers", "hop-by-hop fields of answers are removed"),
    Feature(
        "fields named in Connection",
        "fields that Connection names are removed from requests",
        cells={name: no("only those known by name are; nodes must not trust others") for name in ("haproxy", "nginx")},
    ),
    Feature(
        "fields named in Connection of answers",
        "fields that Connection names are removed from answers",
        cells={name: no("only those known by name are") for name in ("haproxy", "nginx")},
    ),
    Feature(
        "underscore",
        "field names with `_` are dropped",
        lambda config: config.forwarding.drop_underscore,
        keys=("forwarding.drop_underscore",),
    ),
    Feature("target unchanged", "queries arrive byte for byte", cells={"traefik": near("`;` becomes `&`")}),
    Feature(
        "path unchanged",
        "paths arrive byte for byte",
        cells={"traefik": near("percent-encoded letters are decoded, dot segments resolved")},
    ),
    Feature("host kept", "Host arrives as it was sent"),
    Feature("bodies", "bodies, statuses and connections are passed on"),
    Feature("expect", "100-continue is answered"),
    Feature(
        "http 1.0",
        "HTTP/1.0 without Host gets the default host",
        cells={"traefik": near("the node's address is sent as Host")},
        keys=("forwarding.default_host",),
    ),
    Feature("websocket", "WebSocket"),
    Feature("tunnels", "tunnels by POST"),
    Feature(
        "other upgrades",
        "an upgrade that is not allowed is sent on as a plain request",
        cells={"envoy": near("it is refused with 403")},
    ),
    Feature(
        "body limit",
        "an announced body over the limit is refused at once",
        lambda config: bool(config.limits.body),
        {"caddy": near("it is refused, but the answer waits until the client begins to send")},
    ),
    Feature(
        "body limit, chunked",
        "a chunked body over the limit is refused",
        lambda config: bool(config.limits.body),
        {
            "haproxy": no("a body without a length has no limit; nodes have their own"),
            "envoy": no("a body without a length has no limit, or would be held whole in memory"),
        },
    ),
    Feature("tls", "TLS listeners, certificates chosen by server name", _secure),
    Feature(
        "unix socket",
        "listeners on Unix sockets",
        lambda config: any(listen.bind.is_unix for listen in config.listen),
        {"traefik": no("it listens on addresses only, and such a listener is left out")},
    ),
    Feature("busy node", "a busy node gets fewer requests than an idle one", _least),
    Feature(
        "hash",
        "requests with the same field go to the same node",
        _hashes_fields,
        {"traefik": no("it can go by the client's address only")},
    ),
    Feature(
        "health token sent",
        "health checks carry the token, which stands in no file",
        lambda config: config.health.token is not None,
        {"nginx": no("it has no active checks")},
    ),
    Feature(
        "statistics",
        "statistics for Prometheus, on this machine only",
        cells={"nginx": near("seven counters in its own form; an exporter makes more of them")},
    ),
    Feature(
        "dotted",
        "field names with `.` are dropped",
        lambda config: config.forwarding.drop_dotted,
        {"traefik": no("it removes fields by name only")},
        keys=("forwarding.drop_dotted",),
    ),
    Feature("malformed", "malformed heads are refused"),
    Feature("control characters", "control characters in fields are refused"),
    Feature(
        "two framings",
        "Content-Length beside Transfer-Encoding is refused",
        cells={name: near(_FRAMINGS) for name in ("haproxy", "traefik", "caddy")},
    ),
    Feature(
        "folded line",
        "folded field lines are refused",
        cells={name: near(_FOLDED) for name in ("haproxy", "envoy", "traefik", "caddy")},
    ),
    Feature("no host", "HTTP/1.1 without Host is refused"),
    Feature(
        "two hosts", "two Host fields are refused", cells={"envoy": near("they are joined to one that fits no site")}
    ),
    Feature("trace", "TRACE is refused with 405"),
    Feature(
        "connect method",
        "CONNECT is refused with 405",
        cells={"nginx": near("refused with 400"), "traefik": near("refused with 501")},
    ),
    Feature(
        "target limit",
        "long targets are refused with 414",
        cells={"traefik": no("only the size of the whole head is limited")},
        keys=("limits.target_bytes",),
    ),
    Feature(
        "field count",
        "too many fields are refused with 431",
        cells={name: no("only the size of the whole head is limited") for name in ("nginx", "traefik", "caddy")},
        keys=("limits.header_count",),
    ),
    Feature(
        "head size",
        "too large heads are refused with 431",
        cells={"haproxy": near("those beyond its buffer with 400")},
    ),
    Feature(
        "unknown coding",
        "unknown transfer codings are refused",
        cells={name: near(_STATUS_501) for name in ("nginx", "envoy", "traefik", "caddy")},
    ),
    Feature(
        "response timeout",
        "a node that takes too long: 504, asked once",
        cells={"caddy": near("GET, HEAD and OPTIONS are then tried on other nodes")},
    ),
    Feature(
        "header timeout",
        "a head that does not end: 408",
        cells={
            "nginx": near("the connection is closed without an answer"),
            "caddy": near("the connection is closed without an answer"),
            "traefik": no("it limits only the whole request, which would cut uploads; put a firewall's limit in front"),
        },
        keys=("timeouts.header",),
    ),
    Feature("redaction", "secrets in queries and credentials never reach the log", _redacts),
    Feature("redaction, nested", "secrets inside other values never reach the log", _redacts),
    Feature(
        "log detail",
        "the rest of a query with a secret is logged",
        _redacts,
        {
            "traefik": near("paths and queries are not logged at all; lines are found by request id and node"),
        },
        keys=("log.redact",),
    ),
    Feature(
        "log path",
        "the path is logged",
        _logs,
        {"traefik": near("it is not, for it would bring the query; lines are found by request id and node")},
    ),
    Feature("POST is sent once", "POST and PATCH are never sent twice"),
    Feature(
        "GET is retried",
        "GET is sent to another node when one breaks the connection",
        _retries,
        {"traefik": no("only when a kept connection broke, or none could be made")},
    ),
    Feature(
        "PUT is retried",
        "PUT and DELETE are sent to another node when one breaks the connection",
        _retries,
        {
            "caddy": near("only when no connection could be made: it would send an empty body"),
            "traefik": no("only when no connection could be made"),
        },
    ),
    Feature(
        "cut answer",
        "an answer that a node cuts is fetched from another",
        _retries,
        {n: no(_CUT) for n in EVERYWHERE},
        keys=("limits.buffered_response",),
    ),
    Feature("refused", "no client sees a node that refuses connections", _retries),
    Feature("refused, POST", "nor with POST", _retries),
    Feature(
        "sick node",
        "a node that answers checks with a bad body gets nothing",
        _body_expected,
        {"nginx": no(_NO_CHECKS), "traefik": no(_NO_CHECKS)},
        keys=("health.expect.json", "health.expect.body"),
    ),
    Feature(
        "no node",
        "no node can serve: 503 with Retry-After",
        cells={name: no("without active checks of the body it goes on asking") for name in ("nginx", "traefik")},
    ),
    Feature(
        "park",
        "requests wait through a pause or an outage",
        cells={name: no(_PARK) for name in ("haproxy", "envoy", "caddy")},
        keys=("park", "routes[].park"),
    ),
)
