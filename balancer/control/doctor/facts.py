"""What the rules know: plain values, gathered once, by whoever could."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any

from balancer.config.arvados import Cluster
from balancer.config.errors import Fault
from balancer.config.schema import Config

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on something is a hazard. Spans in seconds, `free_share` of a disk 0 to 1."""

    skew_s: float = 2.0
    expires_s: float = 21 * 86400.0
    free_share: float = 0.05
    intent_age_s: float = 86400.0
    step_s: float = 30.0  # what stopping, upgrading and starting one node takes
    job_slack_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one GET, or the `fault` for which there is none. Times are Unix time by our clock."""

    fault: str = ""
    status: int = 0
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by lower-case name
    text: str = ""
    document: Any = None  # the JSON body, if it is one
    began_s: float = 0.0
    ended_s: float = 0.0

    def first(self, name: str) -> str:
        """Return the first value of a field, "" when there is none."""
        return next(iter(self.fields.get(name, ())), "")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was read or shown. `fault`: why there is none, or why it is not accepted."""

    subject: str  # file or node
    fault: str = ""
    names: tuple[str, ...] = ()
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Idle:
    """How long a node kept an idle connection. `closed_s` None: it was still open after `watched_s`.

    `promised_s`: the `timeout` of its Keep-Alive field, if it sends one.
    """

    watched_s: float = 0.0
    closed_s: float | None = None
    promised_s: float | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node as it showed itself. A reply that is missing was not asked for."""

    name: str
    authority: str  # HOST:PORT as dialled
    capacity: int
    is_tls: bool = False
    is_wanted: bool = True  # False: drained, so it may well be away
    replies: Mapping[str, Reply] = field(default_factory=dict)
    idle: Idle | None = None
    certificate: Certificate | None = None
    health: str = ""  # what is wrong with its health, "" when it is well
    refuses_token: bool = False

    def reply(self, what: str) -> Reply:
        """Return the answer to health, discovery, exported, metrics, identified or login."""
        return self.replies.get(what, Reply(fault="not asked for"))

    def document(self, what: str) -> Document | None:
        """Return the JSON object of a good answer, None when there is none."""
        reply = self.reply(what)
        return reply.document if reply.status == 200 and isinstance(reply.document, dict) else None

    def series(self, name: str) -> list[tuple[str, float]]:
        """Return the samples of a metric of the node: its labels as written, and the value."""
        found = []
        for line in self.reply("metrics").text.splitlines() if self.reply("metrics").status == 200 else ():
            head, _, value = line.rpartition(" ")
            metric, _, labels = head.partition("{")
            if metric == name:
                with suppress(ValueError):
                    found.append((labels.rstrip("}"), float(value)))
        return [(labels, value) for labels, value in found if isfinite(value)]


def methods(document: Document, resource: str) -> Collection[str]:
    """Return the methods of a resource in a discovery document, whatever the document is like."""
    resources = document.get("resources")
    found = resources.get(resource) if isinstance(resources, dict) else None
    listed = found.get("methods") if isinstance(found, dict) else None
    return listed if isinstance(listed, dict) else ()


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file or folder that is there, or the `fault` for which it cannot be looked at. `mode`: permission bits."""

    path: str
    use: str  # what it is for
    fault: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of the state directory. `fault`: why it cannot be looked at."""

    fault: str = ""
    free_bytes: int = 0
    total_bytes: int = 0
    free_inodes: int = 0
    total_inodes: int = 0
    is_read_only: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """Limits of the kernel. None: it does not say. `process`: whose limit of open files it is, or why it is None."""

    cpus: int = 1
    open_files: int | None = None
    process: str = ""
    service_uid: int | None = None  # who the balancer runs as; None while it does not run here
    service_gids: tuple[int, ...] = ()
    somaxconn: int | None = None
    port_range: tuple[int, int] | None = None
    conntrack_max: int | None = None
    conntrack_count: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A periodic job of our own API nodes, by the database's clock."""

    name: str
    every_s: float
    next_in_s: float
    is_running: bool
    last_error: str


@dataclass(frozen=True, slots=True)
class DnsFinding:
    """What the probe of `arv-balance dns test` says that is not in order. `level`: warning or error."""

    target: str
    subject: str
    level: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Dns:
    """The DNS side. `fault`: why it was not asked."""

    fault: str = ""
    findings: tuple[DnsFinding, ...] = ()
    writers: Mapping[str, str] = field(default_factory=dict)  # target of kind files -> node that is said to write it
    keys: tuple[FileFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything."""

    config: Config
    path: str
    sha256: str
    faults: tuple[Fault, ...]
    shadows: tuple[Fault, ...]  # what run-time changes hide of the file
    cluster: Cluster | None
    nodes: tuple[NodeFacts, ...]
    status: Document | None  # the running balancer's, None when it does not answer
    status_fault: str
    listener_certificates: tuple[Certificate, ...]
    files: tuple[FileFacts, ...]
    state_dir: FileFacts
    admin_socket: FileFacts
    disk: Disk
    machine: Machine
    anonymous_admin: Reply | None  # what admin.listen answers without a token; None: not configured
    dns: Dns | None
    jobs: tuple[Job, ...] | None
    jobs_fault: str
    now: datetime
    limits: Thresholds = Thresholds()

    @property
    def is_arvados(self) -> bool:
        """Whether the nodes speak Arvados' API, ours or the original."""
        return self.config.preset == "arvados" or self.cluster is not None

    def answers(self, what: str) -> dict[str, Document]:
        """Return the good JSON answers of all nodes to one question, by node."""
        found = {node.name: node.document(what) for node in self.nodes}
        return {name: document for name, document in found.items() if document is not None}
