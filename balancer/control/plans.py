"""From configuration and snapshot to how each node is checked."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from balancer.config.schema import Config
from balancer.control.addresses import Addresses, is_literal
from balancer.control.httpclient import Target
from balancer.control.probe import Expectation
from balancer.control.prober import Plan
from balancer.core.health import Thresholds
from balancer.model import Admin, Node, Snapshot


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a check needs besides the snapshot. `token` and `contexts` (by node) were read outside of the event loop."""

    token: str
    contexts: Mapping[str, ssl.SSLContext]


def plans(config: Config, snapshot: Snapshot, secrets: Secrets, faults: Mapping[str, str]) -> dict[str, Plan]:
    """Return how each node that is not removed is checked. `faults`: why a node has no address, "" when it has one."""
    nodes = [node for node in snapshot.nodes if node.admin is not Admin.REMOVED]
    return {node.name: plan(config, node, secrets, faults[node.name]) for node in nodes}


def plan(config: Config, node: Node, secrets: Secrets, fault: str) -> Plan:
    """Return how one node is checked."""
    health, path = config.health, config.versions.path
    return Plan(
        name=node.name,
        slot=node.slot,
        target=None if fault else target(config, node, secrets, config.health.path),
        fault=fault,
        expect=Expectation(statuses=health.expect.status, json=health.expect.json_, body=health.expect.body or ""),
        thresholds=Thresholds(rise=health.rise, fall=health.fall),
        interval_s=float(health.interval),
        fast_interval_s=float(health.fast_interval),
        timeout_s=float(health.timeout),
        is_enabled=node.admin is Admin.ENABLED,
        version_target=target(config, node, secrets, path) if path and not fault else None,
        version_members=config.versions.members,
    )


def target(config: Config, node: Node, secrets: Secrets, path: str) -> Target:
    """Return where to ask a node for `path`."""
    return Target(
        address=node.host,
        port=node.port,
        authority=config.health.host or _authority(node),
        path=path,
        unix_path=node.unix_path,
        tls=secrets.contexts.get(node.name),
        server_name=node.tls.server_name if node.tls else "",
        token=secrets.token,
    )


def contexts(config: Config, nodes: Sequence[Node]) -> dict[str, ssl.SSLContext]:
    """Return the TLS settings towards each `https` node. Reads files; raises OSError and ssl.SSLError."""
    found = {}
    for node in nodes:
        if node.tls is None:
            continue
        own = config.node_map.get(node.name)
        ca = (own.tls.ca if own and own.tls else None) or config.tls.ca
        context = ssl.create_default_context(cadata=Path(ca).read_text() if ca else None)
        if not node.tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        found[node.name] = context
    return found


def address_fault(node: Node, addresses: Addresses) -> str:
    """Return why a node cannot be asked yet."""
    if node.unix_path or is_literal(node.host):
        return ""
    return addresses.faults.get(node.host, f"the name {node.host} is not resolved yet")


def _authority(node: Node) -> str:
    return node.url.partition("//")[2] if "//" in node.url else node.authority
