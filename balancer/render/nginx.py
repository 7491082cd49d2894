"""nginx: what its template needs beyond the description."""

from collections.abc import Mapping
from typing import Any

from balancer.config.scalars import Duration
from balancer.errors import ConfigError
from balancer.render import pages
from balancer.render.description import Description, RenderedNode, RenderedRoute
from balancer.render.quoting import nginx as quote
from balancer.render.quoting import nginx_regex
from balancer.render.spelling import decoded, secrets

_POLICIES = {"round_robin": "", "least_requests": "least_conn", "two_choices": "random two least_conn"}
# 20 of the 32 hex digits of $request_id are a valid `req-` + 20 of [0-9a-z].
_NEW_ID = {
    "arvados": ("~^(?<digits>.{20})", "req-$digits"),
    "hex": ("~^(?<digits>.+)$", "$digits"),
    "uuid": (
        "~^(?<u1>.{8})(?<u2>.{4}).(?<u3>.{3}).(?<u4>.{3})(?<u5>.{12})$",
        "$u1-$u2-4$u3-a$u4-$u5",
    ),
}
_FORGED = ("Port", "Server", "Prefix", "Ssl", "Scheme", "Protocol", "By", "User", "Uri")


def seconds(value: Duration | float) -> str:
    """A duration as nginx takes it."""
    return f"{max(1, round(float(value) * 1000))}ms"


