"""Whether this node may serve: is the database there, is its schema the one this program knows, is it stopping."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from apiserver.errors import ApiError
from apiserver.store.failures import LostConnectionError
from apiserver.store.migrator import Level, gate, level
from apiserver.store.pool import DatabaseSettings, Session, connect

logger = logging.getLogger(__name__)
INTERVAL_S = 1.0
TIMEOUT_S = 2.0
STALE_S = INTERVAL_S + TIMEOUT_S + 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and when on the loop's clock. `error` "" means good."""

    error: str
    at: float
    schema: Level


class Monitor:
    """Looks at the database once a second over a connection of its own, so that a busy pool hides nothing."""

    def __init__(self, settings: DatabaseSettings, needed: int, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._needed = needed
        self._clock = clock
        self._verdict = Verdict("the database has not been looked at yet", clock(), Level(0, 0))
        self.stopping = False
        self.looked = asyncio.Event()  # set once there is a first verdict

    @property
    def schema(self) -> Level:
        """The level of the schema when it was last seen."""
        return self._verdict.schema

    def error(self) -> str:
        """Return why this node may not serve, "" when it may; a look that is overdue counts as failed."""
        if self.stopping:
            return "the node is stopping"
        age = self._clock() - self._verdict.at
        if age > STALE_S:
            return f"the database has not answered for {age:.0f} s"
        return self._verdict.error

    async def run(self) -> None:
        """Look for ever; a lost connection is opened again."""
        while True:
            try:
                await self._connect_and_watch()
                continue
            except (ApiError, TimeoutError, OSError) as exc:
                self._note(f"the database cannot be reached: {str(exc) or type(exc).__name__}")
            except Exception as exc:  # the top of the task: a fault here must not end the node
                logger.exception("monitor failed")
                self._note(f"the monitor failed: {type(exc).__name__}")
            await asyncio.sleep(INTERVAL_S)

    async def _connect_and_watch(self) -> None:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(TIMEOUT_S):
                connection = await stack.enter_async_context(connect(self._settings))
            await self._watch(Session(connection))

    async def _watch(self, session: Session) -> None:
        """Look once a second until the connection fails.

        One that breaks after it has worked is no verdict yet: whether the database is there shows the next one,
        which is opened at once. One that is silent is a verdict.
        """
        worked = False
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    found = await level(session)
                if found.read_only:
                    raise LostConnectionError("its server only reads, as a standby does")
            except LostConnectionError:
                if not worked:
                    raise
                return
            self._note(gate(found, self._needed) or "", found)
            worked = True
            await asyncio.sleep(INTERVAL_S)

    def _note(self, error: str, schema: Level | None = None) -> None:
        if error != self._verdict.error:
            logger.log(logging.WARNING if error else logging.INFO, "health changed", extra={"error": error})
        self._verdict = Verdict(error, self._clock(), schema or self._verdict.schema)
        self.looked.set()
