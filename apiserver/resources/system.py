"""What an admin asks of the server itself."""

import asyncio
from collections.abc import Iterable

from apiserver import jobs
from apiserver.errors import ForbiddenError, UnavailableError
from apiserver.operation import Call, Operation, Reply

SWEEP_WAIT_S = 30.0
_POLL_S = 0.1


class System:
    """`sys`: the trash sweep by hand. It asks the job to run, so that two never sweep at once."""

    def operations(self) -> Iterable[Operation]:
        """Return the one operation."""
        yield Operation("sys", "get", "POST", "sys/trash_sweep", self.trash_sweep)

    async def trash_sweep(self, call: Call) -> Reply:
        """Make the sweep due and wait until a node has run it.

        Raises:
            UnavailableError: no node finished it in time; it will still be run.
        """
        if not call.viewer.is_admin:
            raise ForbiddenError
        before = await jobs.ask_for(call.session, "trash_sweep")
        try:
            async with asyncio.timeout(SWEEP_WAIT_S):
                while not await jobs.is_finished(call.session, "trash_sweep", before):  # noqa: ASYNC110 - in the database
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as exc:
            raise UnavailableError("the trash sweep is asked for but has not ended yet") from exc
        return Reply(None, 204)
