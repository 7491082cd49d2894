"""The objects that every cluster has; made by whichever node starts first, found there by the others."""

from apiserver import permissions
from apiserver.names import (
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
    root = system_user(cluster)
    if await _is_planted(session, cluster):  # the usual start waits for nobody's lock
        return
    async with session.transaction([Lock.PERMISSIONS]):
        made = 0
        for uuid, email, first, last, admin, name in (
            (root, "root", "root", "", True, None),
            (anonymous_user(cluster), "anonymous", "Anonymous", "", False, None),
        ):
            made += await session.execute(_QUERIES["user"], uuid, root, email, first, last, admin, True, name)
        for uuid, name, text, kind in (
            (system_group(cluster), "System group", "System group", "role"),
            (all_users_group(cluster), "All users", "All users", "role"),
            (anonymous_group(cluster), "Anonymous users", "Anonymous users", "role"),
            (f"{cluster}-j7d0g-publicfavorites", "Public favorites", "Public favorites", "project"),
        ):
            made += await session.execute(_QUERIES["group"], uuid, root, name, text, kind)
        links = (
            (anonymous_user(cluster), anonymous_group(cluster)),
            (all_users_group(cluster), anonymous_group(cluster)),
        )
        for number, (tail, head) in enumerate(links):
            made += await session.execute(_QUERIES["link"], f"{cluster}-o0j2j-{number:015d}", root, tail, head)
        empty = f"{cluster}-4zz18-000000000000000"
        await session.execute(_QUERIES["empty_collection"], empty, root)
        if made:
            await permissions.refresh_all(session)


async def _is_planted(session: Session, cluster: str) -> bool:
    """Return whether the last of these objects is there: they come in one transaction."""
    return bool(await session.value(_QUERIES["planted"], f"{cluster}-4zz18-{SYSTEM_SUFFIX}", all_users_group(cluster)))


async def renumber(session: Session) -> None:
    """Bring the log rows of a restored database below the horizon of the events.

    Rows of a dump of another server may carry transaction numbers that this one has not reached.
    """
    await session.execute(_QUERIES["renumber"])
