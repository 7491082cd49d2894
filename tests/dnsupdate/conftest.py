"""Fixtures: a database with our tables."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dnsupdate.schema import migrate
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
