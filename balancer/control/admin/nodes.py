"""Nodes over HTTP: what they are, and what operators do to them."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from balancer.config.addresses import BadTextError, node_url
from balancer.config.overlay import AddedNode
from balancer.control.actions import Done, Request, UnknownNodeError
from balancer.control.admin.app import Call
from balancer.control.admin.problem import ProblemError
from balancer.control.admin.services import Document, Services, seconds_of, text
from balancer.control.status import NODE
from balancer.model import Node

ACTION = "arv-balance/action/v1"
REMAINING = 20  # exchanges that a draining node's document names

Act = Callable[[str, Request], Awaitable[Done]]


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
            "schema": NODE,
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

    async def _try(self, act: Act, call: Call) -> Done:
        return await act(call.request.match_info.get("node", ""), self._request(call))

    async def _answer(self, call: Call, done: Done) -> Document:
        node = self._services.site.node(done.node)
        return {
            "schema": ACTION,
            "action": call.request.path.rpartition("/")[2],
            "node": done.node,
            "state": done.state,
            "changed": done.changed,
            "consequence": done.consequence,
            "timeout_s": float(self._services.site.config.drain.timeout),
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
            raise UnknownNodeError(name, (item.name for item in self._services.site.snapshot.nodes))
        return node

    def _request(self, call: Call) -> Request:
        return Request(
            who=call.caller.name,
            reason=text(call.body, "reason"),
            until=self._until(call.body),
            force=bool(call.body.get("force")),
            cut=bool(call.body.get("cut")),
            now=bool(call.body.get("now")),
            dry_run=bool(call.body.get("dry_run")),
        )

    def _until(self, body: Mapping[str, Any]) -> datetime | None:
        seconds = seconds_of(body, "for")
        return self._services.site.parts.clock.after(seconds) if seconds is not None else None


def added_node(body: Mapping[str, Any]) -> tuple[str, AddedNode]:
    """Return the node that a body describes. Raises ProblemError."""
    try:
        url = node_url(body.get("url"))
    except BadTextError as exc:
        raise ProblemError(400, str(exc), hint=exc.hint) from exc
    parts = url.parts
    name = text(body, "name") or (parts.host or parts.unix_path.strip("/").replace("/", "-"))
    weight, capacity = body.get("weight", 100), body.get("capacity", 0)
    if not isinstance(weight, int) or not 0 <= weight <= 1000:
        raise ProblemError(400, "weight has to be 0 to 1000")
    if not isinstance(capacity, int) or capacity < 0:
        raise ProblemError(400, "capacity has to be 0 or more")
    return name, AddedNode(str(url), weight, capacity)
