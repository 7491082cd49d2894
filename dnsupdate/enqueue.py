"""What the transaction that changes a node calls: the host becomes dirty with it, or not at all.

    async with connection.transaction():
        ...                                   # the caller's own statements, row locks included
        changed = await enqueue(connection, host)   # last statement of the transaction
    if changed:
        await nudger.nudge(connection)        # after the commit; a hint, the senders poll anyway

`enqueue` takes a lock that orders all changes until the commit; as the last statement it holds it shortly, and no
caller waits for a row while it has it. A ping that changes nothing reads once and writes at most once a minute.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from dnsupdate.host import Host, checked
from dnsupdate.names import STRICT, Rules
from dnsupdate.queries import load

_SQL = load("enqueue")
_WORST = ("failed", "conflict", "held", "pending", "published")
# A node record's `dns`: the worst state, and that of each target; NULL without targets. `t.uuid` is the node.
RECORD_SQL = """(SELECT jsonb_build_object('state', (array_agg(s.state ORDER BY
 array_position(ARRAY['failed', 'conflict', 'held', 'pending', 'published'], s.state)))[1], 'targets',
 jsonb_object_agg(s.target, jsonb_strip_nulls(jsonb_build_object('state', s.state, 'error', s.last_error))))
 FROM dns_host_states s WHERE s.node_uuid = t.uuid HAVING count(*) > 0)"""


class Connection(Protocol):
    """What is needed of an asyncpg connection, or of whatever wraps one."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Return all rows."""
        ...

    async def execute(self, query: str, *args: Any) -> Any:
        """Run a statement."""
        ...


@dataclass(frozen=True, slots=True)
class TargetState:
    """The state of a host at one target."""

    target: str
    state: str
    age_s: float
    attempts: int
    error: str | None

    def text(self) -> str:
        """Return it in words: `pending 3 s`, `failed: REFUSED ...`."""
        if self.state == "published":
            return "published"
        return f"{self.state} {self.age_s:.0f} s" + (f": {self.error}" if self.error else "")


@dataclass(frozen=True, slots=True)
class HostState:
    """The state of a host: the worst of its targets."""

    state: str
    gen: int
    targets: tuple[TargetState, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as the node record shows it."""
        return {
            "state": self.state,
            "targets": {
                one.target: {"state": one.state, **({"error": one.error} if one.error else {})} for one in self.targets
            },
        }


async def enqueue(
    connection: Connection, *hosts: Host, rules: Rules = STRICT, source_time: datetime | None = None
) -> tuple[str, ...]:
    """Mark hosts whose facts changed dirty at every target; return their uuids, those of robbed hosts included.

    Args:
        connection: inside the caller's transaction, as its last statement.
        hosts: each with all that templates may use. An address that another host has is taken from it.
        rules: the site's rules for names and addresses.
        source_time: the database time at which the facts were true, for sources that hand on late; an older one than
            stored is dropped. None: now.

    Raises:
        BadNameError: a name or address cannot be published (answer 422); nothing was written.
    """
    good = {host.uuid: checked(host, rules) for host in hosts}
    facts = {uuid: json.dumps(host.facts(), default=str, sort_keys=True) for uuid, host in good.items()}
    rows = await connection.fetch(_SQL["unchanged"], list(facts), list(facts.values()))
    same = {row["uuid"] for row in rows}
    todo = [host for uuid, host in good.items() if uuid not in same]
    if not todo:
        return ()
    await connection.execute(_SQL["lock_changes"])
    changed: dict[str, int] = {}
    for host in todo:
        changed |= await _change(connection, host, facts[host.uuid], rules, source_time)
    await _mark(connection, changed)
    return tuple(changed)


async def remove(connection: Connection, *uuids: str, source_time: datetime | None = None) -> tuple[str, ...]:
    """Mark hosts as gone; return those that were there. Same place in the transaction as `enqueue`."""
    await connection.execute(_SQL["lock_changes"])
    rows = await connection.fetch(_SQL["remove"], list(uuids), source_time)
    changed = {row["uuid"]: row["gen"] for row in rows}
    await _mark(connection, changed)
    return tuple(changed)


async def _change(
    connection: Connection, host: Host, facts: str, rules: Rules, source_time: datetime | None
) -> dict[str, int]:
    old = await connection.fetch(_SQL["old_facts"], [host.uuid])
    before = old[0] if old else None
    rows = await connection.fetch(_SQL["upsert"], host.uuid, facts, source_time)
    if not rows or (before is not None and rows[0]["gen"] == before["gen"]):
        return {}  # older than what is stored, or only its ping time was old
    changed = {host.uuid: int(rows[0]["gen"])}
    claimed = [ip for ip in host.ips if ip not in rules.placeholders]
    if claimed:
        changed |= _gens(await connection.fetch(_SQL["clear_addresses"], host.uuid, claimed))
    if before is not None and before["hostname"] and before["hostname"] != host.hostname:
        changed |= _gens(await connection.fetch(_SQL["bury"], before["hostname"], host.domain))
    return changed


def _gens(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return {row["uuid"]: row["gen"] for row in rows}


async def _mark(connection: Connection, changed: dict[str, int]) -> None:
    if changed:
        await connection.execute(_SQL["mark_dirty"], list(changed), list(changed.values()))


async def states(connection: Connection, uuids: Iterable[str]) -> dict[str, HostState]:
    """Return the DNS state of hosts, for the node record; hosts that were never enqueued are left out."""
    found: dict[str, list[TargetState]] = {}
    gens: dict[str, int] = {}
    for row in await connection.fetch(_SQL["states"], list(uuids)):
        one = TargetState(row["target"], row["state"], row["age_s"], row["attempts"], row["last_error"])
        found.setdefault(row["node_uuid"], []).append(one)
        gens[row["node_uuid"]] = row["gen"]
    return {
        uuid: HostState(min((one.state for one in targets), key=_WORST.index), gens[uuid], tuple(targets))
        for uuid, targets in found.items()
    }


class Nudger:
    """Tells senders that there is something to do; at most once an interval, because NOTIFY makes commits queue.

    `clock`: monotonic seconds. A nudge that is left out costs at most one poll interval.
    """

    def __init__(self, *, clock: Any, interval_s: float = 0.05) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._last_at = float("-inf")

    async def nudge(self, connection: Connection) -> bool:
        """Send a nudge unless one was sent a moment ago; outside any transaction. Return whether it was sent."""
        now = self._clock()
        if now - self._last_at < self._interval_s:
            return False
        self._last_at = now
        await connection.execute(_SQL["nudge"])
        return True
