"""Three nodes that are killed, frozen and cut off while clients write and listen: nothing is lost or doubled."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.support.api import ROOT, Client, Process, Processes, api_database, api_template, client_of, processes
from tests.support.postgres import postgres_server, until
from tests.support.programs import need

__all__ = ["api_database", "api_template", "postgres_server", "processes"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(240)]
SYSTEM = "zzzzz-tpzed-000000000000000"
LEASE_S = 2.0
FAKETIME = str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), ""))
# Each change of the job's row, in the order in which the changes were committed: they wait for one another's lock.
_WATCH = """
CREATE TABLE changes (n bigserial, run_no bigint, next_at timestamptz, finished timestamptz, leased boolean);
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO changes (run_no, next_at, finished, leased)
  VALUES (NEW.run_no, NEW.next_at, NEW.finished, NEW.lease_until IS NOT NULL);
  RETURN NEW;
END $$;
CREATE TRIGGER note_change AFTER UPDATE ON periodic_job FOR EACH ROW WHEN (NEW.name = 'trash_sweep')
  EXECUTE FUNCTION note_change();
"""
_DUE = """INSERT INTO collections
 (uuid, owner_uuid, name, portable_data_hash, current_version_uuid, trash_at, delete_at, is_trashed)
 SELECT u, $2, u, 'x', u, clock_timestamp() - interval '2 s', clock_timestamp() - interval '1 s', true
   FROM (SELECT 'zzzzz-4zz18-' || lpad($1, 15, '0') AS u) AS one"""


@dataclass(eq=False)
class Follower:
    """A websocket client that goes to any other node when its own is lost, and asks for what it missed."""

    token: str
    position: int
    seen: list[int] = field(default_factory=list)
    connections: int = 0

    async def run(self, storm: "Storm", at: int) -> None:
        """Listen for ever, first at the node of that number."""
        subscribe = {"method": "subscribe", "filters": [["event_type", "in", ["storm"]]]}
        while True:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                base = storm.rng.choice(storm.nodes).base if self.connections else storm.nodes[at % 3].base
                url = f"{base}/websocket?api_token={self.token}"
                async with storm.http.ws_connect(url) as socket:
                    self.connections += 1
                    await socket.send_json({**subscribe, "last_log_id": self.position})
                    async for message in socket:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break  # a frame was cut in its middle
                        event = json.loads(message.data)
                        if "id" in event:
                            self.seen.append(event["id"])
                            self.position = event["id"]
            await asyncio.sleep(0.02)


@dataclass
class Storm:
    """What goes on at once: writers, followers, a job, and what happens to nodes."""

    processes: Processes
    database: asyncpg.Connection
    http: aiohttp.ClientSession
    rng: random.Random
    strikes: random.Random  # of its own, so that a seed strikes the same way whatever the writers draw
    objects: list[str]
    nodes: list[Process] = field(default_factory=list)
    acknowledged: dict[int, str] = field(default_factory=dict)
    due: int = 0
    numbers: int = 0
    stopping: bool = False

    def start(self) -> Process:
        """Start a node whose clock is right, two hours fast or an hour slow."""
        clock = self.rng.choice(["+0", "+2h", "-1h"])
        env = {"LD_PRELOAD": FAKETIME, "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        more: dict[str, Any] = {"job_lease_s": LEASE_S, "collections": {"trash_sweep_interval_s": 1.0}}
        return self.processes.start(env=env, **more)

    async def write(self) -> None:
        """Write until told to stop; each write is tried on one node after the other until it is acknowledged."""
        while not self.stopping:
            number, self.numbers = self.numbers, self.numbers + 1
            body = {"log": {"event_type": "storm", "object_uuid": self.objects[number % 2],
                            "properties": {"number": number}}}  # fmt: skip
            headers = {"Authorization": f"Bearer {ROOT}", "Idempotency-Key": f"number {number}"}
            while number not in self.acknowledged:
                base = self.rng.choice(self.nodes).base
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with (
                        asyncio.timeout(3),
                        self.http.post(f"{base}/arvados/v1/logs", json=body, headers=headers) as response,
                    ):
                        if response.status == 200:
                            self.acknowledged[number] = (await response.json())["uuid"]
                await asyncio.sleep(0.01)

    async def expire(self) -> None:
        """Give the sweep something to delete."""
        self.due += 1
        await self.database.execute(_DUE, str(self.due), SYSTEM)

    async def strike(self) -> None:
        """Do one bad thing to a node."""
        number = self.strikes.randrange(len(self.nodes))
        victim = self.nodes[number]
        match self.strikes.choice(["kill", "kill", "freeze", "lost listeners"]):
            case "kill":
                await asyncio.to_thread(victim.kill)
                self.nodes[number] = await asyncio.to_thread(self.start)
            case "freeze":
                victim.freeze()
                await asyncio.sleep(self.strikes.uniform(0.5, LEASE_S * 1.5))
                victim.thaw()
            case _:
                await self.database.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'arv-api'"
                    " AND datname = current_database() AND query LIKE '%pg_snapshot_xmin%'"
                )

    async def sweep_goes_on(self) -> None:
        """Wait until a run that began after now has ended; a frozen or dead runner costs no more than its lease."""
        begun = await self.database.fetchval("SELECT clock_timestamp()")
        sql = "SELECT started > $1 AND finished > started FROM periodic_job WHERE name = 'trash_sweep'"

        async def ended() -> bool:
            return bool(await self.database.fetchval(sql, begun))

        try:
            await until(ended, 45)
        except TimeoutError:
            row = await self.database.fetchrow("SELECT * FROM periodic_job WHERE name = 'trash_sweep'")
            pytest.fail(f"no run of the sweep since {begun}: {row}")


@asynccontextmanager
async def _storm(processes: Processes, database: str, seed: int) -> AsyncIterator[Storm]:
    """Start nodes, writers and followers: two that may see all, two that may see every second event."""
    need("faketime")
    connection = await asyncpg.connect(database)
    await connection.execute(_WATCH)
    async with aiohttp.ClientSession() as http:
        storm = Storm(processes, connection, http, random.Random(seed), random.Random(seed), [SYSTEM])
        storm.nodes = await asyncio.to_thread(lambda: [storm.start() for _ in range(3)])
        async with client_of(storm.nodes[0].base) as (root,):
            alice: Client = await root.user("alice")
            storm.objects.append(alice.user_uuid)
            first = (await root.post("logs", {"log": {"event_type": "begin", "object_uuid": SYSTEM}}))["id"]
        followers = [Follower(token, first) for token in (ROOT, ROOT, str(alice.token), str(alice.token))]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one.run(storm, at)) for at, one in enumerate(followers)]
            writers = [tasks.create_task(storm.write()) for _ in range(4)]
            await until(lambda: all(one.connections for one in followers))  # so that a kill costs some of them theirs
            yield storm
            storm.stopping = True
            await asyncio.wait(writers)
            await _all_is_heard(storm, followers)
            await _writes_are_there_once(storm)
            for task in running:
                task.cancel()
    await connection.close()


def _has_heard(follower: Follower, number: int) -> bool:
    return len(follower.seen) >= number


async def _all_is_heard(storm: Storm, followers: list[Follower]) -> None:
    """Every event comes once to every client that may know of it, in the order that the database gives."""
    rows = await storm.database.fetch("SELECT id, object_uuid FROM logs WHERE event_type = 'storm' ORDER BY xid, id")
    everything = [row["id"] for row in rows]
    hers = [row["id"] for row in rows if row["object_uuid"] == storm.objects[1]]
    for follower in followers:
        expected = everything if follower.token == ROOT else hers
        with suppress(TimeoutError):  # what is missing says more than that something is
            await until(partial(_has_heard, follower, len(expected)), 45)
        assert follower.seen == expected
    assert sum(follower.connections for follower in followers) > len(followers)


async def _jobs_were_done_once(storm: Storm) -> None:
    """Runs never overlap, every slot is on the grid, and what is deleted is deleted once."""
    changes = await storm.database.fetch("SELECT * FROM changes ORDER BY n")
    numbers = [row["run_no"] for row in changes]
    assert numbers == sorted(numbers), "a superseded run wrote after its successor"
    slots = sorted({row["next_at"] for row in changes})
    assert all(slot.microsecond == slots[0].microsecond for slot in slots)
    ends = [row["run_no"] for before, row in pairwise(changes)
            if row["finished"] != before["finished"]]  # fmt: skip
    assert len(ends) == len(set(ends)), "one run ended twice"
    sql = "SELECT count(*) FROM logs WHERE event_type = 'delete' AND object_uuid LIKE 'zzzzz-4zz18-0%'"
    distinct = sql.replace("count(*)", "count(DISTINCT object_uuid)")
    assert storm.due == await storm.database.fetchval(sql) == await storm.database.fetchval(distinct)


async def _writes_are_there_once(storm: Storm) -> None:
    rows = await storm.database.fetch("SELECT uuid, properties FROM logs WHERE event_type = 'storm'")
    stored: dict[int, list[str]] = {}
    for row in rows:
        stored.setdefault(json.loads(row["properties"])["number"], []).append(row["uuid"])
    assert all(len(uuids) == 1 for uuids in stored.values()), "a keyed write was done twice"
    assert stored == {number: [uuid] for number, uuid in storm.acknowledged.items()}


@pytest.mark.parametrize(
    ("seed", "strikes"),
    [(6, 4), *(pytest.param(seed, 20, marks=[pytest.mark.slow, pytest.mark.timeout(600)]) for seed in (2, 3, 4))],
)
async def test_a_storm_loses_no_write_no_event_and_no_job(
    processes: Processes, api_database: str, seed: int, strikes: int
) -> None:
    async with _storm(processes, api_database, seed) as storm:
        for _ in range(strikes):
            await storm.expire()
            await storm.strike()
            await storm.sweep_goes_on()
        await _jobs_were_done_once(storm)
