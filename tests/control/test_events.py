"""The history: bounded, kept over restarts, cut lines and full disks included, and followed as it happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from balancer.control import events
from balancer.control.events import EventLog
from tests.control.harness import nodes, rig, until

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@asynccontextmanager
async def log(path: Path) -> AsyncIterator[EventLog]:
    """A log that writes while the context lasts."""
    made = EventLog(path, clock=lambda: NOW)
    await asyncio.to_thread(made.load)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            running.cancel()


async def test_events_are_on_the_disk_when_it_ends_and_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with log(path) as first:
        for number in range(5):
            first.add("test", f"event {number}", node="api1", actor="root", reason="because")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[0] | {"number": 0} == {
        "number": 0,
        "at": NOW.isoformat(),
        "kind": "test",
        "text": "event 0",
        "actor": "root",
        "node": "api1",
        "reason": "because",
        "level": "info",
    }
    async with log(path) as second:
        assert second.add("test", "after a restart").number == 6
        assert [event.number for event in second.recent(limit=3)] == [4, 5, 6]
        assert [event.number for event in second.recent(after=4, node="api1")] == [5]


async def test_a_line_that_a_crash_cut_costs_itself_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with log(path) as first:
        first.add("test", "whole")
        first.add("test", "cut")
    path.write_bytes(path.read_bytes()[:-10])
    async with log(path) as second:
        assert [event.text for event in second.recent()] == ["whole"]
        second.add("test", "next")
    async with log(path) as third:
        assert [event.text for event in third.recent()] == ["whole", "next"]


async def test_the_file_is_rotated_and_both_generations_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n" * (events.FILE_BYTES + 1))
    async with log(path) as first:
        first.add("test", "in a new file")
    assert path.stat().st_size < 1000
    assert (tmp_path / "events.jsonl.1").stat().st_size > events.FILE_BYTES


async def test_a_disk_that_refuses_costs_the_file_and_not_the_history(tmp_path: Path) -> None:
    async with log(tmp_path / "no-such-folder" / "events.jsonl") as made:
        for number in range(3):
            made.add("test", f"event {number}")
        await until(lambda: made.lost == 3)
        assert len(made.recent()) == 3


async def test_a_viewer_that_does_not_read_loses_events_and_holds_up_nobody(tmp_path: Path) -> None:
    async with log(tmp_path / "events.jsonl") as made, made.follow() as slow, made.follow() as quick:
        for number in range(events.VIEWER_BACKLOG + 50):
            made.add("test", f"event {number}")
            quick.get_nowait()
        assert slow.qsize() == events.VIEWER_BACKLOG
        assert len(made.recent()) == events.VIEWER_BACKLOG + 50


async def test_events_are_followed_as_lines_and_as_server_sent_events() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes) as control:
        await control.until_states(api1="healthy", api2="healthy")
        newest = (await control.events())[-1]["number"]
        connector = aiohttp.UnixConnector(path=control.socket)
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            sse = {"Accept": "text/event-stream", "Last-Event-ID": str(newest)}
            async with (
                session.get("/v1/events?follow") as lines,
                session.get("/v1/events?follow", headers=sse) as stream,
            ):
                assert lines.content_type == "application/jsonl"
                for _ in range(newest):
                    json.loads(await lines.content.readline())
                await control.post("/v1/nodes/api1/weight", weight=3)
                assert json.loads(await lines.content.readline())["kind"] == "node-weight"
                block = (await stream.content.readuntil(b"\n\n")).decode().splitlines()
                assert block[:2] == [f"id: {newest + 1}", "event: node-weight"]
                assert json.loads(block[2].removeprefix("data: "))["node"] == "api1"
