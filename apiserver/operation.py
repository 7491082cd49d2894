"""What the API can be asked: one Operation a method of the discovery document, and the Call that it runs on."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from apiserver.auth import Viewer
from apiserver.dns import Dns, NoDns
from apiserver.settings import Settings
from apiserver.store.pool import Lock, Session, Store


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as discovery shows it. `default` is text, as the document wants it."""

    name: str
    type: str
    required: bool = False
    default: str | None = None
    description: str = ""
    location: str = "query"


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What else of a request matters to an operation.

    Attributes:
        client: address of the client, behind trusted proxies the one they name.
        external: the balancer says that the client is outside (X-External-Client: 1).
        designation_epoch: the epoch in X-Arv-Designation; None when the header did not come.
    """

    method: str = "GET"
    path: str = "/"
    request_id: str = ""
    client: str = ""
    external: bool = False
    designation_epoch: int | None = None


class Directory(Protocol):
    """Finds the controller of a resource, so that one may read through another's permissions."""

    def of_infix(self, infix: str) -> "Reader | None":
        """Return who reads objects with that uuid type."""


class Reader(Protocol):
    """What one controller asks of another."""

    async def is_readable(self, call: "Call", uuid: str) -> bool:
        """Return whether the call's viewer may know of the object."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all calls of one node share; immutable."""

    settings: Settings
    directory: Directory
    vocabulary: Mapping[str, Any] = field(default_factory=dict)
    dns: Dns = field(default_factory=NoDns)

    @property
    def cluster(self) -> str:
        """The cluster's five characters."""
        return self.settings.cluster


@dataclass(slots=True)
class Call:
    """One request on its way through an operation. For a write, `session` is inside the write's transaction.

    `after`: what is done when the transaction is committed; none of it may fail or wait.
    """

    context: Context
    session: Session
    viewer: Viewer
    parameters: dict[str, Any]
    facts: RequestFacts
    uuid: str = ""
    after: list[Callable[[], None]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """The node's settings."""
        return self.context.settings

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean parameter."""
        return bool(self.parameters.get(name, default))


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answers. `body` None sends no body.

    `later`: waits for something after the commit, with no transaction open, and returns the body to send instead.
    """

    body: Any
    status: int = 200
    later: Callable[[Store], Awaitable[Any]] | None = None


Run = Callable[[Call], Awaitable[Reply]]
Locks = Callable[[dict[str, Any]], tuple[Lock, ...]]


def no_locks(parameters: dict[str, Any]) -> tuple[Lock, ...]:
    """Return no lock, whatever the parameters."""
    del parameters
    return ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one resource.

    Attributes:
        resource: key in discovery's `resources`.
        path: below `/arvados/v1/`; `{uuid}` is the only variable.
        wrapper: key of the attributes in the body, "" without a body.
        write: runs in a transaction, which first takes `locks` (decided from the parameters).
        public: needs no token.
    """

    resource: str
    name: str
    method: str
    path: str
    run: Run
    parameters: tuple[Parameter, ...] = ()
    response: str = ""
    wrapper: str = ""
    schema: str = ""
    write: bool = False
    locks: Locks = no_locks
    public: bool = False
    description: str = ""


UUID = Parameter("uuid", "string", True, description="The UUID of the object", location="path")
SELECT = Parameter("select", "array", description="Attributes to return")
CLUSTER = Parameter("cluster_id", "string", description="Only this cluster's own id has a meaning here")
BYPASS = Parameter("bypass_federation", "boolean", default="false", description="Admin only; no effect on one cluster")
INCLUDE_TRASH = Parameter("include_trash", "boolean", default="false", description="Include trashed objects")
INCLUDE_OLD = Parameter("include_old_versions", "boolean", default="false", description="Include past versions")
UNIQUE_NAME = Parameter("ensure_unique_name", "boolean", default="false", description="Change the name if it is taken")
LIST = (
    Parameter("filters", "array", description="Conditions, all of which must hold: [attribute, operator, operand]"),
    Parameter("where", "object", description="Conditions in the old form"),
    Parameter("order", "array", description="Attributes to order by, each with asc or desc"),
    SELECT,
    Parameter("distinct", "boolean", default="false", description="Return equal rows once"),
    Parameter("limit", "integer", default="100", description="Return at most so many"),
    Parameter("offset", "integer", default="0", description="Skip so many"),
    Parameter("count", "string", default="exact", description="exact or none"),
    CLUSTER,
    BYPASS,
)
GET = (UUID, SELECT)
CREATE = (SELECT, UNIQUE_NAME, CLUSTER)
UPDATE = (UUID, SELECT)
DELETE = (UUID,)
