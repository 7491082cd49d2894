"""HAProxy: what its template needs beyond the description."""

from collections.abc import Mapping
from typing import Any

from balancer.config.edge import Listen
from balancer.config.scalars import Duration
from balancer.errors import ConfigError
from balancer.render.description import Description, RenderedNode, RenderedRoute
from balancer.render.quoting import haproxy as quote
from balancer.render.quoting import haproxy_format
from balancer.render.spelling import secrets

VERSIONS = ("2.4", "2.6", "2.8", "3.0")
SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
VERIFIED = ("2.6", "2.8")  # those that the tests run
DEFAULT_VERSION = "2.6"
_POLICIES = {"round_robin": "roundrobin", "least_requests": "leastconn", "two_choices": "random(2)"}
_RETRY_ON = {"connect": ("conn-failure",), "reset": ("empty-response",), "truncated": ("junk-response",)}
_NEW_ID = {
    # 20 hex digits out of a random UUID are a valid `req-` + 20 of [0-9a-z].
    "arvados": '"req-%[uuid,regsub(-,,g),bytes(0,20)]"',
    "hex": "%[uuid,regsub(-,,g)]",
    "uuid": "%[uuid]",
}
_ERRORS = {
    400: "the request is malformed",
    405: "the method is not served",
    408: "the request did not arrive in time",
    413: "the request body is too large",
    502: "the node broke the exchange",
    503: "no node can take the request",
    504: "the node did not answer in time",
}
_JSON_LOG = (
    '{"timestamp":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","http.request.method":"%HM",'
    '"url.path":"%[var(txn.logged),json(utf8s)]","http.response.status_code":%ST,"duration_ms":%Ta,'
    '"client.address":"%ci","arv.node":"%s","arv.termination":"%ts","request_id":"%[var(txn.request_id),json(utf8s)]"}'
)
_LINE_LOG = (
    "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B - - %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq "
    '"%HM %[var(txn.logged)] %HV"'
)
_COMBINED_LOG = '%ci - - [%trg] "%HM %[var(txn.logged)] %HV" %ST %B "-" "-"'
_LOGS = {"json": _JSON_LOG, "haproxy": _LINE_LOG, "combined": _COMBINED_LOG}


def milliseconds(seconds: Duration | float) -> str:
    """A duration as HAProxy takes it."""
    return f"{max(1, round(float(seconds) * 1000))}ms" if seconds else "0"


def bind(listen: str) -> str:
    """A bind address; `unix:` is `unix@`."""
    return f"unix@{quote(listen[5:])} mode 666" if listen.startswith("unix:") else listen


def bind_options(listen: Listen, number: int) -> str:
    """What follows a bind address: certificates, client certificates; `number` is its id for rules."""
    words = [f" backlog {listen.backlog}"]
    if listen.proxy_protocol:
        words.append(f" id {number}")
    tls = listen.tls
    if tls is None:
        return "".join(words)
    words.append(" ssl")
    certs = (tls.cert, *(item.cert for item in tls.certificates))
    words.extend(f" crt {quote(cert)}" for cert in certs if cert is not None)
    if tls.client_ca is not None:
        words.append(f" ca-file {quote(tls.client_ca)} verify {'required' if tls.client_required else 'optional'}")
    if tls.minimum_version is not None:
        words.append(f" ssl-min-ver {tls.minimum_version}")
    return "".join([*words, " alpn http/1.1"])


def note(version: str) -> str:
    """Say what is not known about a version, "" when it is tested."""
    if version in VERIFIED:
        return ""
    return f"HAProxy {version} is not verified: it was written by its manual, and never run; try it with --check"