def context(description: Description, options: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template needs. `options`: `folder` for everything that nginx writes, `statistics-port`."""
    config = description.config
    upstreams = [{"name": "api", "policy": _policy(description), "servers": _servers(description.nodes)}]
    routes = []
    for number, route in enumerate(description.routes):
        name = f"route_{number}_{route.name}"
        upstreams.append(_upstream(description, name, route))
        routes.append({"name": route.name, "path": route.path, "upstream": name, **_conditions(route, number)})
    variables = "".join(f"$r{number}" for number in range(len(routes)))
    accept = str(config.request_id.accept).removeprefix("\\A").removesuffix("\\Z")
    return {
        "folder": options.get("folder", ""),
        "statistics_port": options.get("statistics-port", "8404"),
        "listens": [_listen(listen) for listen in config.listen],
        "upstreams": upstreams,
        "routes": routes,
        "picks": [(f"~^0{{{number}}}1" if number else "~^1", route["upstream"]) for number, route in enumerate(routes)],
        "variables": variables,
        "id_variable": "$http_" + config.request_id.header.lower().replace("-", "_"),
        "accept": nginx_regex(f"~^(?:{accept})$"),
        "new_id": [quote_pattern(_NEW_ID[config.request_id.format][0]), f'"{_NEW_ID[config.request_id.format][1]}"'],
        "pair": lambda number: nginx_regex(
            f"~^(?<before{number}>[^?]*[?](?:.*&)?)[^&]*{secrets(config.log.redact)}[^&]*(?<after{number}>(?:&.*)?)$"
        ),
        "secrets": nginx_regex(f"~^(?<before>[^?]*)[?].*{secrets(config.log.redact)}") if config.log.redact else "",
        "errors": pages.ERRORS,
        "forged": _FORGED,
        "scheme": "https" if any(node.tls for node in description.nodes) else "http",
        "tls": _tls(description),
        "tries": config.retry.retries + 1 if config.retry.on else 1,
        "retry_on": _retry_on(config.retry.on),
        "trusted": [str(item) for item in config.trusted_proxies],
        "internal": [str(item) for item in config.internal_networks],
    }


def quote_pattern(pattern: str) -> str:
    """A pattern of ours, which has named groups and no quotes."""
    return f'"{pattern}"'


def _retry_on(kinds: tuple[str, ...]) -> str:
    # `error` is both: no connection, and a connection that broke before the head of the answer.
    return "error" if {"connect", "reset"} & set(kinds) else "off"


def _policy(description: Description) -> str:
    balance = description.config.balance
    if balance.policy != "hash":
        return _POLICIES[balance.policy]
    name = (balance.hash.name or "").lower().replace("-", "_")
    key = {"client": "$remote_addr", "header": f"$http_{name}", "cookie": f"$cookie_{name}"}[balance.hash.by]
    return f"hash {key} consistent"


def _upstream(description: Description, name: str, route: RenderedRoute) -> dict[str, Any]:
    if not route.ordered:
        return {"name": name, "policy": _policy(description), "servers": _servers(route.nodes)}
    up = [node for node in route.nodes if not node.drained]
    # `backup` has one rank only, so of more than two the further ones share what fails over.
    lines = [f"{_address(node)} max_fails=0{' backup' if n else ''}; # {node.name}" for n, node in enumerate(up)]
    return {"name": name, "policy": "", "servers": lines or _servers(route.nodes)}


def _servers(nodes: tuple[RenderedNode, ...]) -> list[str]:
    lines = []
    for node in nodes:
        words = [_address(node), f"weight={max(1, node.weight)}", "max_fails=0"]
        if node.capacity:
            words.append(f"max_conns={node.capacity}")
        if node.drained or not node.weight:
            words.append("down")
        lines.append(f"{' '.join(words)}; # {node.name}")
    return lines


def _address(node: RenderedNode) -> str:
    return quote(f"unix:{node.unix_path}") if node.unix_path else node.address


def _conditions(route: RenderedRoute, number: int) -> dict[str, Any]:
    """One map a condition, and the digits of all of them together."""
    maps: list[tuple[str, str, str]] = []  # what is looked at, the variable, the pattern

    def add(source: str, kind: str, pattern: str) -> None:
        maps.append((source, f"$r{number}_{kind}", pattern))

    if route.path is not None:
        add("$uri", "path", nginx_regex(f"~{decoded(route.path)}"))
    if route.host is not None:
        add("$host", "host", quote(route.host))
    if route.methods:
        add("$request_method", "method", nginx_regex(f"~^(?:{'|'.join(route.methods)})$"))
    for index, (header, value) in enumerate(route.headers):
        pattern = quote(value) if value else '"~."'
        add(f"$http_{header.replace('-', '_')}", f"header{index}", pattern)
    return {"maps": maps, "all": "".join(name for _, name, _ in maps), "ones": "1" * len(maps)}


def _tls(description: Description) -> dict[str, Any] | None:
    """TLS towards the nodes. One setting for all of them: nginx has none for a single server of a group."""
    kinds = {
        (node.server_name, node.ca or "/etc/ssl/certs/ca-certificates.crt", node.tls.verify) if node.tls else None
        for node in description.nodes
    }
    if kinds == {None} or not kinds:
        return None
    if len(kinds) > 1:
        raise ConfigError(
            "nginx has one TLS setting for all nodes of a group: give all nodes https (or all http) and one "
            "tls.server_name, tls.ca and tls.verify"
        )
    name, ca, verify = kinds.pop() or ("", "", True)
    return {"name": name, "ca": ca, "verify": verify}


def _listen(listen: Any) -> dict[str, Any]:
    bind = quote(listen.bind) if listen.bind.startswith("unix:") else listen.bind
    words = [bind]
    if listen.tls:
        words.append("ssl")
    if listen.proxy_protocol:
        words.append("proxy_protocol")
    tls = listen.tls
    servers = []
    if tls is not None:
        certificates = [("", tls.cert, tls.key)] if tls.cert else []
        certificates += [(" ".join(item.names), item.cert, item.key) for item in tls.certificates]
        if any(not names for names, _, _ in certificates[1:]):
            raise ConfigError("nginx needs `names` for every further certificate of a listener; it does not read them")
        servers = [{"names": names, "cert": cert, "key": key or cert} for names, cert, key in certificates]
    return {
        "line": " ".join(words),
        "backlog": listen.backlog,
        "networks": [str(network) for network in listen.proxy_protocol],
        "tls": tls,
        "servers": servers or [{"names": "", "cert": None, "key": None}],
    }
