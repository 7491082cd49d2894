"""Compute nodes of the demo: made by an administrator, then pinging, each with an address of its own."""

import asyncio

import httpx

from balancer.demo.traffic import Target, asks

COUNT = 3
PING_EVERY_S = 2.0
FIRST_ADDRESS = 11  # of the network that the reverse zone is for


async def registered(target: Target) -> list[str]:
    """Make the compute nodes; return the path of each one's ping, with its secret. Raises httpx.HTTPError."""
    paths = []
    async with target.client() as client:
        for _ in range(COUNT):
            answer = await client.post("/arvados/v1/nodes", json={"node": {}})
            answer.raise_for_status()
            made = answer.json()
            paths.append(f"/arvados/v1/nodes/{made['uuid']}/ping?ping_secret={made['info']['ping_secret']}")
    return paths


async def ping(target: Target, path: str, number: int) -> None:
    """Ping for ever, as a compute node does. The first ping gives it a host name, and its address to DNS."""
    query = f"&local_ipv4=10.0.1.{FIRST_ADDRESS + number}"
    async with target.client() as client:
        while True:
            if problem := await asks(client, target.tally, "POST", path + query):
                target.tally.resend(problem)
            else:
                target.tally.pings += 1
            await asyncio.sleep(PING_EVERY_S)


async def names(client: httpx.AsyncClient) -> dict[str, str]:
    """Return the addresses of the compute nodes by host name, as the API has them. Raises httpx.HTTPError."""
    answer = await client.get("/arvados/v1/nodes")
    answer.raise_for_status()
    return {item["hostname"]: item["ip_address"] for item in answer.json()["items"] if item["hostname"]}
