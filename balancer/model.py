"""Frozen values shared by all layers: above all the snapshot, the one immutable thing workers run on.

Everything here is plain data that `balancer.snapshot` can turn into JSON and back. Durations are seconds
(`_s`), sizes bytes (`_bytes`); zero means "no limit" where a field says so.
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Admin(StrEnum):
    """What people decided about a node."""

    ENABLED = "enabled"
    DRAINING = "draining"
    DRAINED = "drained"
    REMOVED = "removed"


class Health(IntEnum):
    """What probes and traffic say about a node; the number is what the scoreboard holds."""

    CHECKING = 0
    HEALTHY = 1
    UNHEALTHY = 2
    MISMATCHED = 3


class Outcome(StrEnum):
    """How an exchange ended; every accepted exchange gets exactly one.

    accepted = node + us + client-left + node-cut + worker-lost + open
    """

    NODE = "node"
    US = "us"
    CLIENT_LEFT = "client-left"
    NODE_CUT = "node-cut"
    WORKER_LOST = "worker-lost"


class Policy(StrEnum):
    """How a node is chosen among those that can take the exchange."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUESTS = "least_requests"
    TWO_CHOICES = "two_choices"
    HASH = "hash"


class HashKey(StrEnum):
    """What the `hash` policy looks at; HEADER and COOKIE take a name beside it."""

    CLIENT = "client"
    HEADER = "header"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """Certificates of a listener. Workers get the files' contents as descriptors, never the paths.

    certificates: (server names, index of the PEM descriptor: chain and key together) pairs; the first is the
    default, names may start with `*.`.
    """

    certificates: tuple[tuple[tuple[str, ...], int], ...]
    client_ca: int | None = None  # index of the descriptor with the CA bundle; None: no client certificates
    client_required: bool = False
    minimum_version: str = "TLSv1.2"


@dataclass(frozen=True, slots=True)
class Listener:
    """One bind address. `slot` is its column in the scoreboard, stable while the bind stays."""

    slot: int
    bind: str  # "HOST:PORT", "[::]:PORT" or "unix:/path"
    tls: ListenerTls | None = None
    proxy_protocol_from: tuple[str, ...] = ()  # networks that must send a PROXY header; () none


@dataclass(frozen=True, slots=True)
class NodeTls:
    """TLS towards a node. `ca` None: the system's bundle. `verify` False is for tests and says so loudly."""

    server_name: str
    ca: int | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """A registered API server. `slot` is its column in the scoreboard, stable while its name is known."""

    name: str
    slot: int
    host: str  # address or name; "" with `unix_path`
    port: int
    unix_path: str = ""
    tls: NodeTls | None = None
    weight: int = 100  # 0..1000; 0 takes no balanced exchange, a designated one still reaches it
    capacity: int = 0  # exchanges at once over all workers; 0 no limit
    admin: Admin = Admin.ENABLED
    url: str = ""  # as configured, without credentials, for people

    @property
    def authority(self) -> str:
        """`host:port` for people and for a Host header of our own requests."""
        if self.unix_path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions of a route; all that are set must hold. Paths are templates over the normalised path.

    `{name}` matches one segment, a final `/*` any rest. Header names are lower case; a value None means "present".
    """

    path: str | None = None
    host: str | None = None  # exact, lower case, no port; `*.example` matches any one or more labels before it
    methods: tuple[str, ...] = ()
    headers: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """First match wins; `designated` or `nodes` set the target, neither means all nodes."""

    name: str
    slot: int
    match: Match
    designated: str | None = None
    nodes: tuple[str, ...] = ()
    response_timeout_s: float | None = None
    park: bool = True  # False: exempt from pause (health, pings by choice)
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Designation:
    """The remembered choice of a designated node."""

    name: str
    order: tuple[str, ...]
    node: str | None  # the node that holds it now; None before the first decision
    epoch: int
    header: bool = True  # send X-Arv-Designation: NAME;epoch=N on its exchanges


@dataclass(frozen=True, slots=True)
class Balance:
    """Policy and slow start."""

    policy: Policy = Policy.LEAST_REQUESTS
    hash_key: HashKey = HashKey.CLIENT
    hash_name: str = ""
    slow_start_s: float = 10.0
    min_serving: int = 1


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `retries` more attempts, never once a byte went downstream (RFC 9110 section 9.2.2)."""

    retries: int = 2
    on: tuple[str, ...] = ("connect", "reset", "truncated")
    budget_ratio: float = 0.2
    budget_window_s: float = 10.0
    budget_min: int = 10


