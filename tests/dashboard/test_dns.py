"""What the status and the dashboard tell about DNS updates, from the tables that the senders share."""

import asyncpg
import pytest

from tests.control.harness import nodes, rig, until
from tests.dashboard.test_pages import text_of
from tests.dnsupdate.builders import section
from tests.dnsupdate.conftest import database, dns_template, dsn, postgres_server

__all__ = ["database", "dns_template", "dsn", "postgres_server"]
pytestmark = pytest.mark.pg

LEASE = """
INSERT INTO dns_lease (target, holder, epoch, until, server_state)
VALUES ('main', 'lb1', 7, clock_timestamp() + interval '1 hour', '{"error": {"text": "the key is refused"}}')
"""


async def test_targets_are_shown_with_who_sends_and_what_is_wrong(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(LEASE)
    finally:
        await connection.close()
    async with nodes("api1") as fakes, rig(fakes, dns=section(database=dsn)) as control:

        async def looked() -> object:
            return (await control.get("/v1/status"))["dns"]

        found = await until(looked)
        assert found["fault"] == ""
        (target,) = found["targets"]
        assert (target["name"], target["holder"], target["epoch"]) == ("main", "lb1", 7)
        assert "DNS target main: the key is refused" in (await control.get("/v1/status"))["causes"]
        page = await control.page("/ui/")
        assert "lb1 sends, epoch 7" in text_of(page)


async def test_a_database_that_is_away_costs_a_sentence_and_nothing_else() -> None:
    unreachable = "postgresql://nobody@127.0.0.1:1/none"
    async with nodes("api1") as fakes, rig(fakes, dns=section(database=unreachable)) as control:

        async def looked() -> object:
            return (await control.get("/v1/status"))["dns"]

        found = await until(looked)
        assert found["fault"].startswith("database: ConnectionRefusedError")
        assert found["targets"] == []
        await control.until_states(api1="healthy")
