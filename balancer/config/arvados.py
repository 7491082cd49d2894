"""Reads what concerns us from an Arvados `config.yml`, and drops the rest at once.

The file holds the keys of the whole cluster. Only the keys named here are ever turned into values; the token is
read only by `management_token`, when a check or a probe is about to send it.
Source: Arvados configuration reference (Services, API, TLS, ManagementToken).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic_core import PydanticCustomError
from yaml.nodes import MappingNode, Node, ScalarNode

from balancer.config.addresses import BadTextError, NodeUrl, node_url
from balancer.config.errors import did_you_mean
from balancer.config.scalars import Duration
from balancer.errors import ConfigError

MAX_BYTES = 8 << 20
_HOST_DNS = ("DNSServerConfDir", "DNSServerConfTemplate", "DNSServerUpdateCommand", "DNSServerReloadCommand")
_OUR_HOOK = re.compile(r"\barv-balance\s+dns\s+hook\s")  # writes nothing on its host; any node may run it
REQUEST_TIMEOUT_S = 300.0  # what Arvados takes when its file does not say
_Compose: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ArvadosError(ConfigError):
    """An Arvados file cannot be used. `key` is the setting of ours that is to blame."""

    def __init__(self, message: str, *, key: str = "arvados", hint: str = "") -> None:
        super().__init__(message)
        self.key, self.hint = key, hint


@dataclass(frozen=True, slots=True)
class ArvadosNode:
    """One InternalURL of the service."""

    name: str
    url: NodeUrl
    capacity: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is kept of the file. `capacity` is that of each node; 0 when the file sets no limit."""

    path: str
    id: str
    service: str
    nodes: tuple[ArvadosNode, ...]
    request_timeout_s: float = REQUEST_TIMEOUT_S
    tls_insecure: bool = False
    external_host: str = ""
    skipped: tuple[str, ...] = ()  # what was left out and why, for people
    audit_batch: int = 0  # rows of the audit log that a node deletes at once; 0: none deletes any
    host_dns: tuple[str, ...] = ()  # settings by which a node writes DNS on its own host


def read(path: str, *, service: str = "Controller", cluster: str | None = None, among: str | None = None) -> Cluster:
    """Return the nodes of a service. Raises ArvadosError; of the file its text holds only names and URLs.

    `cluster` must be in the file; `among` chooses when the file holds several and it is one of them.
    """
    name, root = _cluster(path, cluster, among)
    services = _get(root, "Services")
    known = [key for key, _ in _items(services)]
    if service not in known:
        hint = did_you_mean(service, known) or (f"it has {', '.join(known)}" if known else "it has no Services")
        raise ArvadosError(f"{path} has no service {service} in cluster {name}", key="service", hint=hint)
    api = _get(root, "API")
    limits = [_number(_get(api, key)) for key in ("MaxConcurrentRequests", "MaxConcurrentRailsRequests")]
    capacity = min((limit for limit in limits if limit > 0), default=0)
    urls, skipped = _urls(_get(root, "Services", service, "InternalURLs"))
    if not urls:
        hint = "; ".join(skipped) or f"InternalURLs of {service} is empty"
        raise ArvadosError(f"{path} names no node of the service {service}", key="service", hint=hint)
    return Cluster(
        path=path,
        id=name,
        service=service,
        nodes=tuple(ArvadosNode(node, url, capacity) for node, url in _named(urls)),
        request_timeout_s=_seconds(_get(api, "RequestTimeout")),
        tls_insecure=_text(_get(root, "TLS", "Insecure")).lower() in ("true", "yes", "on"),
        external_host=_host(_text(_get(root, "Services", service, "ExternalURL"))),
        skipped=tuple(skipped),
        audit_batch=_number(_get(root, "AuditLogs", "MaxDeleteBatch")),
        host_dns=tuple(_host_dns(root)),
    )


