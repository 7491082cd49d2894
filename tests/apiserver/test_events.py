"""Events: who gets what, once, in order, across reconnects."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest

from apiserver.http.websocket import MAX_SUBSCRIPTION, MAX_SUBSCRIPTIONS
from tests.support.api import Client, Processes, api_database, api_template, client_of, processes, root
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "processes", "root"]
pytestmark = pytest.mark.pg


@asynccontextmanager
async def subscribed(
    client: Client, filters: list[Any] | None = None, last_log_id: int | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A websocket with one subscription that was accepted."""
    async with client.http.ws_connect(f"{client.base}/websocket?api_token={client.token or ''}") as socket:
        await socket.send_json({"method": "subscribe", "filters": filters or [], "last_log_id": last_log_id})
        async with asyncio.timeout(20):
            assert json.loads((await socket.receive()).data) == {"status": 200}
        yield socket


async def _next(socket: aiohttp.ClientWebSocketResponse, timeout_s: float = 20.0) -> dict[str, Any]:
    async with asyncio.timeout(timeout_s):
        while True:
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.TEXT, message
            found: dict[str, Any] = json.loads(message.data)
            if found:
                return found


async def _about(socket: aiohttp.ClientWebSocketResponse, uuid: str) -> dict[str, Any]:
    """Wait for the event of an object. What was committed a moment before the subscription may come first."""
    while (event := await _next(socket))["object_uuid"] != uuid:
        pass
    return event


async def _project(client: Client, name: str, **more: str) -> str:
    made = await client.post("groups", {"group": {"group_class": "project", "name": name, **more}})
    return str(made["uuid"])


