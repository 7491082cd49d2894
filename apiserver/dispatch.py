"""Running one operation: who asks, in which transaction, how often, and once for one idempotency key."""

import asyncio
import copy
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from apiserver.attributes import dumps, encoded
from apiserver.auth import Authenticator, Credentials, Viewer
from apiserver.errors import InvalidError
from apiserver.operation import Call, Context, Operation, Reply, RequestFacts
from apiserver.store.failures import LostConnectionError, RetryError
from apiserver.store.pool import Store

TRIES = 4
NOBODY = Viewer("", False, False, "", (), "", ())
_CLAIM = """INSERT INTO idempotency_keys (owner_uuid, key, request_hash) VALUES ($1, $2, $3)
 ON CONFLICT DO NOTHING RETURNING 1"""
_CLAIMED = "SELECT request_hash, status, body FROM idempotency_keys WHERE owner_uuid = $1 AND key = $2"
_FINISH = "UPDATE idempotency_keys SET status = $3, body = $4 WHERE owner_uuid = $1 AND key = $2"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read and parsed. `path` and `method` are after override."""

    operation: Operation
    uuid: str
    parameters: Mapping[str, Any]
    credentials: Credentials
    facts: RequestFacts
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The encoded answer of an operation, and what it took."""

    status: int
    body: bytes
    queries: int = 0
    replayed: bool = False
    retries: int = 0
    user_uuid: str = ""
    later: Callable[[Store], Awaitable[Any]] | None = None


class Dispatcher:
    """Runs operations on the store. Keeps no state of its own between requests."""

    def __init__(
        self, context: Context, store: Store, authenticator: Authenticator, *, committed: Callable[[], None]
    ) -> None:
        self._context = context
        self._store = store
        self._authenticator = authenticator
        self._committed = committed  # called after each write

    async def run(self, request: Request) -> Answer:
        """Return the answer; a transaction that lost against another is tried again, nothing was changed by it.

        Raises:
            ApiError: what the request is to be answered with.
        """
        for attempt in range(TRIES):
            try:
                answer = await self._once(request)
            except (RetryError, LostConnectionError) as exc:
                if attempt == TRIES - 1:
                    raise
                if isinstance(exc, LostConnectionError):
                    await self._store.distrust()
                await asyncio.sleep(random.uniform(0.5, 1.5) * 0.01 * 4**attempt)  # noqa: S311
            else:
                if request.operation.write:
                    self._committed()
                if answer.later is not None:
                    answer = replace(answer, body=encoded(await answer.later(self._store)))
                return replace(answer, retries=attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, request: Request) -> Answer:
        operation = request.operation
        async with self._store.session() as session:
            viewer = NOBODY
            if not operation.public:
                viewer = await self._authenticator.viewer(
                    session, request.credentials, request.facts.method, request.facts.path
                )
            parameters = copy.deepcopy(dict(request.parameters))
            call = Call(self._context, session, viewer, parameters, request.facts, request.uuid)
            if not operation.write:
                return self._answer(await operation.run(call), call)
            async with session.transaction(operation.locks(parameters)):
                if request.idempotency_key and viewer is not NOBODY:
                    answer = await self._keyed(request, call)
                else:
                    answer = self._answer(await operation.run(call), call)
            for action in call.after:
                action()
            return answer

    async def _keyed(self, request: Request, call: Call) -> Answer:
        """Run a write once for its key: the key is a row of the write's own transaction."""
        owner, key, digest = call.viewer.user_uuid, request.idempotency_key, _digest(request)
        if await call.session.value(_CLAIM, owner, key, digest):
            answer = self._answer(await request.operation.run(call), call)
            await call.session.execute(_FINISH, owner, key, answer.status, answer.body.decode())
            return answer
        row = await call.session.row(_CLAIMED, owner, key)
        if row is None or row["status"] is None:
            raise RetryError("the request with this Idempotency-Key has just been undone")
        if row["request_hash"] != digest:
            raise InvalidError("this Idempotency-Key was used for another request")
        return Answer(row["status"], row["body"].encode(), call.session.queries, replayed=True)

    def _answer(self, reply: Reply, call: Call) -> Answer:
        body = b"" if reply.body is None else encoded(reply.body)
        return Answer(reply.status, body, call.session.queries, user_uuid=call.viewer.user_uuid, later=reply.later)


def _digest(request: Request) -> str:
    text = dumps([request.facts.method, request.facts.path, dict(sorted(request.parameters.items()))])
    return hashlib.sha256(text.encode()).hexdigest()
