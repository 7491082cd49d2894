"""Buttons: a page that says what would happen, the deed itself, and the way back to the overview with an undo."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from balancer.control.admin.app import Call
from balancer.control.admin.problem import ProblemError
from balancer.control.admin.services import Services
from balancer.control.dashboard.acts import Act, Forecaster, acts, perform
from balancer.control.dashboard.door import Visitor

logger = logging.getLogger(__name__)

PAUSE_WAIT_S = 1.0  # a pause that takes longer goes on behind the overview, which shows how far it is
UNDO_S = 60.0  # the result of an act is news for so long

Document = dict[str, Any]
Form = dict[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that the page before an act shows. `fault`: why the last try did not work."""

    status: int
    facts: Document


class Forms:
    """Asks before acts and does them. `counted` hears of each: its action and its result."""

    def __init__(self, services: Services, counted: Callable[[str, str], None]) -> None:
        self._services = services
        self._counted = counted
        self._acts = acts(services)
        self._forecaster = Forecaster(services)
        self._waiting: asyncio.Queue[tuple[Act, Call, asyncio.Future[Document]]] = asyncio.Queue()

    def act(self, verb: str, visitor: Visitor) -> Act:
        """Return an act. Raises ProblemError when there is none, or when the visitor may not do it."""
        act = self._acts.get(verb)
        if act is None:
            raise ProblemError(404, "there is no such page")
        if visitor.caller.role < act.role:
            needed = act.role.name.lower()
            raise ProblemError(403, f"{visitor.caller.name} may not do this", why=f"it needs the role {needed}")
        return act

    async def question(
        self, request: web.Request, visitor: Visitor, act: Act, form: Form, fault: ProblemError | None = None
    ) -> Question:
        """Return what the page asks."""
        name = target(request)
        outlook = await self._forecaster.outlook(act, Call(visitor.caller, request, {}), name)
        facts = {
            "act": act,
            "target": name,
            "title": act.title.format(name),
            "command": f"arv-balance {act.command.format(name)}",
            "outlook": outlook,
            "must_type": act.is_grave or bool(outlook.guard),
            "cluster": self._services.site.snapshot.cluster,
            "candidates": self._candidates(name) if "node" in act.fields else [],
            "form": dict.fromkeys(("weight", "node", "rate", "reason", "for", "cut"), "") | form,
            "fault": fault,
            "path": request.path,
        }
        return Question(fault.status if fault else 200, facts)

    async def do(self, request: web.Request, visitor: Visitor, act: Act, form: Form) -> str:
        """Do it; returns where to go then. Raises ProblemError."""
        if (act.is_grave or form.get("force")) and form.get("typed", "") != self._services.site.snapshot.cluster:
            raise ProblemError(409, "the name of the cluster is not what you typed", why="nothing was changed")
        before = self._services.events.recent(limit=1)
        number = before[-1].number if before else 0
        name = target(request)
        old_weight = self._weight(name) if act.verb == "weight" else None
        call = Call(visitor.caller, request, body(act, form))
        try:
            await (self._pause(act, call) if act.verb == "pause" else perform(act, call))
        except ProblemError:
            self._counted(act.action, "refused")
            raise
        self._counted(act.action, "done")
        done = [event for event in self._services.events.recent(after=number) if event.kind in act.kinds]
        mine = [event for event in done if event.actor == visitor.caller.name]
        query = {"did": mine[-1].number} if mine else {}
        if old_weight is not None:
            query["was"] = old_weight
        return f"/ui/?{urlencode(query)}" if query else "/ui/"

    def notice(self, request: web.Request, visitor: Visitor) -> Document | None:
        """Return what the visitor did a moment ago and how to undo it, for the page that `do` sends them to."""
        text = request.query.get("did", "")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        event = next(iter(self._services.events.recent(after=number - 1)), None) if number else None
        if event is None or event.number != number or event.actor != visitor.caller.name:
            return None
        clock = self._services.site.parts.clock
        if (clock.now() - datetime.fromisoformat(event.at)).total_seconds() > UNDO_S:
            return None
        act = next((act for act in self._acts.values() if event.kind in act.kinds), None)
        undo = self._acts.get(act.undo) if act else None
        was = request.query.get("was", "")
        may_undo = undo is not None and not undo.is_grave and (undo.verb != "weight" or was.isdigit())
        where = f"/ui/nodes/{event.node}/{undo.verb}" if undo and event.node else f"/ui/{undo.verb}" if undo else ""
        return {
            "text": event.text,
            "reason": event.reason,
            "undo": where if may_undo else "",
            "weight": was if undo and undo.verb == "weight" else "",
        }

    async def run(self) -> None:
        """Carry out pauses, which outlast the request that asks for them, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                act, call, answer = await self._waiting.get()
                tasks.create_task(_carry_out(act, call, answer), name=act.verb)

    async def _pause(self, act: Act, call: Call) -> None:
        """Pause; after a moment the rest goes on without the browser, and events tell how it ends."""
        answer: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((act, call, answer))
        done, _ = await asyncio.wait({answer}, timeout=PAUSE_WAIT_S)
        if done:
            await answer
        else:
            answer.cancel()

    def _weight(self, name: str) -> int | None:
        node = self._services.site.node(name)
        return node.weight if node else None

    def _candidates(self, name: str) -> list[Document]:
        holding = next((item for item in self._services.designations.documents() if item["name"] == name), None)
        nodes = {node["name"]: node for node in self._services.status.nodes()["nodes"]}
        order = holding["order"] if holding else []
        return [{"name": node, "state": nodes[node]["state"]} for node in order if node in nodes]


def target(request: web.Request) -> str:
    """Return what the address is about: a node, a designation, "" for all traffic."""
    return str(request.match_info.get("node") or request.match_info.get("designation") or "")


def body(act: Act, form: Form) -> Document:
    """Return what the admin API's handler is sent. Raises ProblemError."""
    found: Document = {"reason": form.get("reason", "").strip()}
    for name in act.fields:
        value = form.get(name, "").strip()
        if not value:
            continue
        match name:
            case "weight":
                found[name] = _number(name, value, int)
            case "rate":
                found[name] = _number(name, value, float)
            case "cut":
                found[name] = True
            case _:
                found[name] = value
    if form.get("force"):
        found["force"] = True
    return found


def _number(name: str, value: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except ValueError as exc:
        raise ProblemError(400, f"{name} has to be a number, not {value!r}") from exc


async def _carry_out(act: Act, call: Call, answer: "asyncio.Future[Document]") -> None:
    try:
        result = await perform(act, call)
    except ProblemError as exc:
        if not answer.done():
            answer.set_exception(exc)
    except Exception:
        logger.exception("an act failed", extra={"action": act.verb})
        if not answer.done():
            answer.set_exception(
                ProblemError(500, "an error inside arv-balance", why="it is in the log of the service")
            )
    else:
        if not answer.done():
            answer.set_result(result)
