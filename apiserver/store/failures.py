"""What a failure of the database means to a request: asyncpg's exceptions turned into ours, in one place."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from apiserver.errors import InvalidError, StoreError, UnavailableError


class UniqueError(InvalidError):
    """Another row has this value already; `constraint` is the index that says so."""

    def __init__(self, message: str, constraint: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class RetryError(UnavailableError):
    """The transaction lost against another one and did nothing; the same again will probably pass."""

    status = 500


class LostConnectionError(UnavailableError):
    """The connection broke before COMMIT was sent: nothing was changed."""


class UnknownOutcomeError(StoreError):
    """The connection broke while COMMIT was under way: the change may or may not be there."""


_RETRY = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ConnectionDoesNotExistError,
    OSError,
)
_GONE = ("closed", "closing", "released", "terminated", "in the middle")
# Classes of SQLSTATE that say "this value cannot be stored": data exception, integrity constraint.
_VALUE = ("22", "23", "54")
_NOISE = re.compile(r"^invalid input for query argument \$\d+: ")


@contextmanager
def translated() -> Iterator[None]:
    """Raise our own errors in place of asyncpg's."""
    try:
        yield
    except asyncpg.UniqueViolationError as exc:
        raise UniqueError(f"{exc.message} {exc.detail or ''}".strip(), exc.constraint_name or "") from exc
    except _RETRY as exc:
        raise RetryError(f"the database is busy with the same objects: {exc}") from exc
    except asyncpg.QueryCanceledError as exc:
        raise StoreError(f"the database took too long: {exc}") from exc
    except _LOST as exc:
        raise LostConnectionError(f"the database cannot be reached: {exc}") from exc
    except asyncpg.PostgresError as exc:
        if (exc.sqlstate or "")[:2] in _VALUE:
            raise InvalidError(str(exc.message or exc)) from exc
        raise StoreError(f"the database refuses the statement: {exc}") from exc
    except asyncpg.InterfaceError as exc:
        if isinstance(exc, ValueError):  # a parameter that cannot be encoded; not the server's DataError
            raise InvalidError(_NOISE.sub("", str(exc))) from exc
        if any(word in str(exc) for word in _GONE):
            raise LostConnectionError(f"the database connection is gone: {exc}") from exc
        raise StoreError(f"the database client refuses the statement: {exc}") from exc
