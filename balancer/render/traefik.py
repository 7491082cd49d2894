"""Traefik: what its template needs beyond the description."""

from collections.abc import Mapping
from typing import Any

from balancer.config.edge import Listen
from balancer.config.scalars import Duration
from balancer.errors import ConfigError
from balancer.render.description import Description, RenderedNode, RenderedRoute
from balancer.render.quoting import refuse_control
from balancer.render.spelling import decoded

_POLICIES = {"round_robin": "wrr", "least_requests": "p2c", "two_choices": "p2c", "hash": "hrw"}


def seconds(value: Duration | float) -> str:
    """A duration as Traefik takes it."""
    return f"{max(1, round(float(value) * 1000))}ms"


def literal(value: str) -> str:
    """A text inside a rule, in backticks, where nothing else is special."""
    text = refuse_control(value)
    if "`" in text:
        raise ConfigError(f"{text!r} holds a backtick, which a Traefik rule cannot quote")
    return f"`{text}`"


def context(description: Description, options: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template needs.

    `options`: `dynamic`, the path of the second file; `statistics-port` for metrics and health.
    """
    config = description.config
    services: list[dict[str, Any]] = [_balanced(description, "api", description.nodes)]
    targets: list[tuple[str, str, RenderedRoute | None]] = []
    for number, route in enumerate(description.routes):
        name = f"route-{number}"
        services.extend(_services(description, name, route))
        targets.append((_rule(route), name, route))
    targets.append(("PathPrefix(`/`)", "api", None))
    return {
        "dynamic": options.get("dynamic", "/etc/traefik/dynamic.yml"),
        "statistics_port": options.get("statistics-port", "8404"),
        "entries": _entries(config.listen),
        "services": services,
        "routers": _routers(description, targets),
        "trusted": [str(item) for item in config.trusted_proxies if str(item) != "unix:"],
        "certificates": _certificates(description),
        "minimum_version": _minimum_version(description),
        "token": description.token_variable,
        "transports": _transports(description),
        "attempts": config.retry.retries + 1 if config.retry.on else 1,
        "sends_external": config.forwarding.external_client and bool(config.internal_networks),
    }


def _entries(listens: tuple[Listen, ...]) -> list[dict[str, Any]]:
    found = [_entry(listen, number) for number, listen in enumerate(listens, 1) if not listen.bind.is_unix]
    if not found:
        raise ConfigError("Traefik cannot listen on a Unix socket; give it an address")
    return found


def _entry(listen: Listen, number: int) -> dict[str, Any]:
    host, _, port = listen.bind.rpartition(":")
    return {
        "name": f"listener{number}",
        "address": listen.bind if host else f":{port}",
        "tls": listen.tls,
        "proxies": [str(network) for network in listen.proxy_protocol],
    }


def _certificates(description: Description) -> list[tuple[str, str]]:
    found = []
    for listen in description.config.listen:
        if listen.tls:
            found += [(listen.tls.cert, listen.tls.key or listen.tls.cert)] if listen.tls.cert else []
            found += [(item.cert, item.key or item.cert) for item in listen.tls.certificates]
    return found


def _minimum_version(description: Description) -> str:
    """One for all listeners, the strictest that any of them asks for."""
    config = description.config
    asked = {listen.tls.minimum_version for listen in config.listen if listen.tls}
    versions = {version or config.tls.minimum_version for version in asked}
    return max(versions, default=config.tls.minimum_version)


def _transports(description: Description) -> list[dict[str, Any]]:
    """One for the usual deadline and one for each route with its own."""
    config = description.config
    tls = next((node for node in description.nodes if node.tls), None)
    transports = [{"name": "nodes", "response": float(config.timeouts.response), "tls": tls}]
    for number, route in enumerate(description.routes):
        if route.timeout_s:
            transports.append({"name": f"route-{number}", "response": route.timeout_s, "tls": tls})
    return transports


def _url(node: RenderedNode) -> str:
    if node.unix_path:
        raise ConfigError(f"Traefik cannot reach a node on a Unix socket: {node.name}")
    return f"{'https' if node.tls else 'http'}://{node.address}"


def _balanced(
    description: Description, name: str, nodes: tuple[RenderedNode, ...], transport: str = "nodes"
) -> dict[str, Any]:
    up = [node for node in nodes if not node.drained and (node.weight or len(nodes) == 1)]
    servers = [(_url(node), max(node.weight, 1)) for node in up]
    policy = _POLICIES[description.config.balance.policy]
    return {"name": name, "kind": "balanced", "servers": servers, "policy": policy, "transport": transport}


def _services(description: Description, name: str, route: RenderedRoute) -> list[dict[str, Any]]:
    transport = name if route.timeout_s else "nodes"
    if not route.ordered:
        return [_balanced(description, name, route.nodes, transport)]
    up = [node for node in route.nodes if not node.drained] or list(route.nodes)
    found: list[dict[str, Any]] = []
    for index, node in enumerate(up):
        single = f"{name}-{node.name}"
        found.append(_balanced(description, single, (node,), transport))
        last = index == len(up) - 1
        mine = name if index == 0 else f"{name}-from-{index}"
        if not last:
            following = f"{name}-from-{index + 1}" if index + 2 < len(up) else f"{name}-{up[index + 1].name}"
            found.append({"name": mine, "kind": "failover", "first": single, "then": following})
        elif index == 0:
            found[-1]["name"] = name
    return found


def _rule(route: RenderedRoute) -> str:
    parts = []
    if route.path is not None:
        parts.append(f"PathRegexp({literal(decoded(route.path))})")
    if route.host is not None and route.host.startswith("*."):
        parts.append(f"HostRegexp({literal('^.+' + route.host[1:].replace('.', '[.]') + '$')})")
    elif route.host is not None:
        parts.append(f"Host({literal(route.host)})")
    if route.methods:
        parts.append("(" + " || ".join(f"Method({literal(method)})" for method in route.methods) + ")")
    for name, value in route.headers:
        parts.append(
            f"HeaderRegexp({literal(name)}, `.`)" if value is None else f"Header({literal(name)}, {literal(value)})"
        )
    return " && ".join(parts) or "PathPrefix(`/`)"


def _routers(description: Description, targets: list[tuple[str, str, RenderedRoute | None]]) -> list[dict[str, Any]]:
    """A target for internal and for other clients, with an upgrade that is not allowed and without."""
    config = description.config
    internal = [str(item) for item in config.internal_networks if str(item) != "unix:"]
    who: list[tuple[str, str, str]] = [("", "", "outer")]
    if config.forwarding.external_client and internal:
        clients = " || ".join(f"ClientIP({literal(network)})" for network in internal)
        who = [("-inner", f" && ({clients})", "inner"), *who]
    tokens = "|".join(config.forwarding.upgrade) or "[^ -~]"
    allowed = f"HeaderRegexp(`Upgrade`, {literal(f'^(?i:{tokens})$')})"
    upgrades = f" && HeaderRegexp(`Upgrade`, `.`) && !{allowed}"
    priority = 4 * len(targets) + 10
    routers = [
        {
            "name": "refused",
            "about": "not served at all",
            "rule": "Method(`TRACE`) || Method(`CONNECT`)",
            "service": "api",
            "priority": priority,
            "middlewares": ["refused"],
        }
    ]
    for rule, service, route in targets:
        for suffix, condition, middleware in who:
            for kind, more in (("-no-upgrade", upgrades), ("", "")):
                priority -= 1
                chain = ["no-upgrade"] if more else []
                chain += [middleware] if len(who) > 1 else []
                chain += ["hygiene", "body"] if int(config.limits.body) else ["hygiene"]
                chain += ["retry"] if config.retry.on and (route is None or route.retry) else []
                routers.append(
                    {
                        "name": f"{service}{suffix}{kind}",
                        "about": f"{route.name}: {route.path or 'any path'}" if route and not suffix + kind else "",
                        "rule": rule + condition + more,
                        "service": service,
                        "priority": priority,
                        "middlewares": chain,
                    }
                )
    return routers
