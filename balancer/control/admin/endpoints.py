"""The routes of the admin API and what each one does."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import PydanticCustomError

from balancer.config.overlay import AddedNode
from balancer.config.scalars import NodeUrl
from balancer.control.actions import Done, NodeActions, Request, UnknownNodeError
from balancer.control.admin.access import Role
from balancer.control.admin.app import Call, Endpoint, json_response
from balancer.control.admin.problem import ProblemError
from balancer.control.events import EventLog
from balancer.control.publisher import Publisher
from balancer.control.reload import InvalidConfigError, Reader, fault_document
from balancer.control.site import Site
from balancer.control.status import Status
from balancer.durations import parse
from balancer.model import Node

Document = dict[str, Any]

ACTION = "arv-balance/action/v1"
RELOAD = "arv-balance/reload/v1"
MAX_SECONDS = 366 * 86400.0
REMAINING = 20  # exchanges that a draining node's document names


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers work with."""

    site: Site
    status: Status
    actions: NodeActions
    events: EventLog
    reader: Reader
    publisher: Publisher


def endpoints(services: Services) -> list[Endpoint]:
    """Return all routes."""
    nodes = NodeRoutes(services)
    general = GeneralRoutes(services)
    return [
        Endpoint("GET", "/livez", Role.NOBODY, general.livez, "process is alive"),
        Endpoint("GET", "/readyz", Role.NOBODY, general.readyz, "enough nodes serve"),
        Endpoint("GET", "/v1/status", Role.VIEWER, general.status, "status"),
        Endpoint("GET", "/v1/ledger", Role.VIEWER, general.ledger, "ledger"),
        Endpoint("GET", "/v1/config", Role.VIEWER, general.config, "config"),
        Endpoint("POST", "/v1/config/reload", Role.ADMIN, general.reload, "reload"),
        Endpoint("GET", "/v1/nodes", Role.VIEWER, nodes.every, "nodes"),
        Endpoint("POST", "/v1/nodes", Role.ADMIN, nodes.add, "add"),
        Endpoint("GET", "/v1/nodes/{node}", Role.VIEWER, nodes.show, "node"),
        Endpoint("POST", "/v1/nodes/{node}/drain", Role.OPERATOR, nodes.drain, "drain"),
        Endpoint("POST", "/v1/nodes/{node}/undrain", Role.OPERATOR, nodes.undrain, "undrain"),
        Endpoint("POST", "/v1/nodes/{node}/weight", Role.OPERATOR, nodes.weight, "weight"),
        Endpoint("POST", "/v1/nodes/{node}/remove", Role.ADMIN, nodes.remove, "remove"),
        Endpoint("POST", "/v1/nodes/{node}/forget", Role.ADMIN, nodes.forget, "forget"),
    ]