@dataclass(frozen=True, slots=True)
class Queue:
    """Waiting for a node under capacity."""

    max: int = 1024
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Park:
    """Waiting while paused, or while no node can serve. Caps hold over all workers."""

    max: int = 5000
    max_bytes: int = 128 << 20
    max_per_client: int = 1000  # 0 no limit
    timeout_s: float = 120.0
    release_per_s: float = 200.0


@dataclass(frozen=True, slots=True)
class Drain:
    """Ending exchanges politely."""

    timeout_s: float = 60.0
    tunnel_grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class RequestId:
    """One line upstream, the same id on every attempt and response."""

    header: str = "X-Request-Id"
    format: str = "arvados"  # "arvados": req- and 20 of [0-9a-z]; "hex": 32 hex digits; "uuid"
    accept: str = r"\A[A-Za-z0-9._~+/=-]{1,1024}\Z"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send; over it: 431, 414, 413, 400."""

    header_bytes: int = 16 << 10
    header_field_bytes: int = 8 << 10
    header_count: int = 100
    target_bytes: int = 8190
    body_bytes: int = 128 << 20
    chunk_extension_bytes: int = 4 << 10
    trailer_bytes: int = 4 << 10
    connections: int = 20_000  # per worker
    requests_per_connection: int = 0  # 0 no limit
    min_rate_bytes_per_s: int = 240  # of a body being received, after `min_rate_after_s`; 0 off
    min_rate_after_s: float = 20.0
    tunnels: int = 1000
    half_close: bool = False  # True: a client that half-closes while it waits has not left
    buffered_response_bytes: int = 64 << 10  # responses up to this are held whole, so a dying node gives 502


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one exchange. `response_s`: until the node's head; `response_idle_s`: between its bytes."""

    header_s: float = 10.0
    body_idle_s: float = 30.0
    connect_s: float = 3.0
    response_s: float = 300.0
    response_idle_s: float = 300.0
    keepalive_s: float = 60.0
    tunnel_idle_s: float = 3600.0
    upstream_idle_s: float = 15.0  # an idle pooled connection is discarded after this
    send_idle_s: float = 60.0  # a client that reads nothing


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Active checks, done by the control process only; here so that workers know how old a verdict may be."""

    interval_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Header hygiene. Networks are CIDR texts; requests from `trusted_proxies` keep and extend X-Forwarded-*."""

    trusted_proxies: tuple[str, ...] = ()
    internal_networks: tuple[str, ...] = ()  # X-External-Client: 0 from these, 1 from others; () do not send it
    external_client_header: bool = False
    default_host: str = "localhost"
    via: str = "arv-balance"
    drop_underscore: bool = True
    drop_dotted: bool = True
    upgrade_tokens: tuple[str, ...] = ("websocket", "ssh", "tunnel")


@dataclass(frozen=True, slots=True)
class AccessLog:
    """`path` "-" is standard output. `redact` are query parameter and header names."""

    format: str = "json"  # json | combined | haproxy | off
    path: str = "-"
    redact: tuple[str, ...] = ("api_token", "ping_secret", "reader_tokens")


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold new exchanges. `until` is CLOCK_MONOTONIC seconds; workers end it themselves when it has passed."""

    until: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Configuration and intents as workers run on them; swapped whole, never changed."""

    generation: int
    cluster: str
    listeners: tuple[Listener, ...] = ()
    nodes: tuple[Node, ...] = ()
    routes: tuple[Route, ...] = ()
    designations: tuple[Designation, ...] = ()
    balance: Balance = field(default_factory=Balance)
    retry: Retry = field(default_factory=Retry)
    queue: Queue = field(default_factory=Queue)
    park: Park = field(default_factory=Park)
    drain: Drain = field(default_factory=Drain)
    request_id: RequestId = field(default_factory=RequestId)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    verdicts: Verdicts = field(default_factory=Verdicts)
    forwarding: Forwarding = field(default_factory=Forwarding)
    access_log: AccessLog = field(default_factory=AccessLog)
    pause: Pause | None = None
    workers: int = 1
