"""The objects that every cluster has; made by whichever node starts first, found there by the others."""

from collections.abc import Iterator
from typing import Any

from apiserver import permissions
from apiserver.names import (
    GROUP,
    SYSTEM_SUFFIX,
    all_users_group,
    anonymous_group,
    anonymous_user,
    system_group,
    system_user,
)  # fmt: skip
from apiserver.settings import Settings
from apiserver.store.pool import Lock, Session
from apiserver.store.queries import load

_QUERIES = load("seeds")


async def plant(session: Session, settings: Settings) -> None:
    """Make what is missing; running it again, or on several nodes at once, changes nothing."""
    cluster = settings.cluster
    if await _is_planted(session, cluster):  # the usual start waits for nobody's lock
        return
    async with session.transaction([Lock.PERMISSIONS]):
        made = 0
        for query, uuid, *values in _objects(cluster):
            made += await session.execute(_QUERIES[query], uuid, system_user(cluster), *values)
        if made:
            await permissions.refresh_all(session)


def _objects(cluster: str) -> Iterator[tuple[Any, ...]]:
    """Return query, uuid and further values of each object, in the order in which they need each other."""
    anonymous, everybody, users = anonymous_user(cluster), anonymous_group(cluster), all_users_group(cluster)
    yield "user", system_user(cluster), "root", "root", "", True, True, None
    yield "user", anonymous, "anonymous", "Anonymous", "", False, True, None
    yield "group", system_group(cluster), "System group", "System group", "role"
    yield "group", users, "All users", "All users", "role"
    yield "group", everybody, "Anonymous users", "Anonymous users", "role"
    yield "group", f"{cluster}-{GROUP}-publicfavorites", "Public favorites", "Public favorites", "project"
    yield "link", f"{cluster}-o0j2j-{0:015d}", anonymous, everybody
    yield "link", f"{cluster}-o0j2j-{1:015d}", users, everybody
    yield "empty_collection", f"{cluster}-4zz18-{SYSTEM_SUFFIX}"


async def _is_planted(session: Session, cluster: str) -> bool:
    """Return whether the last of these objects is there: they come in one transaction."""
    return bool(await session.value(_QUERIES["planted"], f"{cluster}-4zz18-{SYSTEM_SUFFIX}", all_users_group(cluster)))


async def renumber(session: Session) -> None:
    """Bring the log rows of a restored database below the horizon of the events.

    Rows of a dump of another server may carry transaction numbers that this one has not reached.
    """
    await session.execute(_QUERIES["renumber"])