class GeneralRoutes:
    """Status, configuration, ledger, health of the balancer itself."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def livez(self, _call: Call) -> Document:
        """Answer at all."""
        return {"ok": True}

    async def readyz(self, _call: Call) -> Any:
        """Say whether enough nodes serve."""
        site, status = self._services.site, self._services.status
        if not site.is_running:
            return json_response({"ok": False, "why": "no configuration is in use yet"}, 503)
        serving = sum(node["serving"] for node in status.nodes()["nodes"])
        least = max(1, site.config.balance.min_serving)
        return json_response(
            {"ok": serving >= least, "serving": serving, "needed": least}, 200 if serving >= least else 503
        )

    async def status(self, _call: Call) -> Document:
        """Return everything."""
        return self._services.status.cluster()

    async def ledger(self, _call: Call) -> Document:
        """Return how exchanges ended."""
        return self._services.status.ledger()

    async def config(self, _call: Call) -> Document:
        """Return what configuration runs."""
        return {"schema": "arv-balance/config/v1", **self._services.status.config()}

    async def reload(self, call: Call) -> Document:
        """Read the file again."""
        try:
            done = await self._services.reader.reload(call.caller.name, dry_run=bool(call.body.get("dry_run")))
        except InvalidConfigError as exc:
            faults = [fault_document(fault) for fault in exc.faults]
            hint = "arv-balance check"
            raise ProblemError(422, str(exc), why="nothing was changed", hint=hint, errors=faults) from exc
        warnings = [fault_document(fault) for fault in done.warnings]
        return {
            "schema": RELOAD,
            "changes": list(done.changes),
            "warnings": warnings,
            "generation": self._services.publisher.generation,
            "dry_run": bool(call.body.get("dry_run")),
        }


class NodeRoutes:
    """Nodes and what operators do to them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def every(self, _call: Call) -> Document:
        """Return all nodes."""
        return self._services.status.nodes()

    async def show(self, call: Call) -> Document:
        """Return one node with what is under way at it."""
        node = self._node(call)
        return {
            "schema": "arv-balance/node/v1",
            **self._services.status.node(node),
            "exchanges": await self._under_way(node),
        }

    async def drain(self, call: Call) -> Document:
        """Begin to drain."""
        return await self._answer(call, await self._try(self._services.actions.drain, call))

    async def undrain(self, call: Call) -> Document:
        """Let it serve again."""
        return await self._answer(call, await self._try(self._services.actions.undrain, call))

    async def remove(self, call: Call) -> Document:
        """Begin to remove."""
        return await self._answer(call, await self._try(self._services.actions.remove, call))

    async def forget(self, call: Call) -> Document:
        """Drop intents."""
        return await self._answer(call, await self._try(self._services.actions.forget, call))

    async def weight(self, call: Call) -> Document:
        """Set the weight."""
        weight = call.body.get("weight")
        if not isinstance(weight, int) or isinstance(weight, bool):
            raise ProblemError(400, "weight has to be a whole number")

        async def act(name: str, request: Request) -> Done:
            return await self._services.actions.weight(name, weight, request)

        return await self._answer(call, await self._try(act, call))

    async def add(self, call: Call) -> Document:
        """Add a node."""
        name, added = added_node(call.body)

        async def act(_name: str, request: Request) -> Done:
            return await self._services.actions.add(name, added, request)

        return await self._answer(call, await self._try(act, call))

    async def _try(self, act: Any, call: Call) -> Done:
        try:
            done: Done = await act(call.request.match_info.get("node", ""), self._request(call))
        except UnknownNodeError as exc:
            hint = f"did you mean {exc.suggestion}?" if exc.suggestion else "arv-balance nodes list"
            raise ProblemError(404, str(exc), why=exc.why, hint=hint) from exc
        return done

    async def _answer(self, call: Call, done: Done) -> Document:
        node = self._services.site.node(done.node)
        return {
            "schema": ACTION,
            "action": call.request.path.rpartition("/")[2],
            "node": done.node,
            "state": done.state,
            "changed": done.changed,
            "consequence": done.consequence,
            "dry_run": bool(call.body.get("dry_run")),
            "exchanges": await self._under_way(node) if node and not call.body.get("dry_run") else [],
            **done.facts,
        }

    async def _under_way(self, node: Node) -> list[Document]:
        return await self._services.publisher.exchanges(node.name, REMAINING)

    def _node(self, call: Call) -> Node:
        name = call.name("node")
        node = self._services.site.node(name)
        if node is None:
            error = UnknownNodeError(name, [item.name for item in self._services.site.snapshot.nodes])
            hint = f"did you mean {error.suggestion}?" if error.suggestion else "arv-balance nodes list"
            raise ProblemError(404, str(error), why=error.why, hint=hint)
        return node

    def _request(self, call: Call) -> Request:
        return Request(
            who=call.caller.name,
            reason=text(call.body, "reason"),
            until=self._until(call.body),
            force=bool(call.body.get("force")),
            dry_run=bool(call.body.get("dry_run")),
        )

    def _until(self, body: Mapping[str, Any]) -> datetime | None:
        seconds = seconds_of(body, "for")
        return self._services.site.parts.clock.after(seconds) if seconds is not None else None


def added_node(body: Mapping[str, Any]) -> tuple[str, AddedNode]:
    """Return the node that a body describes. Raises ProblemError."""
    try:
        url = NodeUrl.parse(body.get("url"))
    except PydanticCustomError as exc:
        context = exc.context or {}
        raise ProblemError(400, str(context.get("message", exc)), hint=str(context.get("hint", ""))) from exc
    parts = url.parts
    name = text(body, "name") or (parts.host or parts.unix_path.strip("/").replace("/", "-"))
    weight, capacity = body.get("weight", 100), body.get("capacity", 0)
    if not isinstance(weight, int) or not 0 <= weight <= 1000:
        raise ProblemError(400, "weight has to be 0 to 1000")
    if not isinstance(capacity, int) or capacity < 0:
        raise ProblemError(400, "capacity has to be 0 or more")
    return name, AddedNode(str(url), weight, capacity)


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a text of a body, "" when it is not there. Raises ProblemError."""
    value = body.get(name) or ""
    if not isinstance(value, str) or len(value) > 500:
        raise ProblemError(400, f"{name} has to be a text of at most 500 characters")
    return value


def seconds_of(body: Mapping[str, Any], name: str) -> float | None:
    """Return a span of a body (seconds, or `2h`), None when it is not there. Raises ProblemError."""
    value = body.get(name)
    if value is None:
        return None
    try:
        seconds = parse(value) if isinstance(value, str) else float(value)
    except (ValueError, TypeError) as exc:
        raise ProblemError(400, f"{name} is not a duration", why=str(exc)) from exc
    if not 0 < seconds <= MAX_SECONDS:
        raise ProblemError(400, f"{name} has to be more than 0 and at most a year")
    return seconds
