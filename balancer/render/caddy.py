"""Caddy: what its template needs beyond the description."""

import re
from collections.abc import Mapping
from math import gcd
from typing import Any

from balancer.config.edge import Listen
from balancer.config.scalars import Duration
from balancer.errors import ConfigError
from balancer.render import pages, re2
from balancer.render.body import json_pattern
from balancer.render.description import Description, RenderedNode, RenderedRoute
from balancer.render.numbers import above
from balancer.render.quoting import caddy as quote
from balancer.render.spelling import decoded, secrets

_SOCKET = re.compile(r"/[A-Za-z0-9._/@+=,~-]+")
_POLICIES = {"round_robin": "weighted_round_robin", "least_requests": "least_conn", "two_choices": "random_choose 2"}
# 20 hex digits of a UUID are a valid `req-` + 20 of [0-9a-z].
_NEW_ID = {
    "arvados": ("~^(.{8})-(.{4})-(.{4})-(.{4})-.*", '"req-${1}${2}${3}${4}"'),
    "hex": ("~^(.{8})-(.{4})-(.{4})-(.{4})-(.{12})$", '"${1}${2}${3}${4}${5}"'),
    "uuid": ("~^(.+)$", '"${1}"'),
}


def seconds(value: Duration | float) -> str:
    """A duration as Caddy takes it."""
    return f"{max(1, round(float(value) * 1000))}ms"


def context(description: Description, options: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template needs. `options`: `statistics-port` of the admin endpoint with its metrics."""
    config = description.config
    routes = [_route(description, route, number) for number, route in enumerate(description.routes)]
    return {
        "statistics_port": options.get("statistics-port", "2019"),
        "sites": [_site(listen, config.tls.minimum_version) for listen in config.listen],
        "servers": _servers(config.listen),
        "protected": tuple(str(item) for item in config.trusted_proxies if str(item) != "unix:"),
        "internal": tuple(str(item) for item in config.internal_networks if str(item) != "unix:"),
        "accept": f"~^(?:{re2.accept(config.request_id.accept)})$",
        "new_id": _NEW_ID[config.request_id.format],
        "routes": routes,
        "fallback": _pool(description, description.nodes, None),
        "secrets": f"[^?&]*{secrets(config.log.redact)}[^&]*" if config.log.redact else "",
        "too_long": above(int(config.limits.body)),
        "errors": pages.ERRORS,
        "token": description.token_variable,
        "dropped": "_" * config.forwarding.drop_underscore + "." * config.forwarding.drop_dotted,
        "health_body": "(?s)" + "".join(f"(?:.*{item})" for item in _expected(description)),
        "expects_body": bool(_expected(description)),
        "status": next(iter(config.health.expect.status), None),
        "idempotent": "GET HEAD OPTIONS",
    }


def _expected(description: Description) -> list[str]:
    expect = description.config.health.expect
    patterns = [json_pattern(key, value) for key, value in expect.json_.items()]
    if expect.body is not None:
        patterns.append("".join(f"[{c}]" if not c.isalnum() and c not in "^\\]-" else _escaped(c) for c in expect.body))
    return patterns


def _escaped(character: str) -> str:
    return character if character.isalnum() else "\\" + character


def _site(listen: Listen, minimum_version: str) -> dict[str, Any]:
    tls = listen.tls
    scheme = "https" if tls else "http"
    address = listen.bind
    if address.startswith("unix:"):
        return {"address": "http://", "bind": f"unix/{_socket(address[5:])}", "certificates": [], "tls": None}
    host, _, port = address.rpartition(":")
    certificates = [(tls.cert, tls.key or tls.cert)] if tls and tls.cert else []
    certificates += [(item.cert, item.key or item.cert) for item in tls.certificates] if tls else []
    return {
        "address": f"{scheme}://:{port}",
        "bind": host,
        "certificates": certificates,
        "tls": tls,
        "minimum_version": (tls.minimum_version or minimum_version) if tls else "",
    }


def _servers(listens: tuple[Listen, ...]) -> list[tuple[str, list[str]]]:
    """Options of servers: for all of them, and for each address that takes the PROXY protocol."""
    own = [(f" {listen.bind}", [str(network) for network in listen.proxy_protocol]) for listen in listens]
    return [("", []), *((address, proxies) for address, proxies in own if proxies)]


def _socket(path: str) -> str:
    """The path of a socket inside an address, where Caddy gives some signs a meaning of their own."""
    if not _SOCKET.fullmatch(path):
        raise ConfigError(f"Caddy cannot use the socket {path!r}: only letters, digits and `._/@+=,~-` can stand there")
    return path


def _pool(description: Description, nodes: tuple[RenderedNode, ...], route: RenderedRoute | None) -> dict[str, Any]:
    config = description.config
    up = [node for node in nodes if not node.drained and (node.weight or (route is not None and route.ordered))]
    policy = _POLICIES.get(config.balance.policy) or _hash(description)
    if route is not None and route.ordered:
        policy = "first"
    elif policy == "weighted_round_robin":
        policy = " ".join([policy, *_weights(up)])
    return {
        "addresses": [_address(node) for node in up],
        "policy": policy,
        "tls": next((node for node in up if node.tls), None),
        "retries": config.retry.retries if (route is None or route.retry) and config.retry.on else 0,
        "timeout": route.timeout_s if route is not None and route.timeout_s else float(config.timeouts.response),
    }


def _weights(nodes: list[RenderedNode]) -> list[str]:
    """Weights in their smallest numbers: Caddy sends as many requests in a row to a node as its weight says."""
    divisor = gcd(*(node.weight for node in nodes)) or 1
    return [str(node.weight // divisor) for node in nodes]


def _address(node: RenderedNode) -> str:
    if node.unix_path:
        return quote(f"unix/{_socket(node.unix_path)}")
    return f"https://{node.address}" if node.tls else node.address


def _hash(description: Description) -> str:
    by = description.config.balance.hash
    return {"client": "client_ip_hash", "header": f"header {by.name}", "cookie": f"cookie {by.name}"}[by.by]


def _route(description: Description, route: RenderedRoute, number: int) -> dict[str, Any]:
    lines = []
    if route.path is not None:
        lines.append(f"path_regexp {quote(decoded(route.path))}")
    if route.host is not None:
        lines.append(f"host {quote(route.host)}")
    if route.methods:
        lines.append(f"method {' '.join(route.methods)}")
    lines += [f"header {name} {quote(value) if value is not None else '*'}" for name, value in route.headers]
    pool = _pool(description, route.nodes, route)
    return {"name": route.name, "path": route.path, "matcher": f"@route{number}", "lines": lines, "pool": pool}
