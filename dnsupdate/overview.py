"""What is, what would be done, and what was done: read from the tables, changing nothing but on an operator's word."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dnsupdate.batch import Batch, prepare
from dnsupdate.booking import ORPHAN, Due, dues_of
from dnsupdate.exchange import peer_name
from dnsupdate.files import FILE, NO_ZONE
from dnsupdate.host import from_facts
from dnsupdate.plan import Change, Key, Plan, Policy, Standing
from dnsupdate.queries import load
from dnsupdate.records import Renderer
from dnsupdate.settings import Settings
from dnsupdate.store import Store

_SQL = load("overview")


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """What a sender with these settings would do at a target. `holder`: who sends now."""

    target: str
    kind: str
    server: str
    holder: str
    epoch: int
    plan: Plan
    failed: dict[str, tuple[str, str]]
    names: dict[str, str]  # uuid to host name
    blocked: dict[str, str] = field(default_factory=dict)  # by what the server said at the last try

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do and nothing to say."""
        return not self.plan.changes and not self.plan.conflicts and not self.failed


class Overview:
    """Reads for commands and pages."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store

    async def _fetch(self, name: str, *args: Any) -> list[dict[str, Any]]:
        async with self._store.connection() as connection:
            return [dict(row) for row in await connection.fetch(_SQL[name], *args)]

    async def plan(self, target: str) -> TargetPlan:
        """Return what would be done at a target if all hosts were looked at with these settings."""
        due = await self._due(target)
        renderer, settings = Renderer(self._settings), self._settings.targets[target]
        batch = await prepare(self._store, target, due, renderer.render)
        policy = Policy(self._settings.owner_id, settings.ownership, settings.conflict)
        batch.known = replace(batch.known, held_hosts=0)  # they are in the batch, with all others
        orphans = [one.orphan for one in due if one.orphan is not None]
        batch.standing |= {(zone, name): Standing.OURS for zone, name, _ in orphans}  # they had our marker
        plan = batch.plan(policy, settings.brake, target, set())
        rows = [row for row in await self.states() if row["target"] == target and row["state"] == "conflict"]
        blocked = {row["node_uuid"]: row["last_error"] for row in rows}
        row: dict[str, Any] = next((row for row in await self.targets() if row["target"] == target), {})
        return TargetPlan(
            target=target,
            kind=settings.kind,
            server=", ".join(peer_name(server, settings.port) for server in settings.servers)
            or str(settings.dir or ""),
            holder=str(row["holder"]) if row.get("is_held") else "nobody",
            epoch=int(row.get("epoch", 0)),
            plan=plan,
            failed=dict(batch.failed),
            names=_names(batch),
            blocked=blocked,
        )

    async def _due(self, target: str) -> list[Due]:
        """Return all hosts as a sender will see them after its first sweep: missing ones, and names to be filled in."""
        rows = await self._fetch("all_due", target, self._settings.missing_after)
        due = list(dues_of(rows))
        facts = {"domain": self._settings.domain, "ips": []}
        filled = {f"was:{name}": {"hostname": name, **facts} for name in self._settings.prefilled}
        missing = sorted(filled.keys() - {one.uuid for one in due})
        hosts = [from_facts(uuid, filled[uuid], gen=0, removed=True, missing=False) for uuid in missing]
        return [*due, *(Due(host.uuid, 0, False, 0, host) for host in hosts)]

    async def targets(self) -> list[dict[str, Any]]:
        """Return targets with holder, epoch, error, counts by state."""
        found = await self._fetch("targets")
        for row in found:
            row["server_state"] = json.loads(row["server_state"])
        return found

    async def states(self, hosts: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the states of hosts, by host name or uuid; None: of all."""
        return await self._fetch("host_states", None if hosts is None else list(hosts))

    async def hosts(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return hosts with their facts."""
        found = await self._fetch("hosts", None if names is None else list(names))
        return [{**row, "facts": json.loads(row["facts"])} for row in found]

    async def published(self, uuid: str) -> list[dict[str, Any]]:
        """Return a host's records."""
        return await self._fetch("published_of", uuid)

    async def traces(self, uuid: str) -> list[dict[str, Any]]:
        """Return the last message to each zone that had something of a host in it."""
        return await self._fetch("traces_of", uuid)

    async def events(self, *, after: int = 0, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest events, oldest first."""
        return (await self._fetch("events", after, limit))[::-1]

    async def waiting(self) -> dict[tuple[str, str], int]:
        """Return how many hosts are left to do, by target and state; held ones are not counted."""
        return {(row["target"], row["state"]): row["hosts"] for row in await self._fetch("waiting")}

    async def held(self) -> dict[str, int]:
        """Return how many hosts are held, by target."""
        return {row["target"]: row["hosts"] for row in await self._fetch("held")}

    async def release(self, target: str | None, hosts: Sequence[str] | None = None) -> list[str]:
        """Let held deletions go; return the hosts."""
        names = [host.rstrip(".") for host in hosts] if hosts else None
        return [row["node_uuid"] for row in await self._fetch("release", target, names)]

    async def adopt(self, names: Sequence[str], target: str | None = None) -> list[Key]:
        """Take over what is at names that hosts want and do not get; a host name stands for all its names."""
        taken: list[Key] = []
        for name, settings in self._settings.targets.items():
            if settings.kind == "files" or target not in (None, name):
                continue
            keys, hosts = await self._wanted(name, set(names))
            if keys:
                async with self._store.connection() as connection, connection.transaction():
                    zones, owners = [zone for zone, _ in keys], [owner for _, owner in keys]
                    await connection.execute(_SQL["adopt"], name, zones, owners)
                    await connection.execute(_SQL["wake"], name, hosts)
                taken += keys
        return taken

    async def _wanted(self, target: str, names: set[str]) -> tuple[list[Key], list[str]]:
        due = await self._due(target)
        batch = await prepare(self._store, target, due, Renderer(self._settings).render)
        published = {(one.zone, one.name) for one in batch.known.published}
        asked = {name.rstrip(".") for name in names}
        hosts = {one.uuid for one in batch.due if one.host is not None and one.host.hostname in asked}
        found = {
            (one.zone, one.name): one.host
            for one in batch.desired
            if (one.name.rstrip(".") in asked or one.host in hosts) and (one.zone, one.name) not in published
        }
        return sorted(found), sorted(set(found.values()))


def _names(batch: Batch) -> dict[str, str]:
    return labels((one.uuid, one.host.hostname if one.host is not None else None) for one in batch.due)


def labels(hosts: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return what hosts are called, by uuid: their names, with the uuid where two have the same."""
    names = {uuid: name or (uuid.split("/")[1] if uuid.startswith(ORPHAN) else uuid) for uuid, name in hosts}
    counts = Counter(names.values())
    return {uuid: f"{name} ({uuid})" if counts[name] > 1 else name for uuid, name in names.items()}


def plan_lines(found: TargetPlan) -> list[str]:
    """Return a plan as people read it: `+` made, `~` changed, `-` deleted, `!` not possible."""
    where = f"{found.server}, fence epoch {found.epoch} held by {found.holder}"
    lines = [f"target {found.target} ({where})"]
    for zone, changes in found.plan.zones().items():
        lines += [f"zone {zone}"] if zone != NO_ZONE else []
        lines += [line for change in changes for line in _change_lines(change)]
    for conflict in found.plan.conflicts:
        lines.append(f"  ! {found.names.get(conflict.host, conflict.host)}: {conflict.text}")
    for uuid, (state, text) in found.failed.items():
        lines.append(f"  ! {found.names.get(uuid, uuid)}: {state}: {text}")
    planned = {host for change in found.plan.changes for host in change.hosts}
    for uuid in sorted(planned & found.blocked.keys()):
        lines.append(f"  ! {found.names.get(uuid, uuid)}: at the last try: {found.blocked[uuid]}")
    lines.append(summary(found))
    return lines


def summary(found: TargetPlan) -> str:
    """Return one line of numbers."""
    made = sum(not change.before and bool(change.after) for change in found.plan.changes)
    gone = len(found.plan.deletions)
    changed = len(found.plan.changes) - made - gone
    not_possible = len(found.plan.conflicts) + len(found.failed)
    return f"+{made} ~{changed} -{gone}, {not_possible} not possible."


def _change_lines(change: Change) -> list[str]:
    name = change.name.removesuffix("." + change.zone) if change.zone else change.name
    before = {rrset.rdtype: rrset for rrset in change.before}
    after = {rrset.rdtype: rrset for rrset in change.after if rrset.rdtype in change.types}
    lines = []
    for rdtype in sorted({*before, *after} or change.types):
        old, new = before.get(rdtype), after.get(rdtype)
        sign = "~" if old and new else "+" if new else "-"
        values = " → ".join(", ".join(one.rdatas) for one in (old, new) if one is not None)
        shown = "file" if rdtype == FILE else f"{rdtype:<5} {values}"
        lines.append(f"  {sign} {name:<20} {shown}" + (f"   ttl {new.ttl}" if new and rdtype != FILE else ""))
    return lines


def plan_json(found: TargetPlan) -> dict[str, Any]:
    """Return a plan for programs."""
    return {
        "target": found.target,
        "kind": found.kind,
        "server": found.server,
        "holder": found.holder,
        "epoch": found.epoch,
        "changes": [
            {
                "zone": change.zone,
                "name": change.name,
                "guard": change.guard.value,
                "before": [_rrset_json(rrset) for rrset in change.before],
                "after": [_rrset_json(rrset) for rrset in change.after],
                "hosts": sorted(found.names.get(host, host) for host in change.hosts),
            }
            for change in found.plan.changes
        ],
        "conflicts": [
            {"host": found.names.get(one.host, one.host), "name": one.name, "text": one.text}
            for one in found.plan.conflicts
        ],
        "failed": [
            {"host": found.names.get(uuid, uuid), "state": state, "text": text}
            for uuid, (state, text) in found.failed.items()
        ],
    }


def _rrset_json(rrset: Any) -> dict[str, Any]:
    return {"type": rrset.rdtype, "ttl": rrset.ttl, "data": list(rrset.rdatas)}