def context(description: Description, options: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template needs. `options`: `target-version`, `socket`, `statistics-port`."""
    config = description.config
    version = options.get("target-version", DEFAULT_VERSION)
    if version not in VERSIONS:
        raise ConfigError(f"HAProxy {version} is not a version this renders for: {', '.join(VERSIONS)}")
    if version == "2.4" and config.balance.policy == "hash" and config.balance.hash.by == "cookie":
        raise ConfigError("HAProxy 2.4 cannot hash by a cookie; 2.6 can")
    backends = [_backend(description, "api", description.nodes, ordered=False)]
    routes = []
    for number, route in enumerate(description.routes):
        name = f"route_{route.name}"
        backends.append(_backend(description, name, route.nodes, ordered=route.ordered, route=route))
        routes.append(_route(route, number, name))
    return {
        "target": tuple(int(part) for part in version.split(".")),
        "socket": options.get("socket", "/run/haproxy/admin.sock"),
        "statistics_port": options.get("statistics-port", "8404"),
        "uses_tls": any(listen.tls for listen in config.listen),
        "retry_on": " ".join(word for kind in config.retry.on for word in _RETRY_ON[kind]) or "none",
        "errors": {status: haproxy_format(text) for status, text in _ERRORS.items()},
        "id_header": config.request_id.header,
        "accept": f"^(?:{str(config.request_id.accept).removeprefix(chr(92) + 'A').removesuffix(chr(92) + 'Z')})$",
        "new_id": _NEW_ID[config.request_id.format],
        "redacted": _redacted(config.log.redact),
        "log_format": _LOGS.get(config.log.access, _JSON_LOG),
        "trusted": " ".join(str(network) for network in config.trusted_proxies if str(network) != "unix:"),
        "internal": " ".join(str(network) for network in config.internal_networks if str(network) != "unix:"),
        "token": description.token_variable,
        "expects": _expects(description),
        "routes": routes,
        "backends": backends,
    }


def _redacted(names: tuple[str, ...]) -> str:
    """The target with every pair hidden that mentions a secret's name in any spelling, wherever it stands."""
    if not names:
        return "url"
    pattern, replacement = quote_twice(f"([?&])[^&]*{secrets(names)}[^&]*"), quote_twice("\\1[redacted]")
    return f"url,regsub({pattern},{replacement},g)"


def quote_twice(argument: str) -> str:
    """An argument of a converter: quoted for the argument list, then for the line (manual 2.2)."""
    return "'\"" + argument.replace("\\", "\\\\").replace('"', '\\"') + "\"'"


def _expects(description: Description) -> list[str]:
    expect = description.config.health.expect
    lines = [f"status {','.join(map(str, expect.status))}"] if expect.status else []
    for key, value in expect.json_.items():
        text = f'"{value}"' if isinstance(value, str) else str(value).lower()
        pattern = f'"{_literal(key)}" *: *{_literal(text)}'
        lines.append(f"rstring {quote(pattern)}")
    if expect.body is not None:
        lines.append(f"string {quote(expect.body)}")
    # One rule a check: HAProxy evaluates all of them in order only from separate http-check steps.
    return lines


def _literal(text: str) -> str:
    return "".join(character if character.isalnum() or character in '_-" ' else f"[{character}]" for character in text)


def _backend(
    description: Description,
    name: str,
    nodes: tuple[RenderedNode, ...],
    *,
    ordered: bool,
    route: RenderedRoute | None = None,
) -> dict[str, Any]:
    balance = description.config.balance
    hashed = balance.policy == "hash" and not ordered
    scale = _scale(nodes)
    return {
        "name": name,
        "balance": "roundrobin" if ordered else _hash(description) if hashed else _POLICIES[balance.policy],
        "hash_consistent": hashed,
        "comment": "the first that is up takes all; the others stand by in this order" if ordered else "",
        "sticks": ordered and route is not None and route.sticks,
        "timeout": route.timeout_s if route else None,
        "retry": route.retry if route else True,
        "servers": [_server(node, scale, backup=ordered and index > 0) for index, node in enumerate(nodes)],
    }


def _scale(nodes: tuple[RenderedNode, ...]) -> float:
    """HAProxy's weights end at 256, ours at 1000."""
    return min(1.0, 256 / max(1, *(node.weight for node in nodes)))


def _hash(description: Description) -> str:
    by, name = description.config.balance.hash.by, description.config.balance.hash.name
    return {"client": "source", "header": f"hdr({name})", "cookie": f"hash req.cook({name})"}[by]


def _server(node: RenderedNode, scale: float, *, backup: bool) -> str:
    address = f"unix@{quote(node.unix_path)}" if node.unix_path else node.address
    weight = max(1, round(node.weight * scale)) if node.weight else 0
    words = [node.name, address, "check", f"weight {weight}"]
    if node.capacity:
        words.append(f"maxconn {node.capacity}")
    if backup:
        words.append("backup")
    if node.drained:
        words.append("disabled")
    if node.tls is not None:
        words.append(f"ssl sni str({node.server_name}) check-sni {node.server_name}")
        words.append(f"verify required ca-file {quote(node.ca or SYSTEM_CA)}" if node.tls.verify else "verify none")
        if node.tls.verify:
            words.append(f"verifyhost {node.server_name}")
    return " ".join(words)


def _route(route: RenderedRoute, number: int, backend: str) -> dict[str, Any]:
    acls, names = [], []

    def add(kind: str, criterion: str) -> None:
        name = f"r{number}_{kind}"
        acls.append(f"{name} {criterion}")
        names.append(name)

    if route.path_pattern is not None:
        add("path", f"path -m reg {quote(route.path_pattern)}")
    if route.host is not None:
        suffix = route.host.startswith("*.")
        host = quote(route.host[1:] if suffix else route.host)
        add("host", f"req.hdr(host),host_only,lower -m {'end' if suffix else 'str'} {host}")
    if route.methods:
        add("method", f"method {' '.join(route.methods)}")
    for index, (header, value) in enumerate(route.headers):
        matcher = f"-m str {quote(value)}" if value is not None else "-m found"
        add(f"header{index}", f"req.fhdr({header}) {matcher}")
    return {
        "name": route.name,
        "path": route.path,
        "acls": acls,
        "condition": " ".join(names) or "TRUE",
        "backend": backend,
    }
