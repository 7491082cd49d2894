"""Container priorities, recomputed in the transaction that changes what they depend on."""

from collections.abc import Iterable

from apiserver.store.pool import Session
from apiserver.store.queries import load

_QUERIES = load("containers")


async def refresh(session: Session, containers: Iterable[str]) -> int:
    """Recompute containers and what they asked for; return how many changed. The caller holds Lock.PRIORITIES."""
    return await session.execute(_QUERIES["refresh_priorities"], list(containers))


async def refresh_project(session: Session, project: str) -> int:
    """Recompute what is asked for from a project and below, after it went to or came from the trash."""
    rows = await session.rows(_QUERIES["of_owner"], project)
    return await refresh(session, [row["uuid"] for row in rows])


async def refresh_all(session: Session) -> int:
    """Recompute every container that is not finished."""
    rows = await session.rows(_QUERIES["unfinished"])
    return await refresh(session, [row["uuid"] for row in rows])
