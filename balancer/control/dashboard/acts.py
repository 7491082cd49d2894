"""What can be done by button: its words, its consequence before it is done, and how it is undone."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from balancer.control.admin.access import Role
from balancer.control.admin.app import Call
from balancer.control.admin.nodes import NodeRoutes
from balancer.control.admin.problem import ProblemError, from_error
from balancer.control.admin.services import Services
from balancer.control.admin.traffic import TrafficRoutes
from balancer.errors import BalanceError

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done.

    `fields` are what the form asks for beside a reason; `kinds` of events tell that it was done; `undo` is the act
    that takes it back; `is_grave`: the cluster's name has to be typed.
    """

    verb: str
    title: str
    button: str
    role: Role
    handler: Callable[[Call], Awaitable[Document]]
    command: str
    kinds: tuple[str, ...]
    fields: tuple[str, ...] = ()
    undo: str = ""
    is_grave: bool = False
    has_dry_run: bool = True

    @property
    def action(self) -> str:
        """Its name in metrics, the same as of the admin API's call."""
        if self.verb == "designate":
            return "designations"
        return self.verb if self.verb in {"pause", "resume"} else f"nodes-{self.verb}"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an act would come to. `guard`: why it is refused unless it is forced; `refusal`: why it cannot be."""

    lines: tuple[str, ...]
    guard: str = ""
    refusal: str = ""


def acts(services: Services) -> dict[str, Act]:
    """Return all acts by their verb."""
    nodes, traffic = NodeRoutes(services), TrafficRoutes(services)
    operator, admin = Role.OPERATOR, Role.ADMIN
    found = (
        Act(
            *("drain", "Drain {}", "Drain", operator, nodes.drain),
            command="nodes drain {}",
            kinds=("node-drain",),
            fields=("for",),
            undo="undrain",
        ),
        Act(
            *("undrain", "Let {} serve again", "Undrain", operator, nodes.undrain),
            command="nodes undrain {}",
            kinds=("node-undrained",),
            undo="drain",
        ),
        Act(
            *("weight", "Change the weight of {}", "Set weight", operator, nodes.weight),
            command="nodes weight {} WEIGHT",
            kinds=("node-weight",),
            fields=("weight", "for"),
            undo="weight",
            has_dry_run=False,
        ),
        Act(
            *("remove", "Remove {}", "Remove", admin, nodes.remove),
            command="nodes remove {}",
            kinds=("node-remove",),
            undo="undrain",
        ),
        Act(
            *("forget", "Forget what was changed about {}", "Forget", admin, nodes.forget),
            command="nodes forget {}",
            kinds=("node-forgotten",),
        ),
        Act(
            *("pause", "Pause all traffic", "Pause traffic", operator, traffic.pause),
            command="pause",
            kinds=("paused",),
            fields=("for", "cut"),
            undo="resume",
            is_grave=True,
        ),
        Act(
            *("resume", "Let traffic go on", "Resume traffic", operator, traffic.resume),
            command="resume",
            kinds=("resumed",),
            fields=("rate",),
            undo="pause",
            has_dry_run=False,
        ),
        Act(
            *("designate", "Move the designation {}", "Move", operator, traffic.appoint),
            command="designate {} NODE",
            kinds=("designation-moved",),
            fields=("node",),
            has_dry_run=False,
        ),
    )
    return {act.verb: act for act in found}


class Forecaster:
    """Says what an act would come to, without doing it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def outlook(self, act: Act, call: Call, name: str) -> Outlook:
        """Return the outlook. Raises ProblemError for a node or designation that is not there."""
        lines, guard, refusal = self._lines(act, name), "", ""
        if act.has_dry_run:
            try:
                answer = await perform(act, replace(call, body={"dry_run": True}))
            except ProblemError as exc:
                if exc.status != 409:
                    raise
                guard, refusal = (exc.what, "") if exc.facts.get("kind") == "guard" else ("", exc.what)
            else:
                lines = [*_said(act, answer), *lines]
        return Outlook(tuple(lines), guard, refusal)

    def _lines(self, act: Act, name: str) -> list[str]:
        match act.verb:
            case "drain" | "remove":
                return [*self._last(name), *self._under_way(name), *self._designated(name)]
            case "weight":
                return [self._share(name)]
            case "pause":
                return self._pausing()
            case "resume":
                parked, rate = (
                    self._services.pauses.document()["parked"],
                    self._services.site.snapshot.park.release_per_s,
                )
                return [f"{parked} requests wait; {rate:g} a second go on, what waited longest first."]
            case "designate":
                return self._holding(name)
            case _:
                return []

    def _last(self, name: str) -> list[str]:
        serving = [node["name"] for node in self._services.status.nodes()["nodes"] if node["serving"]]
        if serving != [name]:
            return []
        return [f"{name} is the last node that serves. New requests would wait, and fail when their time is up."]

    def _under_way(self, name: str) -> list[str]:
        node = self._services.site.node(name)
        if node is None:
            return []
        document = self._services.status.node(node)
        if not document["in_flight"] and not document["tunnels"]:
            return ["Nothing is in flight there."]
        tunnels = f" and {_counted(document['tunnels'], 'tunnel')}" if document["tunnels"] else ""
        return [f"{_counted(document['in_flight'], 'request')}{tunnels} in flight there end on their own."]

    def _designated(self, name: str) -> list[str]:
        config, found = self._services.site.config, []
        for item in self._services.designations.documents():
            if item["node"] == name:
                others = [other for other in item["order"] if other != name]
                is_automatic = config.designated[item["name"]].failover == "automatic" and bool(others)
                then = (
                    "it moves to the next node of its order" if is_automatic else "its requests wait: nobody takes over"
                )
                found.append(f"{name} is the designated node for {item['name']}: {then}.")
        return found

    def _share(self, name: str) -> str:
        nodes = [node for node in self._services.status.nodes()["nodes"] if node["serving"] or node["name"] == name]
        whole = sum(node["weight"] for node in nodes)
        now = next((node["weight"] for node in nodes if node["name"] == name), 0)
        part = f"{100 * now / whole:.0f} %" if whole else "nothing"
        return f"It is {now} now, which is {part} of what is balanced. 0 takes no balanced request."

    def _pausing(self) -> list[str]:
        document, site = self._services.pauses.document(), self._services.site
        wait_s, for_s = float(site.config.drain.timeout), float(site.config.park.timeout)
        return [
            "New requests wait in their connections instead of failing; routes with park: false go on.",
            f"{_counted(document['busy'], 'request')} and {_counted(document['tunnels'], 'tunnel')} under way have "
            f"{wait_s:g} s to end; else the pause undoes itself.",
            f"It ends by itself after {for_s:g} s unless you say otherwise.",
        ]

    def _holding(self, name: str) -> list[str]:
        found = next((item for item in self._services.designations.documents() if item["name"] == name), None)
        if found is None:
            raise ProblemError(404, f"there is no designation {name!r}")
        return [
            f"{found['node'] or 'Nobody'} holds it, epoch {found['epoch']}. Only the new node gets its requests then."
        ]


async def perform(act: Act, call: Call) -> Document:
    """Do it by way of the admin API's handler. Raises ProblemError."""
    try:
        return await act.handler(call)
    except BalanceError as exc:
        raise from_error(exc) from exc


def _said(act: Act, answer: Mapping[str, Any]) -> list[str]:
    if act.verb == "pause":
        return [f"{str(answer['forecast']).capitalize()}."]
    said = str(answer.get("consequence", ""))
    return [f"{said[0].upper()}{said[1:]}."] if said else []


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
