"""Envoy: what its template needs beyond the description."""

import json
from collections.abc import Mapping
from typing import Any

from balancer.config.scalars import Duration
from balancer.render import pages, re2
from balancer.render.description import Description, RenderedNode, RenderedRoute
from balancer.render.quoting import refuse_control

_POLICIES = {
    "round_robin": "ROUND_ROBIN",
    "least_requests": "LEAST_REQUEST",
    "two_choices": "LEAST_REQUEST",
    "hash": "RING_HASH",
}
# 20 hex digits of a random UUID are a valid `req-` + 20 of [0-9a-z].
_NEW_ID = {
    "arvados": '"req-" .. (unique:gsub("-", "")):sub(1, 20)',
    "hex": '(unique:gsub("-", ""))',
    "uuid": "unique",
}
IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")


def seconds(value: Duration | float) -> str:
    """A duration as Envoy takes it."""
    return f"{max(0.001, round(float(value), 3)):g}s"


def lua(value: object) -> str:
    """One Lua string in double quotes; everything but letters, digits and harmless signs as decimal bytes."""
    text = refuse_control(str(value)).encode()
    return '"' + "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03d}" for byte in text) + '"'


def formatted(value: object) -> str:
    """A YAML string for a field in which Envoy substitutes `%...%`: percent signs doubled."""
    return json.dumps(refuse_control(str(value)).replace("%", "%%"), ensure_ascii=False)


def context(description: Description, options: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template needs. `options`: `statistics-port` of the admin endpoint."""
    config = description.config
    clusters = [_cluster(description, "api", description.nodes, None)]
    routes = []
    for number, route in enumerate(description.routes):
        name = f"route_{number}"
        clusters.append(_cluster(description, name, route.nodes, route))
        routes.extend(_routes(description, route, name))
    routes.extend(_routes(description, None, "api"))
    accept = re2.accept(config.request_id.accept)
    trusted = [_range(str(item)) for item in config.trusted_proxies if str(item) != "unix:"]
    internal = [_range(str(item)) for item in config.internal_networks if str(item) != "unix:"]
    return {
        "statistics_port": options.get("statistics-port", "9901"),
        "listeners": [_listener(listen) for listen in config.listen],
        "clusters": clusters,
        "routes": routes,
        "trusted": trusted,
        "chains": _chains(trusted, internal if config.forwarding.external_client else []),
        "id_made": _NEW_ID[config.request_id.format],
        "idempotent": "|".join(IDEMPOTENT),
        "accept": f"^(?:{accept})$",
        "body_limit": int(config.limits.body),
        "errors": pages.ERRORS,
        "expected": _expected(description),
        "statuses": config.health.expect.status,
        "secrets": [name.lower() for name in config.log.redact],
        "token": description.token_variable,
        "slow_start": float(config.balance.slow_start),
        "hash": config.balance.hash if config.balance.policy == "hash" else None,
        "via_name": config.forwarding.via,
    }


def authority(host: str) -> str:
    """The regex of a Host field for a route's host: any case, with or without port."""
    suffix = host.startswith("*.")
    name = "".join(f"[{c}]" if c in ".[]" and c != "]" else c for c in (host[1:] if suffix else host))
    return f"(?i){'.+' if suffix else ''}{name}(?::[0-9]+)?"


def _chains(trusted: list[dict[str, Any]], internal: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who connects decides what is believed: one filter chain each, the last for everybody else."""
    sends = bool(internal)
    chains = []
    if trusted:
        about = "Trusted proxies: their X-Forwarded-* fields are kept and extended."
        external = "1" if sends else None
        chains.append({"name": "trusted", "about": about, "ranges": trusted, "detect": True, "external": external})
    inner = [item for item in internal if item not in trusted]
    if inner:
        about = "Internal clients: X-External-Client is 0."
        chains.append({"name": "internal", "about": about, "ranges": inner, "detect": False, "external": "0"})
    about = "Everybody else."
    external = "1" if sends else None
    return [*chains, {"name": "others", "about": about, "ranges": [], "detect": False, "external": external}]


def _range(network: str) -> dict[str, Any]:
    address, _, length = network.partition("/")
    return {"address": address, "length": int(length or (128 if ":" in address else 32))}


def _expected(description: Description) -> list[str]:
    """Texts of the body as hexadecimal, as Envoy takes them; JSON without spaces, as Arvados writes it."""
    expect = description.config.health.expect
    texts = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in expect.json_.items()]
    texts += [expect.body] if expect.body is not None else []
    return [text.encode().hex() for text in texts]


def _listener(listen: Any) -> dict[str, Any]:
    if listen.bind.startswith("unix:"):
        return {"path": listen.bind[5:], "host": "", "port": 0, "tls": None, "listen": listen, "certificates": []}
    host, _, port = listen.bind.rpartition(":")
    tls = listen.tls
    certificates = [(tls.cert, tls.key or tls.cert)] if tls and tls.cert else []
    certificates += [(item.cert, item.key or item.cert) for item in tls.certificates] if tls else []
    return {
        "path": "",
        "host": host.strip("[]"),
        "port": int(port),
        "tls": tls,
        "listen": listen,
        "certificates": certificates,
    }


def _cluster(
    description: Description, name: str, nodes: tuple[RenderedNode, ...], route: RenderedRoute | None
) -> dict[str, Any]:
    ordered = route is not None and route.ordered
    up = [node for node in nodes if not node.drained and (node.weight or ordered)]
    groups = [[node] for node in up] if ordered else [up]
    return {
        "name": name,
        "policy": "ROUND_ROBIN" if ordered else _POLICIES[description.config.balance.policy],
        "scans": description.config.balance.policy == "least_requests" and not ordered,
        "groups": groups,
        "tls": next((node for node in up if node.tls), None),
        "named": any(not node.unix_path and not _is_address(node.host) for node in up),
    }


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _routes(description: Description, route: RenderedRoute | None, cluster: str) -> list[dict[str, Any]]:
    """Three entries a route: tunnels, requests that may be sent again, and all others."""
    config = description.config
    base: dict[str, Any] = {
        "cluster": cluster,
        "name": route.name if route else "",
        "path": route.path if route else None,
        "pattern": re2.bounded(route.path_pattern) if route and route.path_pattern else None,
        "methods": "|".join(route.methods) if route else "",
        "host": route.host if route else None,
        "headers": route.headers if route else (),
        "timeout": route.timeout_s if route and route.timeout_s else float(config.timeouts.response),
    }
    on = config.retry.on if route is None or route.retry else ()
    retries = config.retry.retries if on else 0
    again = [word for word, kind in (("connect-failure", "connect"), ("reset", "reset")) if kind in on]
    return [
        {**base, "kind": "tunnel", "retry_on": "connect-failure" if "connect" in on else "", "retries": retries},
        {**base, "kind": "idempotent", "retry_on": ",".join(again), "retries": retries},
        {**base, "kind": "other", "retry_on": "connect-failure" if "connect" in on else "", "retries": retries},
    ]
