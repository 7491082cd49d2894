"""What a failing database means to a request: never a hang, never a raw exception, 503 where nothing was changed."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
import pytest

from apiserver.errors import ApiError, InvalidError, StoreError, UnavailableError
from apiserver.store.failures import (
    LostConnectionError,
    RetryError,
    SilentError,
    UniqueError,
    UnknownOutcomeError,
    translated,
)
from apiserver.store.pool import DatabaseSettings, Store
from tests.support.api import MANAGEMENT, Client, api_database, api_template, root
from tests.support.postgres import TestServer, database, postgres_server, until

__all__ = ["api_database", "api_template", "database", "postgres_server", "root"]
pytestmark = pytest.mark.pg
TREE = [
    kind for kind in vars(asyncpg).values()
    if inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, Warning)
]  # fmt: skip
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{}'; END $$"
BY_STATE = {
    "40001": RetryError, "40P01": RetryError, "40002": RetryError, "55P03": RetryError, "40003": UnknownOutcomeError,
    "57014": StoreError, "25P04": StoreError, "57P01": LostConnectionError, "57P02": LostConnectionError,
    "57P03": LostConnectionError, "57P04": LostConnectionError, "57P05": LostConnectionError,
    "08006": LostConnectionError, "08P01": LostConnectionError, "25006": LostConnectionError,
    "25P03": LostConnectionError, "53300": LostConnectionError, "53100": UnavailableError, "53200": UnavailableError,
    "28P01": UnavailableError, "3D000": UnavailableError, "22003": InvalidError, "23514": InvalidError,
    "23505": UniqueError, "42601": StoreError, "58030": StoreError, "XX000": StoreError,
}  # fmt: skip
DEFERRED = """
CREATE TABLE slow (n integer);
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
 FOR EACH ROW EXECUTE FUNCTION slowly()"""


@pytest.fixture
async def operator(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that does to others what an operator or a fault does."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def terminate(operator: asyncpg.Connection, doing: str = "%") -> None:
    """End the session that does something, as soon as there is one."""
    sql = ("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
           " WHERE datname = current_database() AND application_name = 'arv-api' AND query LIKE $1")  # fmt: skip

    async def ended() -> bool:
        return bool(await operator.fetch(sql, doing))

    await until(ended)


def settings(database: str, **more: Any) -> DatabaseSettings:
    return DatabaseSettings(database, **{"pool": 2, **more})


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_client_becomes_one_of_ours(kind: type[Exception]) -> None:
    with pytest.raises(ApiError), translated():
        raise kind("as asked")


@pytest.mark.parametrize("kind", [asyncpg.InternalClientError, asyncpg.ProtocolError, ConnectionResetError, OSError])
def test_a_connection_of_unknown_state_is_a_lost_one(kind: type[Exception]) -> None:
    with pytest.raises(LostConnectionError), translated():
        raise kind("got result for unknown protocol state")


async def test_each_state_that_the_server_names_has_its_meaning(database: str) -> None:
    async with Store(settings(database)) as store, store.session() as session:
        for state, meaning in BY_STATE.items():
            with pytest.raises(ApiError) as caught:
                await session.execute(RAISE.format(state))
            assert type(caught.value) is meaning, state


async def in_transaction(store: Store, *steps: str | Callable[[], Awaitable[Any]]) -> None:
    """Run statements, and what happens between them, in one transaction."""
    async with asyncio.timeout(30), store.session() as session, session.transaction():
        for step in steps:
            await (session.execute(step) if isinstance(step, str) else step())


async def outcome(work: Awaitable[None]) -> type[ApiError] | None:
    """Return how it failed, None when it did not."""
    try:
        await work
    except ApiError as exc:
        return type(exc)
    return None


async def is_there(store: Store, table: str) -> bool:
    async with store.session() as session:
        return await session.value("SELECT to_regclass($1)::text", table) is not None


async def test_a_session_that_ends_under_a_statement_changed_nothing(
    database: str, operator: asyncpg.Connection
) -> None:
    async with Store(settings(database)) as store, asyncio.TaskGroup() as tasks:
        tasks.create_task(terminate(operator, "SELECT pg_sleep%"))
        work = in_transaction(store, "CREATE TABLE made (n integer)", "SELECT pg_sleep(60)")
        assert await outcome(work) is LostConnectionError
        assert not await is_there(store, "made")


async def test_a_session_that_ends_between_two_statements_changed_nothing(
    database: str, operator: asyncpg.Connection
) -> None:
    async with Store(settings(database)) as store:
        work = in_transaction(store, "CREATE TABLE made (n integer)", partial(terminate, operator), "SELECT 1")
        assert await outcome(work) is LostConnectionError
        assert not await is_there(store, "made")


async def test_a_session_that_ends_under_commit_has_an_unknown_outcome(
    database: str, operator: asyncpg.Connection
) -> None:
    async with Store(settings(database)) as store, asyncio.TaskGroup() as tasks:
        async with store.session() as session:
            await session.execute(DEFERRED)
        tasks.create_task(terminate(operator, "COMMIT%"))
        assert await outcome(in_transaction(store, "INSERT INTO slow VALUES (1)")) is UnknownOutcomeError


async def test_a_refusal_stays_one_when_its_rollback_fails(database: str, operator: asyncpg.Connection) -> None:
    async def refuse() -> None:
        raise InvalidError("no such colour")

    async with Store(settings(database)) as store:
        work = in_transaction(store, "SELECT 1", partial(terminate, operator), refuse)
        assert await outcome(work) is InvalidError


@pytest.mark.parametrize(
    ("limit", "meaning"),
    [("statement_s", StoreError), ("lock_s", RetryError), ("idle_in_transaction_s", LostConnectionError)],
)
async def test_time_limits_of_the_server_end_a_request(
    database: str, operator: asyncpg.Connection, limit: str, meaning: type[ApiError]
) -> None:
    steps: dict[str, tuple[str | Callable[[], Awaitable[Any]], ...]] = {
        "statement_s": ("SELECT pg_sleep(60)",),
        "lock_s": ("LOCK TABLE held",),
        "idle_in_transaction_s": ("SELECT 1", lambda: until(lambda: _ended(operator)), "SELECT 1"),
    }
    await operator.execute("CREATE TABLE held (n integer)")
    async with Store(settings(database, **{limit: 0.2})) as store, operator.transaction():
        await operator.execute("LOCK TABLE held")
        assert await outcome(in_transaction(store, *steps[limit])) is meaning


async def _ended(operator: asyncpg.Connection) -> bool:
    sql = ("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
           " AND application_name = 'arv-api' AND state = 'idle in transaction'")  # fmt: skip
    await operator.execute("SELECT pg_stat_clear_snapshot()")  # it is in a transaction
    return not await operator.fetchval(sql)


async def test_of_two_transactions_in_a_deadlock_one_is_told_to_try_again(database: str) -> None:
    async with Store(settings(database)) as store:
        await in_transaction(store, "CREATE TABLE one (n integer)", "CREATE TABLE two (n integer)")
        both = asyncio.Barrier(2)
        ends = await asyncio.gather(
            outcome(in_transaction(store, "LOCK TABLE one", both.wait, "LOCK TABLE two")),
            outcome(in_transaction(store, "LOCK TABLE two", both.wait, "LOCK TABLE one")),
        )
        assert sorted(ends, key=str) == [RetryError, None]


async def test_a_server_without_a_place_refuses_and_nobody_waits(database: str, operator: asyncpg.Connection) -> None:
    await operator.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1")
    narrow = database.replace("postgres@", "narrow@").replace("user=postgres", "user=narrow")
    async with Store(settings(narrow)) as store:
        async with store.session() as session:
            assert await session.value("SELECT current_user") == "narrow"
            with pytest.raises(LostConnectionError, match="too many connections"):
                async with asyncio.timeout(20), store.session():
                    pass
        async with store.session() as session:
            assert await session.value("SELECT 1") == 1
    await operator.execute("DROP ROLE narrow")


async def test_who_asks_a_store_that_closes_is_refused(database: str) -> None:
    store = Store(settings(database))
    with pytest.raises(UnavailableError):
        async with store.session():
            pass
    async with store:
        pass
    with pytest.raises(UnavailableError):
        async with store.session():
            pass


@pytest.mark.parametrize("last", ["statement", "commit"])
async def test_a_server_that_falls_silent_ends_a_request_by_the_clients_own_limit(
    database: str, postgres_server: TestServer, last: str
) -> None:
    async with Store(settings(database, statement_s=0.5, connect_s=1.0)) as store:
        freeze = partial(asyncio.to_thread, postgres_server.freeze)
        try:
            work = in_transaction(store, "SELECT 1", freeze, *(["SELECT 2"] if last == "statement" else []))
            assert await outcome(work) is (SilentError if last == "statement" else UnknownOutcomeError)
        finally:
            await asyncio.to_thread(postgres_server.thaw)
        async with store.session() as session:
            assert await session.value("SELECT 1") == 1


async def test_a_table_that_changes_under_a_running_node_costs_no_request(root: Client, api_database: str) -> None:
    made = await root.post("workflows", {"workflow": {"name": "a"}})
    path = f"workflows/{made['uuid']}"
    await root.put(path, {"workflow": {"name": "b"}})
    connection = await asyncpg.connect(api_database)
    try:
        await connection.execute("ALTER TABLE workflows ADD COLUMN another text")
    finally:
        await connection.close()
    assert (await root.put(path, {"workflow": {"name": "c"}}))["name"] == "c"
    assert "another" not in await root.get(path)


async def test_a_server_that_only_reads_is_no_database_until_it_writes_again(root: Client, api_database: str) -> None:
    async def health() -> str:
        return str((await root.with_token(MANAGEMENT).call("GET", "/_health/ping")).body)

    async def healthy() -> bool:
        return "OK" in await health()

    async def only_reads() -> bool:
        return "only reads" in await health()

    operator = await asyncpg.connect(api_database)
    try:
        name = await operator.fetchval("SELECT current_database()")
        await operator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2"
        await operator.fetch(others, name, operator.get_server_pid())
        assert (await root.call("POST", "workflows", {"workflow": {"name": "a"}})).status == 503
        await until(only_reads)
        assert (await root.call("GET", "users/current")).status == 503
        await operator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await until(healthy)
        assert (await root.call("POST", "workflows", {"workflow": {"name": "a"}})).status == 200
    finally:
        await operator.close()
