"""Objects that go to the trash and can be taken out again, before they are deleted for good."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from apiserver.controller import Controller, Draft
from apiserver.errors import InvalidError
from apiserver.operation import UNIQUE_NAME, UUID, Call, Operation, Reply
from apiserver.trash import schedule


class Trashable(Controller):
    """A resource with `trash_at`, `delete_at` and `is_trashed`; to delete an object is to trash it."""

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations and those of the trash."""
        yield from super().operations()
        table, schema = self.resource.table, self.resource.class_name
        for name, run in (("trash", self.trash), ("untrash", self.untrash)):
            yield Operation(table, name, "POST", f"{table}/{{uuid}}/{name}", run, (UUID, UNIQUE_NAME), schema,
                            write=True, locks=self.locks)  # fmt: skip

    async def delete(self, call: Call) -> Reply:
        """Put the object into the trash."""
        return await self.trash(call)

    async def trash(self, call: Call) -> Reply:
        """Put the object into the trash now."""
        self.require_active(call)
        draft = await self.fetch(call, call.uuid, trashed=True)
        if not draft.new["is_trashed"]:
            draft.new["trash_at"] = await _now(call)
            await self.prepare(call, draft)
        return Reply(await self.store(call, draft))

    async def untrash(self, call: Call) -> Reply:
        """Take the object out of the trash.

        Raises:
            InvalidError: it is not in it, or its time is over.
        """
        self.require_active(call)
        draft = await self.fetch(call, call.uuid, trashed=True)
        now, trash_at, delete_at = await _now(call), draft.new["trash_at"], draft.new["delete_at"]
        if trash_at is None or trash_at > now:
            raise InvalidError(f"{call.uuid} is not trashed, cannot untrash")
        if delete_at is not None and delete_at <= now:
            raise InvalidError(f"{call.uuid}: delete_at time has passed, cannot untrash")
        draft.new |= {"trash_at": None, "delete_at": None}
        await self.prepare(call, draft)
        return Reply(await self.store(call, draft))

    async def reschedule(self, call: Call, draft: Draft, *, kept: bool = True) -> None:
        """Work out the three attributes from what is wished; what is not `kept` is deleted as soon as it is trashed."""
        rules = call.settings.collections
        trash = schedule(
            draft.new.get("trash_at"), draft.new.get("delete_at") if kept else None, now=await _now(call),
            lifetime=timedelta(seconds=rules.default_trash_lifetime_s if kept else 0),
            minimum=timedelta(seconds=rules.blob_signing_ttl_s if kept else 0),
        )  # fmt: skip
        draft.new |= {"trash_at": trash.trash_at, "delete_at": trash.delete_at, "is_trashed": trash.is_trashed}


async def _now(call: Call) -> Any:
    return await call.session.value("SELECT clock_timestamp()")
