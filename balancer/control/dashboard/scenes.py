"""What a page shows that changes by itself: zones, made from the same documents as the admin API's answers."""

import asyncio
from dataclasses import dataclass
from typing import Any

from balancer.control.admin.access import Role
from balancer.control.admin.nodes import REMAINING
from balancer.control.admin.services import Services
from balancer.control.dashboard.pages import Pages
from balancer.control.events import event_document
from balancer.observe.series import SPANS, columns

OVERVIEW = (
    "head",
    "causes",
    "tiles",
    "nodes",
    "duties",
    "dns",
    "peers",
    "upgrade",
    "slow",
    "routes",
    "ledger",
    "balancer",
    "events",
)
NODE = ("head", "node-now", "node-charts", "node-exchanges", "events")
SHOWN_EVENTS = 12
SHOWN_SLOW = 5
SHOWN_ROUTES = 5
SLOW_S = 1.0  # an exchange that is open for so long is worth a line
ANSWER_S = 0.5

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """A page as somebody with a role sees it. `node`: whose page it is, "" for the overview."""

    role: Role
    node: str = ""

    @property
    def zones(self) -> tuple[str, ...]:
        """The parts of the page that change by themselves."""
        return NODE if self.node else OVERVIEW


class Stage:
    """Makes scenes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def facts(self, scene: Scene) -> Document:
        """Return everything that the scene's templates use."""
        services = self._services
        status = services.status.cluster()
        found: Document = {
            "now": services.site.parts.clock.now(),
            "status": status,
            "may_operate": scene.role >= Role.OPERATOR,
            "may_administer": scene.role >= Role.ADMIN,
            "node_name": scene.node,
            "events": [
                event_document(event) for event in reversed(services.events.recent(limit=SHOWN_EVENTS, node=scene.node))
            ],
        }
        return found | (await self._node(scene.node) if scene.node else await self._overview(status))

    async def _overview(self, status: Document) -> Document:
        services = self._services
        slots = {node.name: node.slot for node in services.site.snapshot.nodes}
        under_way = await self._under_way(None, SHOWN_SLOW)
        return {
            "slow": [item for item in under_way if item["age_s"] >= SLOW_S and item["state"] != "tunnel"],
            "routes": worst_first(status["routes"])[:SHOWN_ROUTES],
            "pause": services.pauses.document(),
            "run": services.upgrades.document() if status["upgrade"] else None,
            "chart": services.series.points("minute"),
            "charts": {
                node["name"]: [point.per_s for point in services.series.points("minute", slots[node["name"]])]
                for node in status["nodes"]
            },
        }

    async def _node(self, name: str) -> Document:
        services = self._services
        node = services.site.node(name)
        if node is None:
            return {"node": None, "exchanges": [], "charts": {}}
        return {
            "node": services.status.node(node),
            "exchanges": await self._under_way(name, REMAINING),
            "charts": {span: columns(services.series.points(span, node.slot)) for span in SPANS},
            "designated": [item for item in services.designations.documents() if item["node"] == name],
        }

    async def _under_way(self, node: str | None, limit: int) -> list[Document]:
        """Return the oldest exchanges; none when a worker does not answer at once, because pages must not hang."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._services.publisher.exchanges(node, limit)
        except TimeoutError:
            return []


def worst_first(routes: list[Document]) -> list[Document]:
    """Return the routes that had traffic or failures lately: what failed most, then what took longest, first."""
    lively = [route for route in routes if route["rates"]["failed"] or route["rates"]["requests_per_s"]]
    return sorted(lively, key=lambda route: (-route["rates"]["failed"], -(route["rates"]["p99_s"] or 0.0)))


def render(pages: Pages, scene: Scene, facts: Document) -> dict[str, str]:
    """Return the HTML of each zone by its name."""
    return {zone: pages.render(f"zones/{zone}", **facts) for zone in scene.zones}
