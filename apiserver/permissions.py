"""Who may see and change what: SQL predicates for lists, levels for writes, upkeep of the permission table."""

from enum import IntEnum

from apiserver.auth import Viewer
from apiserver.errors import ForbiddenError, InvalidError, NotFoundError
from apiserver.names import is_uuid
from apiserver.operation import Call
from apiserver.sqltext import Binder
from apiserver.store.pool import Session
from apiserver.store.queries import load

_QUERIES = load("permissions")


class Level(IntEnum):
    """What a user may do with an object."""

    NONE = 0
    READ = 1
    WRITE = 2
    MANAGE = 3


LINK_LEVELS = {"can_read": 1, "can_login": 1, "can_write": 2, "can_manage": 3}
NAMES = {1: "can_read", 2: "can_write", 3: "can_manage"}


def reachable(uuid_column: str, owner_column: str | None, viewer: Viewer, binder: Binder, level: int = 1) -> str:
    """Return the condition that the viewer has a level on an object, itself or through its owner."""
    users = binder.bind(list(viewer.read_users if level == 1 else (viewer.user_uuid,)), "text[]")
    found = (
        f"{uuid_column} IN (SELECT target_uuid FROM materialized_permissions"
        f" WHERE user_uuid = ANY({users}) AND perm_level >= {int(level)})"
    )
    if owner_column is None:
        return found
    return (
        f"({found} OR {owner_column} IN (SELECT target_uuid FROM materialized_permissions"
        f" WHERE user_uuid = ANY({users}) AND perm_level >= {int(level)} AND traverse_owned))"
    )


def owner_not_trashed(owner_column: str) -> str:
    """Return the condition that an object's owner is not in the trash, by the database's clock."""
    return (
        f"NOT EXISTS (SELECT 1 FROM trashed_groups"
        f" WHERE group_uuid = {owner_column} AND trash_at <= statement_timestamp())"
    )


def level_expression(uuid_column: str, owner_column: str, viewer: Viewer, binder: Binder) -> str:
    """Return the expression of the viewer's level on an object."""
    if viewer.is_admin:
        return "3"
    user = binder.bind(viewer.user_uuid, "text")
    return (
        f"(SELECT coalesce(max(perm_level), 0) FROM materialized_permissions WHERE user_uuid = {user}"
        f" AND (target_uuid = {uuid_column} OR (target_uuid = {owner_column} AND traverse_owned)))"
    )


async def require_owner(call: Call, owner_uuid: str) -> None:
    """Make sure that the viewer may put objects under an owner.

    Raises:
        InvalidError: it is neither a user nor a project.
        ForbiddenError: the viewer may not write there, or it is frozen.
    """
    viewer = call.viewer
    row = await call.session.row(_QUERIES["owner_level"], viewer.user_uuid, owner_uuid)
    if row is None or not row["may_own"]:
        raise InvalidError(f"owner_uuid {owner_uuid} is neither a user nor a project that exists")
    if not viewer.is_admin and row["level"] < Level.READ:
        raise InvalidError(f"owner_uuid {owner_uuid} is neither a user nor a project that exists")
    if not viewer.is_admin and row["level"] < Level.WRITE:
        raise ForbiddenError(f"no permission to write to {owner_uuid}")
    if row["frozen"]:
        raise ForbiddenError(f"{owner_uuid} is in a frozen project")


async def target_level(session: Session, viewer: Viewer, uuid: str) -> int:
    """Return the viewer's level on a user, group or link head."""
    if viewer.is_admin:
        return Level.MANAGE
    return int(await session.value(_QUERIES["target_level"], viewer.user_uuid, uuid))


async def refresh_edge(session: Session, head: str, level: int, tails: list[str]) -> None:
    """Bring the table up to date after an edge changed; `level` is the highest it had or has.

    The caller holds Lock.PERMISSIONS and has written the edge already.
    """
    await session.execute(_QUERIES["refresh_edge"], head, level, tails)


async def refresh_all(session: Session) -> None:
    """Recompute the whole table; the caller holds Lock.PERMISSIONS."""
    await session.execute(_QUERIES["refresh_all"])


async def add_user(session: Session, uuid: str) -> None:
    """Let a new user manage itself."""
    await session.execute(_QUERIES["add_user"], uuid)


async def forget_target(session: Session, uuid: str) -> None:
    """Remove what is known about an object that is gone."""
    await session.execute(_QUERIES["forget_target"], uuid)


async def refresh_trash(session: Session, group_uuid: str) -> None:
    """Bring the table of trashed groups up to date below a group."""
    await session.execute(_QUERIES["refresh_trash"], group_uuid)


async def groups_above(session: Session, uuid: str) -> list[str]:
    """Return a group and the projects that hold it."""
    return [row["uuid"] for row in await session.rows(_QUERIES["above"], uuid)]


async def require_reference(call: Call, name: str, uuid: str | None) -> None:
    """Make sure that an attribute refers to an object that the viewer may know of.

    Raises:
        InvalidError: there is none.
    """
    if uuid is None:
        return
    reader = call.context.directory.of_infix(uuid[6:11]) if is_uuid(uuid) else None
    if reader is None or not await reader.is_readable(call, uuid):
        raise InvalidError(f"{name} {uuid} does not refer to an object that exists")


def not_found(uuid: str) -> NotFoundError:
    """Return the error for an object that is not there or not readable."""
    return NotFoundError(f"Path not found: {uuid if is_uuid(uuid) else 'no such object'}")
