"""Compute nodes: pings, slots, names, addresses that move, and what of it is handed to DNS."""

import asyncio
from typing import Any

import asyncpg
import pytest

from apiserver.errors import InvalidError
from apiserver.resources.nodes import hostname_of
from apiserver.settings import Nodes
from tests.support.api import (
    Client,
    Processes,
    Response,
    api_database,
    api_template,
    client_of,
    processes,
    root,
    running,
    settings,
)
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "processes", "root"]
pytestmark = pytest.mark.pg


async def _ping(client: Client, node: dict[str, Any], ip: str = "10.0.0.1", **more: Any) -> Response:
    bare = client.with_token(None)
    headers = more.pop("headers", None)
    secret = more.pop("ping_secret", node["info"]["ping_secret"])
    return await bare.call(
        "POST", f"nodes/{node['uuid']}/ping", headers=headers, ping_secret=secret, local_ipv4=ip, **more
    )


async def _dirty(database: str) -> set[str]:
    """Take the uuids that a sender would look at now."""
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("DELETE FROM dns_dirty RETURNING node_uuid")
        return {row["node_uuid"] for row in rows}
    finally:
        await connection.close()


async def _with_target(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO dns_lease (target) VALUES ('primary') ON CONFLICT DO NOTHING")
    await connection.close()


async def test_the_first_ping_gives_slot_name_and_address(root: Client) -> None:
    made = await root.post("nodes", {"node": {}})
    assert (made["slot_number"], made["status"], made["crunch_worker_state"]) == (None, "pending", "down")
    reply = await _ping(root, made, total_cpu_cores="4", instance_id="i-1")
    assert reply.status == 200
    assert (reply.body["slot_number"], reply.body["hostname"], reply.body["ip_address"]) == (1, "compute1", "10.0.0.1")
    assert (reply.body["status"], reply.body["properties"]) == ("running", {"total_cpu_cores": 4})
    assert reply.body["first_ping_at"] == reply.body["last_ping_at"]
    assert reply.body["nameservers"] == ["192.168.1.1"]
    again = await _ping(root, made, ip="10.0.0.9")
    assert (again.body["ip_address"], again.body["properties"]) == ("10.0.0.1", {})
    other = await _ping(root, made, instance_id="i-2")
    assert other.status == 422


async def test_the_secret_of_a_node_is_in_no_log_row(root: Client) -> None:
    made = await root.post("nodes", {"node": {"info": {"slurm_state": "idle"}}})
    await _ping(root, made)
    await root.put(f"nodes/{made['uuid']}", {"node": {"hostname": "other"}})
    rows = (await root.get("logs", filters=[["object_uuid", "=", made["uuid"]]]))["items"]
    assert len(rows) == 3
    assert all(row["properties"]["new_attributes"]["info"] == {"slurm_state": "idle"} for row in rows)
    assert made["info"]["ping_secret"] not in str(rows)


async def test_a_wrong_secret_and_only_that_says_so(root: Client) -> None:
    made = await root.post("nodes", {"node": {}})
    wrong = await _ping(root, made, ping_secret="wrong")
    assert wrong.status == 401
    assert "Incorrect ping_secret" in wrong.errors
    unknown = await _ping(root, {**made, "uuid": "zzzzz-7ekkf-nosuchnosuchnos"})
    assert unknown.status == 404
    assert "Incorrect" not in unknown.errors


async def test_the_newest_ping_wins_an_address_and_the_loser_wins_it_back(root: Client) -> None:
    first, second = [await root.post("nodes", {"node": {}}) for _ in range(2)]
    await _ping(root, first)
    await _ping(root, second)
    assert (await root.get(f"nodes/{first['uuid']}"))["ip_address"] is None
    await _ping(root, first)
    assert (await root.get(f"nodes/{first['uuid']}"))["ip_address"] == "10.0.0.1"
    assert (await root.get(f"nodes/{second['uuid']}"))["ip_address"] is None


async def test_a_change_is_handed_to_dns_with_the_ping_and_a_plain_ping_is_not(root: Client, api_database: str) -> None:
    await _with_target(api_database)
    first, second = [await root.post("nodes", {"node": {}}) for _ in range(2)]
    await _dirty(api_database)
    await _ping(root, first)
    assert await _dirty(api_database) == {first["uuid"]}
    await _ping(root, first)
    assert await _dirty(api_database) == set()
    await _ping(root, second)
    assert await _dirty(api_database) == {first["uuid"], second["uuid"]}
    await root.put(f"nodes/{second['uuid']}", {"node": {"hostname": "renamed"}})
    assert second["uuid"] in await _dirty(api_database)
    await root.delete(f"nodes/{second['uuid']}")
    assert second["uuid"] in await _dirty(api_database)
    refused = await root.call("PUT", f"nodes/{first['uuid']}", {"node": {"hostname": "no good"}})
    assert refused.status == 422
    assert (await root.get(f"nodes/{first['uuid']}"))["hostname"] == "compute1"
    assert await _dirty(api_database) == set()


async def test_pings_over_a_balancer_that_lost_the_designation_are_refused(root: Client) -> None:
    made = await root.post("nodes", {"node": {}})
    for epoch, status in ((5, 200), (5, 200), (4, 503), (6, 200), (5, 503)):
        reply = await _ping(root, made, headers={"X-Arv-Designation": f"dns;epoch={epoch}"})
        assert reply.status == status, (epoch, reply.body)
        assert status == 200 or "Incorrect" not in reply.errors


async def test_the_address_of_a_ping_is_the_client_behind_trusted_proxies(root: Client) -> None:
    made = await root.post("nodes", {"node": {}})
    secret = made["info"]["ping_secret"]
    reply = await root.with_token(None).call(
        "POST", f"nodes/{made['uuid']}/ping", ping_secret=secret,
        headers={"X-Forwarded-For": "192.0.2.7, 10.9.8.7, 127.0.0.1"},
    )  # fmt: skip
    assert reply.body["ip_address"] == "10.9.8.7"


async def test_what_others_than_admins_see_of_nodes(root: Client) -> None:
    alice = await root.user("alice")
    alive, silent = [await root.post("nodes", {"node": {}}) for _ in range(2)]
    await _ping(root, alive)
    listed = await alice.get("nodes")
    assert [item["uuid"] for item in listed["items"]] == [alive["uuid"]]
    assert "info" not in listed["items"][0]
    assert "info" not in await alice.get(f"nodes/{silent['uuid']}")
    assert (await alice.call("POST", "nodes", {"node": {}})).status == 403


async def test_an_admins_host_name_is_kept_and_slots_run_out(api_database: str, root: Client) -> None:
    few = settings(api_database, nodes=Nodes(max_compute_nodes=2, assign_node_hostname="node-%<slot_number>03d"))
    async with running(few) as base:
        client = Client(base, root.http)
        named = await client.post("nodes", {"node": {"hostname": "mine"}}, assign_slot=True)
        assert (named["slot_number"], named["hostname"]) == (1, "mine")
        assert (await client.post("nodes", {}, assign_slot=True))["hostname"] == "node-002"
        full = await client.call("POST", "nodes", {}, assign_slot=True)
        assert full.status == 422
        assert "No available node slots" in full.errors


@pytest.mark.parametrize(
    ("template", "name"), [("compute%<slot_number>d", "compute7"), ("c%<slot_number>04d", "c0007"), ("a%%b", "a%b")]
)
def test_a_host_name_is_printed_from_its_slot(template: str, name: str) -> None:
    assert hostname_of(template, 7) == name


def test_a_malformed_host_name_template_is_an_error() -> None:
    with pytest.raises(InvalidError):
        hostname_of("compute%d", 7)


@pytest.mark.e2e
async def test_first_pings_at_once_on_three_nodes_give_each_host_its_own_slot(processes: Processes) -> None:
    started = await asyncio.to_thread(lambda: [processes.start() for _ in range(3)])
    async with client_of(*(node.base for node in started)) as clients:
        made = [await clients[0].post("nodes", {"node": {}}) for _ in range(24)]
        replies = await asyncio.gather(*(_ping(clients[n % 3], node, ip=f"10.0.0.{n}") for n, node in enumerate(made)))
        assert [reply.status for reply in replies] == [200] * 24, [r.body for r in replies if r.status != 200]
        assert sorted(reply.body["slot_number"] for reply in replies) == list(range(1, 25))
        names = {reply.body["hostname"] for reply in replies}
        assert names == {f"compute{n}" for n in range(1, 25)}
