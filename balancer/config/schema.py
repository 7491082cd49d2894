"""The whole configuration file; its JSON Schema and its reference page are generated from here."""

from typing import Any, Literal

from pydantic import Field

from balancer.config.edge import Forwarding, Listen, Networks, RequestId, TlsDefaults
from balancer.config.inventory import Designated, Health, Inventory, Node, Nodes, Route
from balancer.config.scalars import Name, Workers
from balancer.config.section import Section
from balancer.config.service import Admin, Log, Peer, State, Versions
from balancer.config.traffic import Balance, Drain, Limits, Park, Queue, Retry, Timeouts


class Config(Section):
    """Everything that `arv-balance serve` is told by its file."""

    version: Literal[1] = Field(1, description="Version of this file's format.")
    cluster: Name = Field(
        "default", description="Name of the cluster, in logs and prompts; the cluster id with an Arvados inventory."
    )
    preset: Literal["arvados"] | None = Field(
        None,
        description="Defaults for a kind of API server: `arvados` brings the node-ping route, the health check, "
        "the external-client field, limits and timeouts. What the file sets wins.",
    )
    listen: tuple[Listen, ...] = Field((), description="Addresses to accept clients on; at least one.")
    trusted_proxies: Networks = Field(
        (), description="Networks of proxies in front, whose `X-Forwarded-*` fields are kept and extended."
    )
    internal_networks: Networks = Field((), description="Networks of internal clients (`forwarding.external_client`).")
    nodes: Nodes = Field({}, description="The API servers by name, or `from:` where to take them.")
    balance: Balance = Field(Balance(), description="How a node is chosen.")
    designated: dict[Name, Designated] = Field({}, description="Nodes that get certain requests alone, by name.")
    routes: tuple[Route, ...] = Field((), description="Rules for some requests; the first that matches wins.")
    health: Health = Field(Health(), description="Active checks of the nodes.")
    retry: Retry = Field(Retry(), description="Other attempts on other nodes.")
    queue: Queue = Field(Queue(), description="Waiting for a node below its capacity.")
    park: Park = Field(Park(), description="Waiting while paused or while no node can serve.")
    drain: Drain = Field(Drain(), description="Ending requests politely.")
    request_id: RequestId = Field(RequestId(), description="Ids of requests.")
    limits: Limits = Field(Limits(), description="What a client may send.")
    timeouts: Timeouts = Field(Timeouts(), description="Deadlines of a request.")
    forwarding: Forwarding = Field(Forwarding(), description="Fields added to and removed from requests.")
    tls: TlsDefaults = Field(TlsDefaults(), description="TLS defaults of listeners and nodes.")
    versions: Versions = Field(Versions(), description="Nodes of different versions.")
    workers: Workers = Field(Workers(0), description="Worker processes: `auto` (one a CPU core) or a number.")
    peers: dict[Name, Peer] = Field(
        {},
        description="Other balancers in front of the same nodes by name. Automatic fail-over then needs "
        "`store: postgres`, and `status` shows in what they differ from this one.",
    )
    admin: Admin = Field(Admin(), description="Admin API.")
    state: State = Field(State(), description="What is kept over restarts.")
    log: Log = Field(Log(), description="Logs.")
    dns: dict[str, Any] | None = Field(None, description="DNS updates; see the DNS reference.")

    @property
    def node_map(self) -> dict[str, Node]:
        """The nodes by name in their order. Empty for an inventory that was not read."""
        return {} if isinstance(self.nodes, Inventory) else self.nodes
