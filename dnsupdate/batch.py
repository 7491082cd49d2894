"""Hosts on their way through one step of a sender: what they want, what came of it, what is written down."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dnsupdate.booking import Booking, Due, Known, Trace, Triple
from dnsupdate.diagnosis import Diagnosis
from dnsupdate.host import Host
from dnsupdate.plan import Change, Key, Plan, Policy, RRset, Standing, State, brake, make
from dnsupdate.records import Contribution, Rendered
from dnsupdate.settings import Brake
from dnsupdate.store import Store
from dnsupdate.update import Fence, Update

_CHUNK = 100


@dataclass(slots=True)
class Batch:
    """What is known about the hosts of a step. `failed`: uuid to (state, error)."""

    due: tuple[Due, ...]
    desired: list[Contribution]
    known: Known
    hosts: set[str]
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    standing: dict[Key, Standing] = field(default_factory=dict)
    foreign: dict[Key, tuple[RRset, ...]] = field(default_factory=dict)
    unsure: set[Triple] = field(default_factory=set)
    noted: set[Triple] = field(default_factory=set)  # written down as being on its way
    sending: list[int] = field(default_factory=list)  # the numbers of those notes
    written: dict[str, tuple[tuple[Change, ...], Fence, Update]] = field(default_factory=dict)  # ahead of time, by zone

    def plan(self, policy: Policy, limits: Brake, target: str, gone: set[str]) -> Plan:
        """Return the plan; hosts whose records would all go are held back, if that are too many.

        `gone`: hosts that earlier batches let go since there was last nothing to do; those of this one join them.
        """
        plan = self._make(policy)
        return self._make(policy) if self._hold(plan, limits, target, gone) else plan

    def _make(self, policy: Policy) -> Plan:
        state = State(
            published=self.known.published,
            unsure=frozenset(self.unsure),
            standing=self.standing,
            foreign=self.foreign,
            adopted=self.known.adopted,
        )
        return make(self.desired, frozenset(self.hosts), state, policy)

    def _hold(self, plan: Plan, limits: Brake, target: str, gone: set[str]) -> bool:
        left = {one.host for one in self.desired}
        going = [
            one
            for one in self.due
            if not one.released
            and one.uuid in self.hosts
            and one.uuid not in left
            and any(_is_of(one, change) for change in plan.deletions)
        ]
        what = "hosts and names without a host" if any(one.orphan is not None for one in going) else "hosts"
        before = len(gone - {one.uuid for one in going})
        published = self.known.published_hosts + before
        why = brake(len(going), self.known.held_hosts + before, published, limits, what)
        if why is None:
            gone |= {one.uuid for one in going}
            return False
        for one in going:
            self.hosts.discard(one.uuid)
            self.failed[one.uuid] = ("held", f"{why}; `arv-balance dns release {target}` lets it go")
            if one.orphan is not None:
                self.unsure -= set(orphan_triples(one.orphan))
        return True


@dataclass(slots=True)
class Sent:
    """What became of the changes of a plan. `put_off`: not done, with the reason; "" when only for later."""

    applied: set[Key] = field(default_factory=set)
    settled: set[Triple] = field(default_factory=set)
    put_off: dict[Key, str] = field(default_factory=dict)
    again: bool = False
    trouble: Diagnosis | None = None
    is_unknown: bool = False
    traces: list[Trace] = field(default_factory=list)

    def refuse(self, changes: Iterable[Change], reason: str) -> None:
        """These are not done."""
        self.put_off |= {change.key: reason for change in changes}


async def prepare(store: Store, target: str, due: list[Due], render: Callable[[Host], Rendered]) -> Batch:
    """Return a batch of the hosts that are due.

    A host whose records cannot be made is no part of it: what it has published stays as it is.
    """
    rendered: dict[str, Rendered] = {}
    for at in range(0, len(due), _CHUNK):
        rendered |= {one.uuid: render(one.host) for one in due[at : at + _CHUNK] if one.host is not None}
        await asyncio.sleep(0)  # an API node has requests to answer meanwhile
    failed = {
        uuid: ("failed", "; ".join(str(fault) for fault in found.faults[:3]))
        for uuid, found in rendered.items()
        if found.faults
    }
    desired = [
        one
        for uuid, found in rendered.items()
        if uuid not in failed
        for one in found.contributions
        if one.target == target
    ]
    hosts = {one.uuid for one in due if one.uuid not in failed}
    orphans = [triple for one in due if one.orphan is not None for triple in orphan_triples(one.orphan)]
    wanted = {(one.zone, one.name) for one in desired} | {(zone, name) for zone, name, _ in orphans}
    may_vanish = bool(orphans) or not hosts <= {one.host for one in desired}
    known = await store.known(target, list(hosts), wanted, count=may_vanish)
    desired += _kept(known, {uuid for uuid, found in rendered.items() if found.keeps and uuid not in failed}, desired)
    return Batch(tuple(due), desired, known, hosts, failed, unsure=set(known.unsure) | set(orphans))


def _kept(known: Known, keeping: set[str], desired: list[Contribution]) -> list[Contribution]:
    """Return what stays of absent hosts: it gives way to any living one."""
    there = {(one.host, one.zone, one.name) for one in desired}
    return [
        one._replace(yields=True)
        for one in known.published
        if one.host in keeping and (one.host, one.zone, one.name) not in there
    ]


def apart(batch: Batch, taken: frozenset[Key]) -> bool:
    """Return whether a batch can be planned while another is on its way; forget what only the other is about.

    `taken`: the names of the other. What is unsure needs the server's word, and the way to the server is in use.
    """
    mine = {(one.zone, one.name) for one in batch.desired}
    mine |= {(one.zone, one.name) for one in batch.known.published if one.host in batch.hosts}
    batch.unsure = {one for one in batch.unsure if one[:2] not in taken}
    if mine & taken or batch.unsure or _lets_go(batch):
        return False
    left = tuple(one for one in batch.known.published if (one.zone, one.name) not in taken)
    batch.known = replace(batch.known, published=left)
    return True


def _lets_go(batch: Batch) -> bool:
    """Return whether hosts lose all they have: the brake counts those that are held, which the tables tell of later."""
    if not batch.known.published:
        return False
    left = {one.host for one in batch.desired}
    return any(one.host in batch.hosts and one.host not in left for one in batch.known.published)


def booking(batch: Batch, sent: Sent, plan: Plan, fenced: Callable[[str], bool]) -> Booking:
    """Return what is to be written down. What is unsure in zones that are not `fenced` stays so."""
    undone = {change[:2] for change in plan.changes} - sent.applied
    failed = dict(batch.failed)
    for conflict in plan.conflicts:
        if conflict.host in batch.hosts:
            failed.setdefault(conflict.host, ("conflict", conflict.text))
    waiting: set[str] = set()
    for key, hosts in _hosts_of(undone, plan, batch.known.published).items():
        waiting |= hosts
        if sent.put_off.get(key):
            failed |= {host: ("failed", sent.put_off[key]) for host in hosts if host not in failed}
    in_batch = {one.uuid for one in batch.due}
    return Booking(
        contributions=_news(batch, plan, undone),
        had=frozenset((one.zone, one.name) for one in batch.known.published),
        settled=frozenset(
            (sent.settled & batch.known.unsure)
            | {one for one in batch.unsure if one[:2] not in undone and fenced(one[0])}
        ),
        sending=() if sent.is_unknown else tuple(batch.sending),
        done=tuple(one for one in batch.due if one.uuid not in failed and one.uuid not in waiting),
        failed=failed,
        batch=batch.due,
        robbed=tuple(one for one in plan.conflicts if one.host and one.host not in in_batch),
        adopted=frozenset(batch.known.adopted & sent.applied),
        frees=any(change.deletes and change.key in sent.applied for change in plan.changes),
        traces=tuple(sent.traces),
    )


def _news(batch: Batch, plan: Plan, undone: set[Key]) -> dict[Key, tuple[Contribution, ...]]:
    """Return the names whose contributions are others than the table says."""
    before: dict[Key, list[Contribution]] = {}
    for one in batch.known.published:
        before.setdefault((one.zone, one.name), []).append(one)
    foreign = {key for key, standing in batch.standing.items() if standing is Standing.FOREIGN}
    now = {key: () if key in foreign else found for key, found in plan.contributions.items() if key not in undone}
    return {key: found for key, found in now.items() if tuple(sorted(before.get(key, ()))) != found}


def orphan_triples(orphan: Triple) -> list[Triple]:
    """Return an orphan's record sets one by one."""
    zone, name, types = orphan
    return [(zone, name, rdtype) for rdtype in types.split(",")]


def _is_of(due: Due, change: Change) -> bool:
    return due.uuid in change.hosts or (due.orphan is not None and due.orphan[:2] == change.key)


def _hosts_of(keys: set[Key], plan: Plan, published: tuple[Contribution, ...]) -> dict[Key, set[str]]:
    found = {key: {one.host for one in plan.contributions.get(key, ())} for key in keys}
    for one in published:
        if (one.zone, one.name) in found:
            found[one.zone, one.name].add(one.host)
    return found
