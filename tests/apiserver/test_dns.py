"""API nodes that send DNS updates themselves: any number of them, one sender a target at a time."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.dnsupdate.servers import FORWARD, Target, builtin
from tests.support.api import (
    MANAGEMENT,
    Client,
    Processes,
    Response,
    api_database,
    api_template,
    client_of,
    processes,
)
from tests.support.nameservers import write_key
from tests.support.postgres import postgres_server, until

__all__ = ["api_database", "api_template", "postgres_server", "processes"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
async def practice() -> AsyncIterator[Target]:
    async with builtin() as target:
        yield target


def section(server: Target, folder: Path, **more: Any) -> dict[str, Any]:
    """A site with a forward zone and a lease that is short, so that a killed sender is replaced soon."""
    target = {
        "kind": "builtin", "servers": ["127.0.0.1"], "port": server.port, "key_file": str(write_key(folder)),
        "timeout": "900ms", "lease": "2s", "poll": "500ms", "retry": {"first": "50ms", "most": "200ms"},
    }  # fmt: skip
    record = {"name": "{{ hostname }}.cluster.example.", "each": "ipv4", "type": "A", "data": "{{ item }}"}
    return {
        "targets": {"main": target},
        "zones": [{"name": "cluster.example", "target": "main"}],
        "templates": {"compute": {"records": [record]}},
        **more,
    }


async def start(processes: Processes, count: int, dns: dict[str, Any]) -> None:
    for _ in range(count):
        processes.launch(dns=dns)
    await asyncio.to_thread(processes.await_ready)


async def ping(client: Client, node: dict[str, Any], ip: str, **more: Any) -> Response:
    headers = more.pop("headers", None)
    return await client.with_token(None).call(
        "POST", f"nodes/{node['uuid']}/ping", headers=headers, ping_secret=node["info"]["ping_secret"],
        local_ipv4=ip, **more,
    )  # fmt: skip


async def metric(client: Client, name: str) -> float:
    text = await client.with_token(MANAGEMENT).http.get(
        f"{client.base}/metrics", headers={"Authorization": f"Bearer {MANAGEMENT}"}
    )
    found = re.search(rf"^{re.escape(name)} (\S+)$", await text.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def sender(clients: list[Client]) -> int:
    """Return which of them sends; wait while the lease is on its way from one to another."""
    leads: list[float] = []

    async def one_leads() -> bool:
        leads[:] = [await metric(client, 'arv_balance_dns_sender{target="main"}') for client in clients]
        return sum(leads) == 1

    await until(one_leads)
    return leads.index(1.0)


async def test_three_nodes_publish_what_is_pinged_to_any_and_survive_the_death_of_the_sender(
    processes: Processes, practice: Target, tmp_path: Path
) -> None:
    await start(processes, 3, section(practice, tmp_path))
    async with client_of(*(node.base for node in processes.nodes)) as clients:
        made = [await clients[0].post("nodes", {"node": {}}) for _ in range(6)]
        replies = [await ping(clients[n % 3], made[n], f"192.0.2.{n + 1}", wait_dns="30s") for n in range(6)]
        assert [reply.body["dns"]["state"] for reply in replies] == ["published"] * 6
        names = {f"compute{n + 1}.{FORWARD} 60 A 192.0.2.{n + 1}" for n in range(6)}
        assert practice.hosts(FORWARD) == names
        leader = await sender(clients)
        processes.nodes[leader].kill()
        others = clients[:leader] + clients[leader + 1 :]
        fresh = await others[0].post("nodes", {"node": {}})
        reply = await ping(others[1], fresh, "192.0.2.77", wait_dns="30s")
        assert (reply.status, reply.body["dns"]["state"]) == (200, "published"), reply.body
        assert practice.hosts(FORWARD) == names | {f"compute7.{FORWARD} 60 A 192.0.2.77"}
        successor = others[await sender(others)]
        place = f'{{rcode="NOERROR",server="127.0.0.1 port {practice.port}",zone="{FORWARD}"}}'
        assert await metric(successor, f"arv_balance_dns_updates_total{place}") >= 1
        shown = await others[0].call("GET", f"nodes/{fresh['uuid']}")
        assert shown.body["dns"] == {"state": "published", "targets": {"main": {"state": "published"}}}
        await others[0].call("DELETE", f"nodes/{fresh['uuid']}")
        await until(lambda: asyncio.sleep(0, practice.hosts(FORWARD) == names))


async def test_a_ping_that_waits_tells_why_its_records_are_not_there(
    processes: Processes, practice: Target, tmp_path: Path
) -> None:
    await start(processes, 1, section(practice, tmp_path))
    async with client_of(processes.nodes[0].base) as (client,):
        made = await client.post("nodes", {"node": {"hostname": "taken"}})
        assert practice.authority is not None
        zone = next(zone for zone in practice.authority.zones.values() if str(zone.origin) == FORWARD)
        zone.put(f"taken.{FORWARD}", 60, "A", "198.51.100.1")
        reply = await ping(client, made, "192.0.2.1", wait_dns="30s")
        assert reply.status == 200
        assert reply.body["dns"]["state"] == "conflict"
        assert "is in use and not ours" in reply.body["dns"]["targets"]["main"]["error"]
        assert f"taken.{FORWARD} 60 A 198.51.100.1" in practice.hosts(FORWARD)
        for wrong in ("soon", "31s", "-1s"):
            assert (await ping(client, made, "192.0.2.1", wait_dns=wrong)).status == 422
        # The rules of the section hold for pings: a loopback address is refused unless it is allowed.
        other = await client.post("nodes", {"node": {}})
        refused = await ping(client, other, "127.0.0.9")
        assert (refused.status, "loopback" in str(refused.errors)) == (422, True)


async def test_loopback_addresses_are_published_where_the_section_allows_them(
    processes: Processes, practice: Target, tmp_path: Path
) -> None:
    await start(processes, 1, section(practice, tmp_path, addresses={"allow_loopback": True}))
    async with client_of(processes.nodes[0].base) as (client,):
        made = await client.post("nodes", {"node": {}})
        assert (await ping(client, made, "127.0.0.9", wait_dns="30s")).status == 200
        assert practice.hosts(FORWARD) == {f"compute1.{FORWARD} 60 A 127.0.0.9"}


async def test_an_older_designation_is_refused_by_every_node_and_the_newer_has_the_directory(
    processes: Processes, practice: Target, tmp_path: Path, api_database: str
) -> None:
    (tmp_path / "host.template").write_text("%{hostname} %{ip_address}\n")
    dns = section(practice, tmp_path)
    folders = [tmp_path / "directory0", tmp_path / "directory1"]
    for folder in folders:
        folder.mkdir()
        files = {"kind": "files", "dir": str(folder), "template": str(tmp_path / "host.template"), "poll": "100ms"}
        processes.launch(dns={**dns, "targets": {**dns["targets"], "local": {**files, "debounce": "50ms"}}})
    await asyncio.to_thread(processes.await_ready)
    async with client_of(*(node.base for node in processes.nodes)) as (old, new):
        made = await old.post("nodes", {"node": {}})

        async def pinged(client: Client, epoch: int) -> int:
            return (await ping(client, made, "192.0.2.1", headers={"X-Arv-Designation": f"dns;epoch={epoch}"})).status

        def written(folder: Path) -> Any:
            return asyncio.sleep(0, [path.name for path in folder.glob("*.conf")] == ["compute1.conf"])

        assert await pinged(old, 4) == 200
        await until(lambda: written(folders[0]))
        assert not list(folders[1].iterdir())
        assert await pinged(new, 5) == 200
        await until(lambda: written(folders[1]))
        assert [await pinged(old, 4), await pinged(new, 4), await pinged(new, 5)] == [503, 503, 200]
        connection = await asyncpg.connect(api_database)
        seen = await connection.fetchval("SELECT server_state ->> 'designation' FROM dns_lease WHERE target = 'local'")
        await connection.close()
        assert seen == "5"


def test_a_node_whose_dns_section_is_wrong_says_what_and_does_not_start(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "arv-balance.yml").write_text("dns: {targets: {main: {kind: rfc2136, sarvers: [192.0.2.53]}}}\n")
    node = processes.launch(dns={"file": str(tmp_path / "arv-balance.yml")})
    assert node.process.wait(30) == 3
    text = node.log.read_text()
    assert "unknown key 'sarvers' (did you mean 'servers'?)" in text
    command = [sys.executable, "-P", "-m", "balancer.cli", "api", "--config", str(tmp_path / "node0.yml")]
    done = subprocess.run([*command, "--dns", str(tmp_path / "none.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 3