def management_token(path: str, *, cluster: str | None = None) -> str:
    """Return the cluster's ManagementToken, for one use. Raises ArvadosError when there is none."""
    name, root = _cluster(path, cluster)
    token = _text(_get(root, "ManagementToken"))
    if not token:
        raise ArvadosError(
            f"{path} has no ManagementToken in cluster {name}",
            hint="set it there and on every node; without it their health check answers 404",
        )
    return token


def _cluster(path: str, wanted: str | None, among: str | None = None) -> tuple[str, Node]:
    root = _compose(path)
    clusters = dict(_items(_get(root, "Clusters")))
    if not clusters:
        raise ArvadosError(f"{path} is not an Arvados configuration", hint="it has no cluster under Clusters:")
    if wanted is not None:
        if wanted not in clusters:
            hint = did_you_mean(wanted, clusters) or f"it has {', '.join(clusters)}"
            raise ArvadosError(f"{path} has no cluster {wanted}", key="cluster", hint=hint)
        return wanted, clusters[wanted]
    if among in clusters:
        return among, clusters[among]
    if len(clusters) > 1:
        hint = f"set nodes.from.cluster to one of {', '.join(clusters)}"
        raise ArvadosError(f"{path} holds {len(clusters)} clusters", hint=hint)
    return next(iter(clusters.items()))


def _compose(path: str) -> Node | None:
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        hint = "give our user a copy, or LoadCredential=arvados-config:PATH" if isinstance(exc, PermissionError) else ""
        raise ArvadosError(f"cannot read {path}: {exc.strerror}", hint=hint) from None
    if len(data) > MAX_BYTES:
        raise ArvadosError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    loader = None
    try:
        loader = _Compose(data)
        root: Node | None = loader.get_single_node()
    except yaml.YAMLError as exc:  # its text quotes the file, which is full of secrets
        mark = getattr(exc, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ArvadosError(f"{path}{place} is not valid YAML") from None
    finally:
        if loader is not None:
            loader.dispose()
    return root


def _items(node: Node | None) -> Iterator[tuple[str, Node]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                yield key.value, value


def _get(node: Node | None, *keys: str) -> Node | None:
    for key in keys:
        node = next((value for name, value in _items(node) if name == key), None)
    return node


def _host_dns(root: Node | None) -> Iterator[str]:
    for key in _HOST_DNS:
        value = _text(_get(root, "Containers", "SLURM", "Managed", key))
        if value and not _OUR_HOOK.search(value):
            yield key


def _text(node: Node | None) -> str:
    return node.value if isinstance(node, ScalarNode) else ""


def _number(node: Node | None) -> int:
    text = _text(node)
    return int(text) if re.fullmatch(r"\d{1,9}", text) else 0


def _seconds(node: Node | None) -> float:
    try:
        return float(Duration.parse(_text(node).replace("µs", "us"))) or REQUEST_TIMEOUT_S
    except PydanticCustomError:
        return REQUEST_TIMEOUT_S


def _host(url: str) -> str:
    try:
        return node_url(url).parts.host
    except BadTextError:
        return ""


def _urls(node: Node | None) -> tuple[list[NodeUrl], list[str]]:
    # The key is what to dial; ListenURL below it is the bind address behind a TLS proxy on that host.
    urls: list[NodeUrl] = []
    skipped: list[str] = []
    for key, _ in _items(node):
        if key == "SAMPLE":
            continue
        try:
            url = node_url(key)
        except BadTextError as exc:
            skipped.append(f"left out: {exc}")
            continue
        if url not in urls:
            urls.append(url)
    return urls, skipped


def _named(urls: list[NodeUrl]) -> Iterator[tuple[str, NodeUrl]]:
    hosts = [url.parts.host for url in urls]
    for url, host in zip(urls, hosts, strict=True):
        name = re.sub(r"[^A-Za-z0-9._-]", "-", host) or "node"
        yield (name if hosts.count(host) == 1 else f"{name}-{url.parts.port}"), url