async def test_a_change_reaches_those_who_may_know_of_it(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    only = [["event_type", "in", ["create"]]]
    async with subscribed(alice, only) as hers, subscribed(bob, only) as his, subscribed(root, only) as all_of_it:
        uuid = await _project(alice, "hers")
        event = await _about(hers, uuid)
        assert (event["object_uuid"], event["event_type"]) == (uuid, "create")
        assert event["object_kind"] == "arvados#group"
        assert event["properties"]["new_attributes"]["name"] == "hers"
        await _about(all_of_it, uuid)
        mine = await _project(bob, "his")
        while (event := await _next(his))["object_uuid"] != mine:
            assert event["object_uuid"] != uuid


async def test_a_revoked_permission_ends_events_at_once(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    shared = await _project(alice, "shared")
    grant = {"link_class": "permission", "name": "can_read", "tail_uuid": bob.user_uuid, "head_uuid": shared}
    link = await alice.post("links", {"link": grant})
    async with subscribed(bob, [["event_type", "in", ["update"]]]) as his:
        await alice.put(f"groups/{shared}", {"group": {"name": "seen"}})
        assert (await _next(his))["properties"]["new_attributes"]["name"] == "seen"
        await alice.delete(f"links/{link['uuid']}")
        await alice.put(f"groups/{shared}", {"group": {"name": "unseen"}})
        own = await _project(bob, "own")
        await bob.put(f"groups/{own}", {"group": {"name": "mine"}})
        assert (await _next(his))["object_uuid"] == own


async def test_events_end_with_the_token_with_the_account_and_with_its_rank(root: Client) -> None:
    alice, bob, carol = [await root.user(name) for name in ("alice", "bob", "carol")]
    await root.put(f"users/{carol.user_uuid}", {"user": {"is_admin": True}})
    only = [["event_type", "in", ["create"]]]
    async with (
        subscribed(alice, only) as hers, subscribed(bob, only) as his, subscribed(carol, only) as all_of_it,
        subscribed(root, only) as check,
    ):  # fmt: skip
        owners = (alice, bob, carol)
        before = [await _project(owner, "before") for owner in owners]
        await _about(hers, before[0])
        await _about(his, before[1])
        await _about(all_of_it, before[0])
        await root.put(f"users/{bob.user_uuid}", {"user": {"is_active": False}})
        await root.put(f"users/{carol.user_uuid}", {"user": {"is_admin": False}})
        await alice.delete(f"api_client_authorizations/{str(alice.token).split('/')[1]}")
        hidden = [await _project(root, "after", owner_uuid=one.user_uuid) for one in (alice, bob)]
        mine = await _project(carol, "mine")
        await _about(check, mine)
        while (event := await _next(all_of_it))["object_uuid"] != mine:
            assert event["object_uuid"] not in hidden
        for socket in (hers, his):
            await socket.send_json({"method": "nosuch"})
            while (answer := await _next(socket)) != {"status": 400}:
                assert answer["object_uuid"] not in hidden


async def test_one_connection_keeps_few_and_small_subscriptions(root: Client) -> None:
    async with root.with_token("wrong").http.ws_connect(f"{root.base}/websocket") as socket:
        for number in range(MAX_SUBSCRIPTIONS + 1):
            await socket.send_json({"method": "subscribe", "filters": [["event_type", "in", [str(number)]]]})
            assert await _next(socket) == {"status": 200 if number < MAX_SUBSCRIPTIONS else 400}
        await socket.send_json({"method": "unsubscribe", "filters": [["event_type", "in", ["7"]]]})
        assert await _next(socket) == {"status": 200}
        await socket.send_json({"method": "subscribe", "filters": [["event_type", "in", ["x" * MAX_SUBSCRIPTION]]]})
        assert await _next(socket) == {"status": 400}
        await socket.send_json({"method": "subscribe", "filters": []})
        assert await _next(socket) == {"status": 200}


async def test_what_was_missed_is_replayed_after_the_last_seen_row_and_once(root: Client) -> None:
    only = [["event_type", "in", ["create"]]]
    async with subscribed(root, only) as first:
        last = (await _about(first, await _project(root, "one")))["id"]
    missed = [await _project(root, name) for name in ("two", "three")]
    async with subscribed(root, only, last_log_id=last) as again:
        live = await _project(root, "four")
        assert [(await _next(again))["object_uuid"] for _ in range(3)] == [*missed, live]


async def test_subscriptions_end_and_wrong_requests_are_answered(root: Client) -> None:
    async with subscribed(root, [["event_type", "in", ["create"]]]) as socket:
        for request, status in (
            ({"method": "unsubscribe", "filters": [["event_type", "in", ["create"]]]}, 200),
            ({"method": "unsubscribe", "filters": []}, 400),
            ({"method": "nosuch"}, 400),
            ({"method": "subscribe", "filters": "text"}, 400),
            ([1], 400),
        ):
            await socket.send_json(request)
            assert (await _next(socket)) == {"status": status}, request
        await socket.send_str("not json")
        assert (await _next(socket)) == {"status": 400}


async def test_a_bad_token_connects_and_hears_nothing(root: Client) -> None:
    async with subscribed(root.with_token("wrong")) as socket:
        await _project(root, "secret")
        with pytest.raises(TimeoutError):
            await _next(socket, 1.0)


async def test_a_late_commit_with_a_small_id_is_not_jumped_over(root: Client, api_database: str) -> None:
    connection = await asyncpg.connect(api_database)
    insert = "INSERT INTO logs (uuid, owner_uuid, event_type, object_uuid) VALUES ($1, $2, 'late', $2) RETURNING id"
    async with subscribed(root, [["event_type", "in", ["late", "create"]]]) as socket:
        transaction = connection.transaction()
        await transaction.start()
        early = await connection.fetchval(insert, "zzzzz-57u5n-lateeventlateev", root.user_uuid)
        await _project(root, "after")
        await asyncio.sleep(0.6)  # longer than a poll: a reader of `id > last` would have passed by now
        await transaction.commit()
        seen = [await _next(socket), await _next(socket)]
        assert seen[0]["id"] == early
        assert seen[0]["id"] < seen[1]["id"]
    await connection.close()


async def test_a_reader_of_greater_ids_would_jump_over_it(api_database: str) -> None:
    """What the horizon is for: the same late commit, read the plain way."""
    late, quick = [await asyncpg.connect(api_database) for _ in range(2)]
    insert = "INSERT INTO logs (uuid, owner_uuid, event_type) VALUES ($1, 'x', 'note') RETURNING id"
    transaction = late.transaction()
    await transaction.start()
    early = await late.fetchval(insert, "zzzzz-57u5n-lateeventlateev")
    await quick.execute(insert, "zzzzz-57u5n-quickeventquick")
    read = "SELECT id FROM logs WHERE id > $1 ORDER BY id"
    seen = [row["id"] for row in await quick.fetch(read, 0)]
    await transaction.commit()
    seen += [row["id"] for row in await quick.fetch(read, max(seen))]
    assert early not in seen
    await late.close()
    await quick.close()


@pytest.mark.e2e
async def test_every_event_comes_once_and_in_order_across_killed_nodes(processes: Processes) -> None:
    """Writers on one node; a client that reconnects to another node each time its own is killed."""
    started = await asyncio.to_thread(lambda: [processes.start() for _ in range(3)])
    async with client_of(*(node.base for node in started)) as clients:
        writer, names = clients[2], [f"p{n}" for n in range(60)]
        seen: list[dict[str, Any]] = []

        async def write() -> None:
            for name in names:
                await _project(writer, name)

        async def follow(position: int | None, reader: Client, until: int) -> int | None:
            async with subscribed(reader, [["event_type", "in", ["create"]]], last_log_id=position) as socket:
                while len(seen) < until:
                    event = await _next(socket)
                    seen.append(event)
                    position = event["id"]
            return position

        async with asyncio.TaskGroup() as tasks:
            subscribing = asyncio.Event()

            async def read() -> None:
                async with subscribed(clients[0], [["event_type", "in", ["create"]]]) as socket:
                    subscribing.set()
                    while len(seen) < 20:
                        seen.append(await _next(socket))
                    started[0].process.kill()
                await follow(seen[-1]["id"], clients[1], len(names))

            tasks.create_task(read())
            await subscribing.wait()
            tasks.create_task(write())
        found = [event["properties"]["new_attributes"]["name"] for event in seen]
        assert found == names
