"""When an object goes to the trash and when it is gone for good: pure rules over times of the database's clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Trash:
    """The three attributes of an object that can be trashed."""

    trash_at: datetime | None
    delete_at: datetime | None
    is_trashed: bool


def schedule(
    trash_at: datetime | None, delete_at: datetime | None, *, now: datetime, lifetime: timedelta, minimum: timedelta
) -> Trash:
    """Return the state that a wish comes to.

    A time in the past means now. Without `delete_at` it is `lifetime` after `trash_at`; it is never less than
    `minimum` after it, so that signatures handed out before stay good as long as their data.
    """
    if trash_at is None:
        return Trash(None, None, False)
    trash_at = max(trash_at, now)
    earliest = trash_at + minimum
    delete_at = trash_at + lifetime if delete_at is None else delete_at
    return Trash(trash_at, max(delete_at, earliest), trash_at <= now)
