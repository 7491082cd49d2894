"""What a failure of the database means to a request: asyncpg's exceptions turned into ours, in one place."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from apiserver.errors import ApiError, InvalidError, StoreError, UnavailableError


class UniqueError(InvalidError):
    """Another row has this value already; `constraint` is the index that says so."""

    def __init__(self, message: str, constraint: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class RetryError(UnavailableError):
    """The transaction lost against another one and did nothing; the same again will probably pass."""

    status = 500


class LostConnectionError(UnavailableError):
    """The connection broke before COMMIT was sent, or leads to a server that does not write: nothing was changed."""


class SilentError(UnavailableError):
    """The database did not answer in time, before COMMIT was sent: nothing was changed, another try would wait too."""


class UnknownOutcomeError(StoreError):
    """The connection broke while COMMIT was under way: the change may or may not be there."""


ASYNCPG = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_RETRY = (
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,  # a migration changed a table; the plans of it are forgotten now
    asyncpg.OutdatedSchemaCacheError,
)
_TOO_LONG = (asyncpg.QueryCanceledError, asyncpg.TransactionTimeoutError)
# Another connection may be better. After an internal error of the client nobody knows what this one would do next.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.FatalPostgresError,
    asyncpg.OperatorInterventionError,  # shutdown, start-up, a dropped database: all that ends a session from outside
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # the server became a standby
    asyncpg.InternalClientError,
    OSError,
)
# No connection can help until an operator has done something, but nothing was changed.
_OUT_OF_ORDER = (
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
)
# Looked through in this order.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[ApiError], str], ...] = (
    ((asyncpg.StatementCompletionUnknownError,), UnknownOutcomeError, "the database does not know what it did"),
    (_RETRY, RetryError, "the database is busy with the same objects"),
    (_TOO_LONG, StoreError, "the database took too long"),
    ((TimeoutError,), SilentError, "the database does not answer"),  # the server's own limit is shorter
    (_LOST, LostConnectionError, "the database cannot be reached"),
    (_OUT_OF_ORDER, UnavailableError, "the database is out of order"),
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
    except ASYNCPG as exc:
        raise _meaning(exc) from exc


def _meaning(exc: Exception) -> ApiError:
    if isinstance(exc, asyncpg.UniqueViolationError):
        return UniqueError(f"{exc.message} {exc.detail or ''}".strip(), exc.constraint_name or "")
    for kinds, error, text in _MEANINGS:
        if isinstance(exc, kinds):
            return error(f"{text}: {exc}")
    return _of_interface(exc) if isinstance(exc, asyncpg.InterfaceError) else _of_server(exc)


def _of_server(exc: Exception) -> ApiError:
    if (getattr(exc, "sqlstate", None) or "")[:2] in _VALUE:
        return InvalidError(str(getattr(exc, "message", None) or exc))
    return StoreError(f"the database refuses the statement: {exc}")


def _of_interface(exc: asyncpg.InterfaceError) -> ApiError:
    if isinstance(exc, ValueError):  # a parameter that cannot be encoded; not the server's DataError
        return InvalidError(_NOISE.sub("", str(exc)))
    if any(word in str(exc) for word in _GONE):
        return LostConnectionError(f"the database connection is gone: {exc}")
    return StoreError(f"the database client refuses the statement: {exc}")
