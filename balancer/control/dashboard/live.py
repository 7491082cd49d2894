"""Server-sent events: each scene is rendered once a second for all who look at it; only what changed is sent."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from balancer.control.admin.problem import ProblemError
from balancer.control.dashboard.scenes import Scene

logger = logging.getLogger(__name__)

EVERY_S = 1.0
MAX_VIEWERS = 50

Render = Callable[[Scene], Awaitable[dict[str, str]]]


class Viewer:
    """One browser. What it has not been sent yet waits here: at most the newest state of each zone."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._wake = asyncio.Event()
        self.is_over = False

    def offer(self, zones: Mapping[str, str]) -> None:
        """Put zones in, over older states of the same ones."""
        self._waiting.update(zones)
        self._wake.set()

    def end(self) -> None:
        """There will be nothing more."""
        self.is_over = True
        self._wake.set()

    async def take(self) -> dict[str, str]:
        """Return what has changed since the last time, {} when a turn went by without a change or it is over."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._waiting = self._waiting, {}
        return taken


class Broadcast:
    """Renders while somebody looks. `run` has to run in a task."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._viewers: dict[Scene, set[Viewer]] = {}
        self._shown: dict[Scene, dict[str, str]] = {}
        self._wake = asyncio.Event()

    @property
    def viewers(self) -> int:
        """How many look."""
        return sum(map(len, self._viewers.values()))

    @asynccontextmanager
    async def watch(self, scene: Scene) -> AsyncIterator[Viewer]:
        """Give a viewer that is told about a scene; first the whole of it. Raises ProblemError when there are many."""
        if self.viewers >= MAX_VIEWERS:
            raise ProblemError(503, f"{MAX_VIEWERS} browsers are looking already", hint="reload the page by hand")
        viewer = Viewer()
        viewer.offer(await self._render(scene))
        self._viewers.setdefault(scene, set()).add(viewer)
        self._wake.set()
        try:
            yield viewer
        finally:
            self._viewers[scene].discard(viewer)
            if not self._viewers[scene]:
                del self._viewers[scene]
                self._shown.pop(scene, None)

    async def run(self) -> None:
        """Render every scene that is looked at once a second, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                while self._viewers:
                    await self._turn()
                    await asyncio.sleep(EVERY_S)
                self._wake.clear()
        finally:
            self.close()

    def close(self) -> None:
        """End all streams; browsers come back by themselves."""
        for viewers in self._viewers.values():
            for viewer in viewers:
                viewer.end()

    async def _turn(self) -> None:
        for scene in list(self._viewers):
            try:
                zones = await self._render(scene)
            except Exception:
                logger.exception("a page could not be rendered", extra={"action": "dashboard"})
                continue
            before = self._shown.get(scene, {})
            changed = {name: html for name, html in zones.items() if before.get(name) != html}
            self._shown[scene] = zones
            for viewer in self._viewers.get(scene, ()):
                viewer.offer(changed)  # also when nothing changed: a browser hears that we are there


def message(zones: Mapping[str, str]) -> bytes:
    """Return one event of the stream. Source: HTML Standard section 9.2."""
    return b"event: zones\ndata: " + json.dumps(zones, separators=(",", ":")).encode() + b"\n\n"
