"""Events: log rows of all nodes, handed to subscribers of this one exactly once and in one order.

Order and completeness come from the database alone: rows are read by (transaction, id) below the horizon of
transactions that may still commit, so a late commit with a small id is never jumped over. NOTIFY only says "look now".
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiserver.auth import Viewer
from apiserver.errors import ApiError, InvalidError
from apiserver.filters import kind_of_uuid
from apiserver.store.pool import DatabaseSettings, Row, Session, connect
from apiserver.store.queries import load
from apiserver.times import format_time, parse_time

logger = logging.getLogger(__name__)
_QUERIES = load("events")
CHANNEL = "arv_api_logs"
POLL_S = 0.5
DEBOUNCE_S = 0.025
TIMEOUT_S = 2.0
FIRST_LOOK_S = 5.0
BATCH = 500
MAX_ID = 2**63 - 1
_SHOWN = ("is_trashed", "name", "owner_uuid", "portable_data_hash", "requesting_container_uuid", "state")
_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    "=": lambda left, right: left == right,
    ">=": lambda left, right: left >= right,
    ">": lambda left, right: left > right,
}
Position = tuple[int, int]


def wanted(filters: Any) -> Callable[[Row], bool]:
    """Return the test of one subscription: `event_type in` and `created_at` are honoured, others let all through.

    Raises:
        InvalidError: the filters are malformed.
    """
    if not isinstance(filters, list) or not all(isinstance(item, list) and len(item) == 3 for item in filters):
        raise InvalidError("filters must be an array of [attribute, operator, operand]")
    tests: list[Callable[[Row], bool]] = []
    for attribute, operator, operand in filters:
        if attribute == "event_type" and operator == "in" and isinstance(operand, list):
            tests.append(_type_test([str(one) for one in operand]))
        elif attribute == "created_at" and operator in _TESTS and isinstance(operand, str):
            tests.append(_time_test(_TESTS[operator], operand))
    return lambda row: all(test(row) for test in tests)


def _type_test(types: Sequence[str]) -> Callable[[Row], bool]:
    return lambda row: row["event_type"] in types


def _time_test(test: Callable[[Any, Any], bool], text: str) -> Callable[[Row], bool]:
    try:
        moment = parse_time(text)
    except ValueError as exc:
        raise InvalidError(f"created_at: {text[:60]!r} is no time") from exc
    return lambda row: test(row["created_at"], moment)


def shown(row: Row) -> dict[str, Any]:
    """Return an event as clients see it, without its number in the connection."""
    properties = json.loads(row["properties"])
    if "text" not in properties:
        properties = {
            side: {name: values[name] for name in _SHOWN if name in values}
            for side in ("old_attributes", "new_attributes")
            if isinstance(values := properties.get(side), dict)
        }
    return {
        "id": row["id"],
        "uuid": row["uuid"],
        "object_uuid": row["object_uuid"],
        "object_owner_uuid": row["object_owner_uuid"],
        "object_kind": kind_of_uuid(row["object_uuid"]),
        "event_type": row["event_type"],
        "event_at": format_time(row["event_at"]),
        "properties": properties,
    }


@dataclass(eq=False, slots=True)
class Subscriber:
    """One connection. `viewer` None may see nothing; an admin may see everything while its token is good.

    `queue` is bounded by its maker; an overflow sets `overflowed`, and the connection has to be closed: its client
    comes back and asks for what it missed.
    """

    viewer: Viewer | None
    queue: asyncio.Queue[Row]
    subscriptions: list[tuple[Any, Callable[[Row], bool]]] = field(default_factory=list)
    overflowed: asyncio.Event = field(default_factory=asyncio.Event)
    since: Position = (0, 0)

    def wants(self, row: Row) -> bool:
        """Return whether one of the subscriptions matches."""
        return any(test(row) for _, test in self.subscriptions)


async def _known(
    session: Session, rows: Sequence[Row], subscribers: Iterable[Subscriber]
) -> dict[Subscriber, Sequence[Row]]:
    """Return which of the events each may know of at this moment; who has lost its token is not in it."""
    viewers = await _viewers(session, subscribers)
    entitled = await _entitled(session, rows, {user for user, is_admin in viewers.values() if not is_admin})
    return {
        one: [row for index, row in enumerate(rows) if is_admin or (index, user) in entitled]
        for one, (user, is_admin) in viewers.items()
    }


async def _viewers(session: Session, subscribers: Iterable[Subscriber]) -> dict[Subscriber, tuple[str, bool]]:
    """Return the user of each whose token is good, and whether it is an admin: both may have changed."""
    viewers = {one: one.viewer for one in subscribers if one.viewer is not None}
    stored = {viewer.token_uuid for viewer in viewers.values() if viewer.is_stored}
    found = await session.rows(_QUERIES["viewers"], sorted(stored)) if stored else []
    good = {row["token"]: (row["uuid"], row["is_admin"]) for row in found}
    good |= {one.token_uuid: (one.user_uuid, one.is_admin) for one in viewers.values() if not one.is_stored}
    return {one: good[viewer.token_uuid] for one, viewer in viewers.items() if viewer.token_uuid in good}


async def _entitled(session: Session, rows: Sequence[Row], users: set[str]) -> set[tuple[int, str]]:
    """Return (index of row, user) pairs of those who may know of an event by their permissions."""
    if not rows or not users:
        return set()
    found = await session.rows(
        _QUERIES["entitled"], [row["object_uuid"] for row in rows], [row["object_owner_uuid"] for row in rows],
        sorted(users),
    )  # fmt: skip
    return {(row["n"] - 1, row["uuid"]) for row in found}


class Pump:
    """Reads new events once for all subscribers of this process."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._wake = asyncio.Event()
        self._nudged = False
        self._handing_out = asyncio.Lock()
        self._looked = asyncio.Event()
        self._subscribers: set[Subscriber] = set()
        self.position: Position | None = None
        self.lag_s = 0.0
        self._lag_at = float("-inf")  # when it was measured, on the loop's clock

    def nudge(self) -> None:
        """Tell all nodes to look, soon: something was committed here. Many calls become one message."""
        self._nudged = True
        self._wake.set()

    async def add(self, subscriber: Subscriber, since: Position) -> Position:
        """Register; return the position after which it gets everything. Waits while a batch is handed out.

        `since` (from `horizon`) keeps away what was decided before it came, however far behind this pump is.

        Raises:
            ApiError: the position is not known, because the database has not answered since the start.
        """
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._looked.wait()
        except TimeoutError as exc:
            raise ApiError("events are not available: the database does not answer") from exc
        async with self._handing_out:
            if self.position is None:
                raise AssertionError("a pump that has looked has a position")
            if subscriber not in self._subscribers:
                subscriber.since = max(self.position, since)
                self._subscribers.add(subscriber)
            return max(self.position, subscriber.since)

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber."""
        self._subscribers.discard(subscriber)

    async def run(self) -> None:
        """Pump for ever; after a lost connection go on at the same position."""
        while True:
            try:
                async with connect(self._settings) as connection:
                    if not self._settings.pooler:
                        async with asyncio.timeout(TIMEOUT_S):
                            await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
                    await self._pump(Session(connection))
            except (ApiError, OSError, TimeoutError) as exc:
                logger.warning("events interrupted", extra={"error": str(exc) or type(exc).__name__})
            except Exception:  # the top of the task: a fault here must not end the node
                logger.exception("events failed")
            await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311

    async def _pump(self, session: Session) -> None:
        while True:
            async with asyncio.timeout(TIMEOUT_S):
                if self._nudged:
                    self._nudged = False
                    await session.execute(_QUERIES["nudge"])
                if self._subscribers or self._is_due():  # without listeners the news of other nodes can wait
                    async with self._handing_out:
                        await self._look(session)
            await asyncio.sleep(DEBOUNCE_S)
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
            finally:
                self._wake.clear()

    def _is_due(self) -> bool:
        """Whether the horizon was looked at longer ago than a poll."""
        return asyncio.get_running_loop().time() - self._lag_at >= POLL_S

    async def _look(self, session: Session) -> None:
        """Hand out all that is decided; without subscribers only move on."""
        idle = self.position is None or not self._subscribers
        if (idle or self._is_due()) and (row := await session.row(_QUERIES["horizon"])) is not None:
            self.lag_s, self._lag_at = row["lag_s"], asyncio.get_running_loop().time()
            if idle:
                self.position = (row["xid"], MAX_ID)
                self._looked.set()
        if idle or self.position is None:
            return
        while True:
            rows = await session.rows(_QUERIES["after"], *self.position, BATCH)
            if rows:
                await self._deliver(session, rows)
                self.position = (rows[-1]["xid"], rows[-1]["id"])
            if len(rows) < BATCH:
                return
            self._wake.set()

    async def _deliver(self, session: Session, rows: Sequence[Row]) -> None:
        present = list(self._subscribers)  # nobody joins meanwhile; who leaves is no matter
        for subscriber, known in (await _known(session, rows, present)).items():
            for row in known:
                if (row["xid"], row["id"]) > subscriber.since and subscriber.wants(row):
                    _put(subscriber, row)


def _put(subscriber: Subscriber, row: Row) -> None:
    try:
        subscriber.queue.put_nowait(row)
    except asyncio.QueueFull:
        subscriber.overflowed.set()


async def horizon(session: Session) -> Position:
    """Return the position below which everything is decided now."""
    row = await session.row(_QUERIES["horizon"])
    return (row["xid"], MAX_ID) if row is not None else (0, 0)


async def replay(session: Session, subscriber: Subscriber, last_log_id: int, upto: Position) -> list[Row]:
    """Return what a client missed since a log row, up to where its live events begin.

    A row that has been cleaned up means that the whole window of ten minutes is sent.
    """
    start = await session.row(_QUERIES["position_of"], last_log_id)
    position: Position = (start["xid"], start["id"]) if start is not None else (0, 0)
    found: list[Row] = []
    while True:
        rows = await session.rows(_QUERIES["between"], *position, *upto, BATCH)
        known = (await _known(session, rows, [subscriber])).get(subscriber, ())
        found += [row for row in known if subscriber.wants(row)]
        if len(rows) < BATCH:
            return found
        position = (rows[-1]["xid"], rows[-1]["id"])
