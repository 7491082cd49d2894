"""Fixtures: a database with our tables."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from dnsupdate.schema import migrate
from tests.dnsupdate.servers import Target, builtin, real
from tests.support.postgres import TestServer, database, postgres_server

__all__ = ["database", "postgres_server"]


@pytest.fixture(scope="session")
def dns_template(postgres_server: TestServer) -> str:
    """The name of a template database with the tables in it."""
    import asyncio

    async def make() -> None:
        connection = await asyncpg.connect(await postgres_server.make_template("dns_template"))
        try:
            await migrate(connection)
        finally:
            await connection.close()

    asyncio.run(make())
    return "dns_template"


@pytest.fixture
async def dsn(postgres_server: TestServer, dns_template: str) -> AsyncIterator[str]:
    """The address of a database with our tables."""
    async with postgres_server.new_database(dns_template) as address:
        yield address


@pytest.fixture
async def db(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to it."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def bind() -> Iterator[Target]:
    """One BIND for all tests of a process; they use names of their own."""
    with real("bind") as target:
        yield target


@pytest.fixture(scope="session")
def knot() -> Iterator[Target]:
    """One Knot."""
    with real("knot") as target:
        yield target


@pytest.fixture(params=["builtin", "bind", "knot"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """Each of the three servers in turn."""
    if request.param == "builtin":
        async with builtin() as target:
            yield target
    else:
        yield request.getfixturevalue(request.param)


@pytest.fixture(params=["builtin", "bind", "knot"])
async def fresh(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """Each of the three servers in turn, with empty zones."""
    if request.param == "builtin":
        async with builtin() as target:
            yield target
    else:
        with real(request.param) as target:
            yield target


@pytest.fixture
async def practice() -> AsyncIterator[Target]:
    """The embedded authority with empty zones."""
    async with builtin() as target:
        yield target
