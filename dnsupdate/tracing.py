"""One host's way: its newest change, the messages that carried it, and what each name server says now."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from dnsupdate.exchange import Channel, Peer, Reply
from dnsupdate.overview import Overview
from dnsupdate.service import Secrets, peers, wall_clock
from dnsupdate.settings import Settings
from dnsupdate.store import Store


async def trace(settings: Settings, secrets: Secrets, store: Store, name: str) -> dict[str, Any] | None:
    """Return the steps of a host, by host name or uuid; None when there is no such host."""
    overview = Overview(settings, store)
    hosts = await overview.hosts([name])
    if not hosts:
        return None
    host = max(hosts, key=lambda row: (not row["removed"], row["gen"]))
    uuid = host["node_uuid"]
    records = await overview.published(uuid)
    return {
        "host": host,
        "states": await overview.states([uuid]),
        "messages": await overview.traces(uuid),
        "records": records,
        "seen": await _seen(settings, secrets, records),
    }


async def _seen(settings: Settings, secrets: Secrets, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for target in sorted({row["target"] for row in records}):
        if target not in settings.targets or settings.targets[target].kind == "files":
            continue
        wanted = sorted({(row["name"], row["rdtype"]) for row in records if row["target"] == target})
        for peer in _servers(settings, secrets, target):
            found += await _ask(target, peer, wanted)
    return found


def _servers(settings: Settings, secrets: Secrets, target: str) -> list[Peer]:
    """The primary with its key, the others as resolvers ask them."""
    mine = settings.targets[target]
    others = [address.partition("@") for address in mine.nameservers]
    return [
        *peers(mine, secrets.keys[target].update),
        *(Peer(address=host, port=int(port or mine.port), timeout_s=mine.timeout) for host, _, port in others),
    ]


async def _ask(target: str, peer: Peer, wanted: list[tuple[str, str]]) -> list[dict[str, Any]]:
    clock = asyncio.get_running_loop().time
    async with Channel(peer, wall_clock) as channel:
        started = clock()
        replies = await channel.query(*wanted)
        took_s = clock() - started
    found = []
    for (name, rdtype), reply in zip(wanted, replies, strict=True):
        data = _data(peer, reply, rdtype)
        error = reply.diagnosis.text if data is None else None
        shown = {"target": target, "server": peer.name, "name": name, "type": rdtype, "data": data, "error": error}
        found.append({**shown, "seconds": took_s})
    return found


def _data(peer: Peer, reply: Reply, rdtype: str) -> list[str] | None:
    """What the server has; None: it did not say, or not with our key."""
    answer = reply.answer
    if answer is None or answer.rcode not in ("NOERROR", "NXDOMAIN") or (peer.key is not None and not answer.signed):
        return None
    return list(answer.data(rdtype))


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def lines(found: dict[str, Any]) -> list[str]:
    """Return the steps as people read them."""
    host = found["host"]
    facts = host["facts"]
    addresses = ", ".join(facts["ips"]) or "no address"
    text = [f"{facts['hostname']} ({host['node_uuid']}): {addresses}, change {host['gen']}"]
    text += [f"  changed    {_time(host['changed_at'])}", f"  last ping  {_time(host['last_ping_at'])}"]
    for row in sorted(found["messages"], key=lambda row: row["sent_at"]):
        took_ms = (row["answered_at"] - row["sent_at"]).total_seconds() * 1000
        text.append(
            f"  sent       {_time(row['sent_at'])} to {row['target']} zone {row['zone']}: "
            f"message {row['message_id']}, epoch {row['epoch']} by {row['holder']}: {row['rcode']} in {took_ms:.0f} ms"
        )
    for row in found["states"]:
        error = f": {row['last_error']}" if row["last_error"] else ""
        text.append(f"  state      {row['target']}: {row['state']}{error}")
    if not found["records"] and not found["messages"]:
        text.append("  records    none: no template makes any for it")
    wanted = {(row["target"], row["name"], row["rdtype"]): row["rdata"] for row in found["records"]}
    for row in found["seen"]:
        data = row["error"] or ", ".join(row["data"]) or "nothing"
        right = wanted[row["target"], row["name"], row["type"]] in (row["data"] or [])
        sign = "✓" if right else "✗"
        text.append(f"  {sign} {row['server']}  {row['name']} {row['type']} {data}  ({row['seconds'] * 1000:.0f} ms)")
    return text
