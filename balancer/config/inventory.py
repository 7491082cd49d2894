"""The nodes' side: nodes, where they come from, routes, designated nodes, health checks."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from balancer.config.addresses import NodeUrl
from balancer.config.scalars import (
    AbsolutePath,
    Duration,
    HeaderName,
    HostName,
    Method,
    Name,
    RouteHost,
    UrlPath,
    within,
)
from balancer.config.section import Between, ClusterSecret, Names, Section

Weight = Annotated[int, Between(0, 1000)]
Capacity = Annotated[int, Between(0, 1_000_000)]


class NodeTls(Section):
    """TLS towards a node with an `https` URL."""

    ca: AbsolutePath | None = Field(None, description="PEM file with the authority that signed it; default `tls.ca`.")
    server_name: HostName | None = Field(
        None, description="Name to ask for and to verify; default is the host in its URL."
    )
    verify: bool = Field(True, description="`false` accepts any certificate, so anyone on the way can read all.")


class Node(Section):
    """One API server."""

    url: NodeUrl = Field(description="`http://HOST:PORT`, `https://HOST:PORT` or `unix:/path`, without a path.")
    weight: Weight = Field(
        100,
        description="Share of the balanced requests, 0 to 1000; 0: none (but what is designated to it).",
    )
    capacity: Capacity = Field(0, description="Requests at once over all workers; more wait in the queue. 0: no limit.")
    tls: NodeTls | None = Field(None, description="TLS settings of an `https` node.")


class Override(Section):
    """What differs for one node of an inventory."""

    weight: Weight | None = Field(None, description="Share of the balanced requests, 0 to 1000.")
    capacity: Capacity | None = Field(None, description="Requests at once; 0: no limit.")
    tls: NodeTls | None = Field(None, description="TLS settings of an `https` node.")


class ArvadosSource(Section):
    """Nodes as Arvados itself knows them."""

    arvados: AbsolutePath = Field(description="Arvados `config.yml`; only the keys that concern nodes are read.")
    service: Name = Field("Controller", description="Service whose `InternalURLs` are the nodes.")
    cluster: Name | None = Field(None, description="Cluster id, when the file holds several.")


class Inventory(Section):
    """Nodes taken from another file, so that no second list has to be kept."""

    source: ArvadosSource = Field(alias="from", description="Where the nodes come from.")
    overrides: dict[Name, Override] = Field({}, description="Settings of single nodes, by name.")


def _nodes_form(value: Any) -> str:
    if isinstance(value, Inventory):
        return "<inventory>"
    return "<inventory>" if isinstance(value, dict) and isinstance(value.get("from"), dict) else "<nodes>"


Nodes = Annotated[
    Annotated[dict[Name, Node], Tag("<nodes>")] | Annotated[Inventory, Tag("<inventory>")],
    Discriminator(_nodes_form),
]


class Match(Section):
    """Conditions of a route; all that are set must hold."""

    path: UrlPath | None = Field(
        None,
        description="Template over the normalised path: `{name}` matches one segment, a final `/*` any rest.",
    )
    host: RouteHost | None = Field(None, description="Host without port, lower case; `*.example.org` for all below it.")
    methods: tuple[Method, ...] = Field((), description="Any of these methods. Empty: all.")
    headers: dict[HeaderName, str | None] = Field(
        {}, description="Fields with their exact value; an empty value means that the field has to be present."
    )


class To(Section):
    """Where a route leads: a designated node or a list of nodes, not both."""

    designated: Name | None = Field(None, description="Name under `designated:`.")
    nodes: Names = Field((), description="Balance over these nodes only.")


class Route(Section):
    """A rule for some requests. The first that matches wins; what matches none goes to all nodes."""

    name: Name = Field(description="Its name in logs, metrics and `explain`.")
    match: Match = Field(description="Which requests.")
    to: To | None = Field(None, description="Which nodes; without it all of them.")
    park: bool = Field(True, description="Wait while paused or while no node can serve. `false`: not held by a pause.")
    retry: bool = Field(True, description="Try another node by the rules of `retry:`.")
    timeout: Annotated[Duration, within("1ms", "24h")] | None = Field(
        None, description="Until the node's response head; default `timeouts.response`."
    )


class Designated(Section):
    """One node at a time that gets certain requests, with a remembered fail-over."""

    order: Names = Field((), description="Candidates, best first. Empty: all nodes in their order.")
    failover: Literal["automatic", "manual"] = Field(
        "automatic", description="Move to the next healthy candidate by itself, or only when told to."
    )
    failback: Literal["automatic", "manual"] = Field(
        "manual", description="Return to an earlier candidate by itself once it is healthy, or only when told to."
    )
    store: Literal["file", "postgres"] = Field(
        "file",
        description="Where the choice is kept: in `state.dir`, or as a row in `state.database`, "
        "which several balancers share.",
    )
    header: bool = Field(True, description="Send `X-Arv-Designation: NAME;epoch=N`; nodes can refuse an old one.")


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


class Expect(Section):
    """What a healthy node answers; all that are set must hold."""

    status: Annotated[
        tuple[Annotated[int, Between(100, 599)], ...],
        BeforeValidator(_one_or_many),
        Field(json_schema_extra={"type": ["array", "integer"]}),
    ] = Field((200,), description="Status, or a list of them.")
    json_: dict[str, str | int | float | bool] = Field(
        {}, alias="json", description="Top-level members of the JSON body with their values."
    )
    body: str | None = Field(None, description="Text that the body has to contain.")


class Health(Section):
    """Active checks of every node. A node takes requests only while its checks succeed."""

    path: UrlPath = Field("/", description="Path to ask for.")
    host: HostName | None = Field(None, description="Host field of a check; default is the node's own address.")
    token: ClusterSecret | None = Field(None, description="Secret to send as `Authorization: Bearer`.")
    expect: Expect = Field(Expect(), description="What a healthy node answers.")
    interval: Annotated[Duration, within("100ms", "1h")] = Field(
        Duration(2), description="Time between two checks of a node."
    )
    fast_interval: Annotated[Duration, within("50ms", "1h")] = Field(
        Duration(0.5), description="The same while a node is changing its state."
    )
    timeout: Annotated[Duration, within("10ms", "5m")] = Field(
        Duration(1), description="A check that took this long has failed."
    )
    rise: Annotated[int, Between(1, 100)] = Field(2, description="Successes in a row that make a node healthy.")
    fall: Annotated[int, Between(1, 100)] = Field(3, description="Failures in a row that make a node unhealthy.")
