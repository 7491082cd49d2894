"""How requests are spread, retried, queued, parked, limited and timed. Defaults are those of the snapshot."""

from typing import Annotated, Literal

from pydantic import Field

from balancer.config.scalars import ByteRate, Duration, HeaderName, Rate, Share, Size, within
from balancer.config.section import Between, Section

Wait = Annotated[Duration, within("1ms", "24h")]
Bytes = Annotated[Size, within("1B", "1024GiB")]
Count = Annotated[int, Between(1, 10_000_000)]
CountOrNone = Annotated[int, Between(0, 10_000_000)]


class Hash(Section):
    """What the `hash` policy keeps on one node."""

    by: Literal["client", "header", "cookie"] = Field("client", description="Client address, a field, or a cookie.")
    name: HeaderName | None = Field(None, description="Name of the field or cookie.")


class Balance(Section):
    """How a node is chosen among those that can take the request."""

    policy: Literal["round_robin", "least_requests", "two_choices", "hash"] = Field(
        "least_requests",
        description="`round_robin` (smooth, weighted), `least_requests` (in flight per weight, over all workers), "
        "`two_choices` (better of two random ones) or `hash` (consistent: the same client stays on a node).",
    )
    hash: Hash = Field(Hash(), description="What the `hash` policy looks at.")
    slow_start: Annotated[Duration, within("0s", "1h")] = Field(
        Duration(10), description="A node that became healthy grows to its full weight over this time."
    )
    min_serving: Annotated[int, Between(0, 256)] = Field(
        1, description="Draining and rolling upgrades keep at least this many nodes serving."
    )


class Budget(Section):
    """Retries are a share of the requests over all workers, so that a sick cluster is not buried by them."""

    ratio: Share = Field(Share(0.2), description="Retries per request over the window.")
    window: Annotated[Duration, within("1s", "1h")] = Field(Duration(10), description="Length of the window.")
    min: CountOrNone = Field(10, description="Retries that are always allowed in a window.")


class Retry(Section):
    """Another try on another node, never for a request that may have had effect or has part of its answer."""

    retries: Annotated[int, Between(0, 10)] = Field(2, description="Further attempts at most.")
    on: tuple[Literal["connect", "reset", "truncated"], ...] = Field(
        ("connect", "reset", "truncated"),
        description="`connect`: no connection (any request); `reset`: closed before an answer, and `truncated`: "
        "closed inside a buffered answer (idempotent requests).",
    )
    budget: Budget = Field(Budget(), description="How many retries are allowed.")


class Queue(Section):
    """Waiting while every node that could serve is at its capacity."""

    max: CountOrNone = Field(1024, description="Requests that may wait; more get 503.")
    timeout: Wait = Field(Duration(30), description="A request that waited this long gets 503 with Retry-After.")


class Park(Section):
    """Waiting while paused, or while no node can serve. Caps hold over all workers."""

    max: CountOrNone = Field(5000, description="Requests that may wait; more get 503.")
    max_bytes: Bytes = Field(Size(128 << 20), description="Memory that waiting requests may hold.")
    max_per_client: CountOrNone | None = Field(
        None,
        description="Requests of one client (not of `trusted_proxies`). Default: 20 % of `max`; 0: no limit.",
    )
    timeout: Wait = Field(Duration(120), description="A request that waited this long gets 503 with Retry-After.")
    release: Annotated[Rate, within("1/m", "1000000/s")] = Field(
        Rate(200), description="Requests a second that go on, oldest first, when the wait is over."
    )
    half_close: Literal["leave", "allow"] = Field(
        "leave", description="A waiting client that closes its sending side has left, or is still waiting."
    )


class Drain(Section):
    """Ending what runs on a node, or in the balancer, politely."""

    timeout: Wait = Field(Duration(60), description="Requests get this long to end.")
    tunnel_grace: Annotated[Duration, within("0s", "24h")] = Field(
        Duration(30), description="Tunnels get this long before they are told to reconnect."
    )


class Limits(Section):
    """What a client may send and hold."""

    header_bytes: Annotated[Size, within("1KiB", "1MiB")] = Field(
        Size(16 << 10), description="Request line and fields together (431)."
    )
    header_field_bytes: Annotated[Size, within("256B", "1MiB")] = Field(
        Size(8 << 10), description="One field line (431)."
    )
    header_count: Annotated[int, Between(1, 10_000)] = Field(100, description="Field lines (431).")
    target_bytes: Annotated[int, Between(64, 1 << 20)] = Field(8190, description="Bytes of the request target (414).")
    body: Annotated[Size, within("0B", "1024GiB")] = Field(
        Size(128 << 20), description="Request body (413). 0B: no limit."
    )
    chunk_extensions: Annotated[Size, within("0B", "1MiB")] = Field(
        Size(4 << 10), description="Chunk extensions of one body together (400)."
    )
    trailers: Annotated[Size, within("0B", "1MiB")] = Field(Size(4 << 10), description="Trailer fields (431).")
    connections: Count = Field(20_000, description="Open client connections of one worker.")
    requests_per_connection: CountOrNone = Field(0, description="Requests before a connection is closed. 0: no limit.")
    min_rate: Annotated[ByteRate, within("0B/s", "1GiB/s")] = Field(
        ByteRate(240), description="Slowest body upload (408). 0B/s: off."
    )
    min_rate_after: Annotated[Duration, within("0s", "1h")] = Field(
        Duration(20), description="Time before `min_rate` is asked for."
    )
    tunnels: CountOrNone = Field(1000, description="Upgraded connections (WebSocket and others) of one worker.")
    buffered_response: Annotated[Size, within("0B", "64MiB")] = Field(
        Size(64 << 10),
        description="Responses up to this are held whole: a dying node gives 502, not a cut body.",
    )


class Timeouts(Section):
    """Deadlines of a request."""

    header: Wait = Field(Duration(10), description="For the whole request head, from its first byte (408).")
    body_idle: Wait = Field(Duration(30), description="Between two parts of a request body (408).")
    connect: Wait = Field(Duration(3), description="For a connection to a node, TLS included.")
    response: Wait = Field(Duration(300), description="Until the node's response head (504).")
    response_idle: Wait = Field(Duration(300), description="Between two parts of a response body.")
    keepalive: Wait = Field(Duration(60), description="An idle client connection is closed after this.")
    tunnel_idle: Wait = Field(Duration(3600), description="A tunnel without a byte either way is closed after this.")
    upstream_idle: Wait = Field(
        Duration(15), description="An idle connection to a node is closed after this; keep it below the nodes' own."
    )
    send_idle: Wait = Field(Duration(60), description="A client that reads nothing for this long is cut.")
