"""The work of a sender whose target is an authoritative primary: fence, batches, repair.

The order that makes it safe: the record sets that a message may change are written down as unsure before it leaves;
after an answer that leaves open whether it was applied, the fence is raised before anything else is sent.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dnsupdate.diagnosis import Diagnosis, Kind
from dnsupdate.exchange import Channel, Peer, Reply
from dnsupdate.message import TooBigError
from dnsupdate.plan import Change, Conflict, Guard, Key, Plan, Policy, RRset, Standing, State, brake, make
from dnsupdate.reconcile import compare
from dnsupdate.records import Contribution, Renderer
from dnsupdate.sender import Step
from dnsupdate.settings import TargetSettings
from dnsupdate.store import Booking, Due, Known, Lease, Store, Trace, Triple
from dnsupdate.transfer import Mirror, TransferError
from dnsupdate.update import (
    Fence,
    Update,
    apply_changes,
    fence_epoch,
    fence_name,
    marker_name,
    marker_text,
    probe,
    raise_fence,
)

logger = logging.getLogger(__name__)
_ROUNDS = 6  # of learning whose names are whose, before the rest waits for the next step
_FENCE_ROUNDS = 4
_SLOW_S, _QUICK_S, _LEAST_BATCH = 2.0, 0.5, 10
_SHOWN_FINDINGS = 20


class Observer(Protocol):
    """Gets the numbers."""

    def exchanged(self, target: str, zone: str, server: str, rcode: str, seconds: float) -> None:
        """An UPDATE ended."""
        ...

    def published(self, target: str, records: int) -> None:
        """So many records were changed and confirmed."""
        ...

    def serial(self, target: str, zone: str, server: str, serial: int) -> None:
        """The zone's serial, as seen."""
        ...


class _TroubleError(Exception):
    """The target as a whole cannot be worked on now."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


class _AheadError(Exception):
    """A zone has a higher fence than ours."""

    def __init__(self, zone: str, epoch: int) -> None:
        super().__init__(zone)
        self.zone, self.epoch = zone, epoch


@dataclass(slots=True)
class _Batch:
    """Hosts on their way through one step."""

    due: tuple[Due, ...]
    desired: list[Contribution]
    known: Known
    hosts: set[str]
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)  # uuid to (state, error)
    standing: dict[Key, Standing] = field(default_factory=dict)
    foreign: dict[Key, tuple[RRset, ...]] = field(default_factory=dict)
    unsure: set[Triple] = field(default_factory=set)

    def state(self) -> State:
        return State(
            published=self.known.published,
            unsure=frozenset(self.unsure),
            standing=self.standing,
            foreign=self.foreign,
            adopted=self.known.adopted,
        )


@dataclass(slots=True)
class _Sent:
    """What became of the changes of a plan."""

    applied: set[Key] = field(default_factory=set)
    settled: set[Triple] = field(default_factory=set)
    put_off: dict[Key, str] = field(default_factory=dict)  # not done, with the reason; "" when only for later
    again: bool = False
    trouble: Diagnosis | None = None
    is_unknown: bool = False
    traces: list[Trace] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryConfig:
    """What does not change while the process runs."""

    target: str
    settings: TargetSettings
    zones: tuple[str, ...]  # forward ones first
    policy: Policy
    peers: tuple[Peer, ...]
    transfer_peers: tuple[Peer, ...]
    fingerprint: str  # of templates and zones: another one means that all hosts are looked at again
    holder: str


class Primary:
    """One authoritative primary and the zones that we write at it."""

    def __init__(
        self,
        *,
        config: PrimaryConfig,
        renderer: Renderer,
        store: Store,
        connect: Callable[[Peer], Channel],
        observer: Observer,
        clock: Callable[[], float],
        wall: Callable[[], str],
    ) -> None:
        self._config, self._renderer, self._store = config, renderer, store
        self._connect, self._observer, self._clock, self._wall = connect, observer, clock, wall
        self._server = 0
        self._channel: Channel | None = None
        self._fenced: dict[str, Fence] = {}
        self._epochs: dict[str, int] = {}  # the highest fence that is known to have been in a zone
        self._serials: dict[str, int] = {}
        self._mirrors = {zone: Mirror(zone) for zone in config.zones}
        self._unmirrored: set[str] = set()
        self._stopped: dict[str, tuple[Diagnosis, float]] = {}
        self._reconciled_at: dict[str, float] = {}
        self._size = config.settings.batch

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def begin(self, lease: Lease, state: dict[str, Any]) -> None:
        """Forget what this process believed; take over what former senders saw of the zones."""
        self._fenced.clear()
        self._serials.clear()
        self._reconciled_at.clear()
        self._stopped.clear()
        self._epochs = {zone: int(epoch) for zone, epoch in (state.get("epochs") or {}).items()}
        if state.get("fingerprint") != self._config.fingerprint:
            await self._store.mark_all(lease)
            await self._store.remember(lease, {"fingerprint": self._config.fingerprint})

    async def step(self, lease: Lease) -> Step:
        """Fence what is not fenced, repair what is due, send one batch; or see that all is as it should be."""
        try:
            await self._fence_all(lease)
            await self._reconcile_due(lease)
            return await self._batch(lease)
        except _AheadError as exc:
            return await self._overtaken(lease, exc)
        except _TroubleError as exc:
            return await self._trouble(lease, exc.diagnosis)

    async def _overtaken(self, lease: Lease, exc: _AheadError) -> Step:
        """A higher fence than ours, while the lease is ours: the database went back, or there are two of them."""
        above = await self._store.raise_epoch(lease, above=exc.epoch)
        self._fenced.clear()
        text = (
            f"zone {exc.zone} had a fence with epoch {exc.epoch}, ours was {lease.epoch}: the database was restored "
            f"from an older copy, or another uses the owner {self._config.policy.owner}; going on with {above.epoch}"
        )
        await self._store.event(self._config.target, "fence-ahead", text)
        return Step(text, above, busy=True)

    async def _trouble(self, lease: Lease, diagnosis: Diagnosis) -> Step:
        """Rest; first make sure that nothing sent so far can be applied behind our back."""
        self._server += 1
        await self.close()
        if not diagnosis.surely_not_applied:
            lease = await self._store.raise_epoch(lease)
            self._fenced.clear()
        return Step(str(diagnosis), lease, trouble=diagnosis)

    def _peer(self, peers: tuple[Peer, ...]) -> Peer:
        return peers[self._server % len(peers)]

    def _talk(self) -> Channel:
        if self._channel is None:
            self._channel = self._connect(self._peer(self._config.peers))
        return self._channel

    # Fence

    async def _fence_all(self, lease: Lease) -> None:
        now = self._clock()
        for zone in self._config.zones:
            stopped = self._stopped.get(zone)
            if zone in self._fenced or (stopped is not None and stopped[1] > now):
                continue
            try:
                await self._fence(lease, zone)
            except _TroubleError as exc:
                diagnosis = await self._zone_trouble(zone, exc.diagnosis)
                if diagnosis.kind not in (Kind.ZONE, Kind.REFUSED):
                    raise _TroubleError(diagnosis) from None
                # Its hosts fail with this text, the other zones go on.
                self._stopped[zone] = (diagnosis, now + self._config.settings.retry.most)
                await self._store.event(self._config.target, diagnosis.kind.value, str(diagnosis))
            else:
                self._stopped.pop(zone, None)

    async def _zone_trouble(self, zone: str, diagnosis: Diagnosis) -> Diagnosis:
        """A refused question says less than a refused update: ask again with one that changes nothing."""
        if diagnosis.kind is not Kind.REFUSED:
            return diagnosis
        (reply,) = await self._talk().update(Update(zone))
        return diagnosis if reply.diagnosis.is_applied else reply.diagnosis

    async def _fence(self, lease: Lease, zone: str) -> None:
        """Set the fence of a zone to our epoch, unless it is there or a higher one is."""
        policy = self._config.policy
        fence = Fence(owner=policy.owner, epoch=lease.epoch, holder=self._config.holder, since=self._wall())
        for left in reversed(range(_FENCE_ROUNDS)):
            found = await self._read_fence(zone)
            epoch = max((fence_epoch(text) or 0 for text in found), default=0)
            if epoch >= lease.epoch:
                raise _AheadError(zone, epoch)
            await self._notice_reset(lease, zone, found, epoch)
            (reply,) = await self._talk().update(raise_fence(zone, found, fence))
            if reply.diagnosis.is_applied:
                self._fenced[zone] = fence
                self._epochs[zone] = lease.epoch
                self._serials.pop(zone, None)
                await self._store.remember(lease, {"epochs": self._epochs})
                return
            if reply.diagnosis.kind is not Kind.PREREQUISITE or not left:
                raise _TroubleError(reply.diagnosis)

    async def _notice_reset(self, lease: Lease, zone: str, found: tuple[str, ...], epoch: int) -> None:
        """A fence that vanished or went back: somebody put an old copy of the zone in place."""
        known = self._epochs.get(zone, 0)
        if not known or (found and epoch >= known):
            return
        there = f"its fence has epoch {epoch} instead of {known}" if found else "its fence is gone"
        server = self._peer(self._config.peers).name
        text = f"zone {zone} at {server} was reset to an old copy ({there}); sending all again"
        logger.warning("zone was reset", extra={"action": "zone-reset", "target": self._config.target, "zone": zone})
        await self._store.doubt_zone(lease, zone)
        await self._store.event(self._config.target, "zone-reset", text)
        self._epochs.pop(zone, None)
        self._mirrors[zone].forget()
        self._reconciled_at.pop(zone, None)

    async def _read_fence(self, zone: str) -> tuple[str, ...]:
        (found,) = await self._read([(fence_name(self._config.policy.owner, zone), "TXT")], zone)
        return found

    async def _read(self, questions: list[tuple[str, str]], zone: str = "") -> list[tuple[str, ...]]:
        """Return the data at names, as the server itself has it; only signed answers count."""
        replies = await self._talk().query(*questions)
        return [self._data(reply, rdtype, zone) for reply, (_, rdtype) in zip(replies, questions, strict=True)]

    def _data(self, reply: Reply, rdtype: str, zone: str) -> tuple[str, ...]:
        del zone
        answer = reply.answer
        if answer is None or not answer.signed or answer.rcode not in ("NOERROR", "NXDOMAIN"):
            raise _TroubleError(reply.diagnosis)
        return answer.data(rdtype)

    # Repair

    async def _reconcile_due(self, lease: Lease) -> None:
        now = self._clock()
        for zone in list(self._fenced):
            last = self._reconciled_at.get(zone)
            if last is None or now - last >= self._config.settings.reconcile:
                await self._reconcile(lease, zone)

    async def _reconcile(self, lease: Lease, zone: str) -> None:
        """Compare a zone with the table; what differs is unsure from now on, and so is sent again."""
        self._reconciled_at[zone] = self._clock()
        published, unsure = await self._store.zone(lease, zone)
        peer = self._peer(self._config.transfer_peers)
        try:
            content = await self._mirrors[zone].refresh(peer, timeout_s=self._config.settings.lease / 2)
        except TransferError as exc:
            content = await self._by_queries(lease, zone, published, exc)
        findings = compare(
            zone, content, published, unsure, self._config.policy, self._renderer.types_of(self._config.target)
        )
        if findings.drifted:
            await self._store.note_unsure(lease, findings.drifted)
        if findings.orphans:
            await self._store.note_orphans(lease, findings.orphans)
        if findings.texts:
            shown = "; ".join(findings.texts[:_SHOWN_FINDINGS])
            await self._store.event(self._config.target, "drift", f"zone {zone}: {shown}")
        await self._store.renew(lease)

    async def _by_queries(
        self, lease: Lease, zone: str, published: tuple[Contribution, ...], exc: TransferError
    ) -> dict[str, dict[str, tuple[int, frozenset[str]]]]:
        """Ask for each name instead of the whole zone; what we do not know of cannot be found that way."""
        if zone not in self._unmirrored:
            self._unmirrored.add(zone)
            text = f"zone {zone} cannot be transferred ({exc}): names that we lost track of will never be deleted"
            logger.warning("no transfer", extra={"action": "no-transfer", "target": self._config.target, "zone": zone})
            await self._store.event(self._config.target, "no-transfer", text)
        wanted = sorted({(one.name, one.rdtype) for one in published})
        if self._config.policy.ownership == "txt":
            wanted += sorted({(marker_name(one.name), "TXT") for one in published})
        content: dict[str, dict[str, tuple[int, frozenset[str]]]] = {}
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            for (name, rdtype), reply in zip(part, await self._talk().query(*part), strict=True):
                data = self._data(reply, rdtype, zone)
                if data and reply.answer is not None:
                    content.setdefault(name, {})[rdtype] = (reply.answer.ttl(rdtype), frozenset(data))
            await self._store.renew(lease)
        return content

    async def _idle(self, lease: Lease) -> Step:
        """Nothing to send: see that fences and serials are as we left them."""
        zones = list(self._fenced)
        questions = [(fence_name(self._config.policy.owner, zone), "TXT") for zone in zones]
        found = await self._read([*questions, *((zone, "SOA") for zone in zones)])
        for zone, fence, soa in zip(zones, found[: len(zones)], found[len(zones) :], strict=True):
            if fence != (self._fenced[zone].text(),):
                del self._fenced[zone]
                return Step(f"the fence of zone {zone} is not ours any more", lease, busy=True)
            serial = int(soa[0].split()[2]) if soa else 0
            self._observer.serial(self._config.target, zone, self._talk().peer.name, serial)
            if self._serials.setdefault(zone, serial) != serial:
                self._serials[zone] = serial
                await self._reconcile(lease, zone)
        await self._store.renew(lease)
        return Step("all is published", lease)

    # Batches

    async def _batch(self, lease: Lease) -> Step:
        due = await self._store.due(lease, self._size)
        batch = await self._prepare(lease, due)
        if not due and not batch.unsure:
            return await self._idle(lease)
        started = self._clock()
        sent, plan = await self._converse(lease, batch)
        if sent.is_unknown:
            lease = await self._store.raise_epoch(lease)
            self._fenced.clear()
        await self._book(lease, batch, sent, plan)
        self._adapt(self._clock() - started, len(due))
        text = f"{len(sent.applied)} names changed for {len(due)} hosts"
        if sent.trouble is not None:
            self._server += 1
            await self.close()
            return Step(text, lease, trouble=sent.trouble)
        return Step(text, lease, busy=True)

    async def _prepare(self, lease: Lease, due: list[Due]) -> _Batch:
        target = self._config.target
        desired: list[Contribution] = []
        failed: dict[str, tuple[str, str]] = {}
        keeping: set[str] = set()
        for one in due:
            if one.host is None:
                continue
            rendered = self._renderer.render(one.host)
            if rendered.faults:
                failed[one.uuid] = ("failed", "; ".join(str(fault) for fault in rendered.faults[:3]))
                continue
            desired += [found for found in rendered.contributions if found.target == target]
            if rendered.keeps:
                keeping.add(one.uuid)
        hosts = {one.uuid for one in due if one.uuid not in failed}
        orphans = [(*one.orphan, one) for one in due if one.orphan is not None]
        wanted = {(one.zone, one.name) for one in desired} | {(zone, name) for zone, name, _, _ in orphans}
        known = await self._store.known(lease, list(hosts), wanted)
        desired += [kept_of(one) for one in known.published if one.host in keeping and not _covered(one, desired)]
        batch = _Batch(tuple(due), desired, known, hosts, failed, unsure=set(known.unsure))
        for zone, name, types, _ in orphans:
            batch.unsure |= {(zone, name, rdtype) for rdtype in types.split(",")}
        await self._read_standings(batch, {(zone, name) for zone, name, _ in batch.unsure if zone in self._fenced})
        return batch

    async def _read_standings(self, batch: _Batch, keys: Iterable[Key]) -> None:
        """Ask the server whose names are; their markers tell."""
        ordered = sorted(keys)
        if self._config.policy.ownership != "txt":
            batch.standing.update(dict.fromkeys(ordered, Standing.OURS))
            return
        if ordered:
            mine = (marker_text(self._config.policy.owner),)
            found = await self._read([(marker_name(name), "TXT") for _, name in ordered])
            for key, marker in zip(ordered, found, strict=True):
                batch.standing[key] = Standing.OURS if marker == mine else Standing.FREE

    async def _converse(self, lease: Lease, batch: _Batch) -> tuple[_Sent, Plan]:
        """Plan and send until nothing new is learned about whose the names are."""
        sent, plan = _Sent(), self._plan(batch)
        for _ in range(_ROUNDS):
            changes = [change for change in plan.changes if change.key not in sent.applied]
            sent.put_off.clear()
            sent.again = False
            await self._send(lease, batch, changes, sent)
            if not sent.again or sent.trouble is not None:
                break
            plan = self._plan(batch)
        return sent, plan

    def _plan(self, batch: _Batch) -> Plan:
        plan = make(batch.desired, frozenset(batch.hosts), batch.state(), self._config.policy)
        if self._hold(batch, plan):
            plan = make(batch.desired, frozenset(batch.hosts), batch.state(), self._config.policy)
        return plan

    def _hold(self, batch: _Batch, plan: Plan) -> bool:
        """Take hosts out of the batch whose records would all go, if that are too many."""
        left = {one.host for one in batch.desired}
        going = [
            one
            for one in batch.due
            if not one.released
            and one.uuid in batch.hosts
            and one.uuid not in left
            and any(_is_of(one, change) for change in plan.deletions)
        ]
        why = brake(len(going), batch.known.held_hosts, batch.known.published_hosts, self._config.settings.brake)
        if why is None:
            return False
        for one in going:
            batch.hosts.discard(one.uuid)
            batch.failed[one.uuid] = ("held", f"{why}; `arv-balance dns release {self._config.target}` lets it go")
            if one.orphan is not None:
                zone, name, types = one.orphan
                batch.unsure -= {(zone, name, rdtype) for rdtype in types.split(",")}
        return True

    async def _send(self, lease: Lease, batch: _Batch, changes: list[Change], sent: _Sent) -> None:
        """Send changes, one message a zone at once; look closer where a server said no."""
        by_zone: dict[str, list[Change]] = {}
        for change in changes:
            if change.zone in self._fenced:
                by_zone.setdefault(change.zone, []).append(change)
            else:
                stopped = self._stopped.get(change.zone)
                sent.put_off[change.key] = str(stopped[0]) if stopped else ""
        order = [zone for zone in self._config.zones if zone in by_zone]
        queue = [tuple(by_zone[zone]) for zone in order]
        refusals = 0
        while queue and sent.trouble is None:
            parts, queue = queue, []
            fresh = await self._store.note_unsure(
                lease, {(one.zone, one.name, kind) for part in parts for one in part for kind in one.types}
            )
            started = self._clock()
            replies = await self._exchange(parts, sent, queue)
            for part, reply in replies:
                self._trace(part, reply, self._clock() - started, sent, batch)
                refusals += reply.diagnosis.kind is Kind.REFUSED
                halves = await self._judge(lease, batch, part, reply, sent, fresh=fresh)
                queue += halves if refusals <= _patience(len(changes)) or sent.applied else []
                if halves and not queue:
                    sent.trouble = reply.diagnosis

    async def _exchange(
        self, parts: list[tuple[Change, ...]], sent: _Sent, queue: list[tuple[Change, ...]]
    ) -> list[tuple[tuple[Change, ...], Reply]]:
        """Send what fits; what does not is halved and waits."""
        del sent
        updates: list[Update] = []
        fitting: list[tuple[Change, ...]] = []
        for part in parts:
            update = apply_changes(
                part[0].zone, part, self._fenced[part[0].zone], self._config.policy, self._config.settings.marker_ttl
            )
            if fits(update):
                updates.append(update)
                fitting.append(part)
            else:
                queue += _halves(part)
        replies = await self._talk().update(*updates) if updates else []
        return list(zip(fitting, replies, strict=True))

    def _trace(self, part: tuple[Change, ...], reply: Reply, seconds: float, sent: _Sent, batch: _Batch) -> None:
        zone, rcode = part[0].zone, reply.diagnosis.seen.rcode or reply.diagnosis.kind.value
        self._observer.exchanged(self._config.target, zone, self._talk().peer.name, rcode, seconds)
        self._serials.pop(zone, None)
        gens = {one.uuid: one.gen for one in batch.due}
        hosts = {host for change in part for host in change.hosts if host in gens}
        if hosts:
            listed = tuple((host, gens[host]) for host in sorted(hosts))
            sent.traces.append(Trace(zone, listed, reply.message_id, seconds, rcode))

    async def _judge(
        self,
        lease: Lease,
        batch: _Batch,
        part: tuple[Change, ...],
        reply: Reply,
        sent: _Sent,
        *,
        fresh: frozenset[Triple],
    ) -> list[tuple[Change, ...]]:
        """Take note of an answer; return what is to be sent again in smaller messages."""
        diagnosis = reply.diagnosis
        triples = {(one.zone, one.name, kind) for one in part for kind in one.types}
        if diagnosis.is_applied:
            sent.applied |= {change.key for change in part}
            sent.settled |= triples
            batch.unsure -= triples
            self._observer.published(self._config.target, sum(len(change.after) for change in part))
            return []
        if diagnosis.surely_not_applied:
            await self._store.forget_unsure(lease, triples & fresh)
        match diagnosis.kind:
            case Kind.PREREQUISITE:
                await self._learn(lease, batch, part, sent)
            case Kind.REFUSED if len(part) > 1 and diagnosis.surely_not_applied:
                return _halves(part)
            case Kind.REFUSED if diagnosis.surely_not_applied:
                sent.put_off |= {change.key: str(diagnosis) for change in part}
            case Kind.ZONE if diagnosis.surely_not_applied:
                self._stopped[part[0].zone] = (diagnosis, self._clock() + self._config.settings.retry.most)
                self._fenced.pop(part[0].zone, None)
                sent.put_off |= {change.key: str(diagnosis) for change in part}
            case _:
                sent.put_off |= {change.key: "" for change in part}
                sent.trouble = diagnosis
                sent.is_unknown = sent.is_unknown or not diagnosis.surely_not_applied
        return []

    async def _learn(self, lease: Lease, batch: _Batch, part: tuple[Change, ...], sent: _Sent) -> None:
        """A prerequisite failed: the fence, or whose a name is?"""
        zone = part[0].zone
        sent.again = True
        if await self._read_fence(zone) != (self._fenced[zone].text(),):
            del self._fenced[zone]
            await self._fence(lease, zone)  # raises when we were overtaken; notices when the zone was reset
            sent.put_off |= {change.key: "" for change in part}
            sent.again = False  # the tables may say something else now
            return
        replies = await self._talk().update(*(probe(change, self._config.policy) for change in part))
        suspects: list[Change] = []
        for change, reply in zip(part, replies, strict=True):
            if reply.diagnosis.kind is Kind.PREREQUISITE:
                suspects.append(change)
            elif not reply.diagnosis.is_applied:
                raise _TroubleError(reply.diagnosis)
        await self._read_standings(batch, [change.key for change in suspects])
        if self._config.policy.ownership != "txt":
            batch.standing.update({change.key: Standing.FREE for change in suspects})
        for change in suspects:
            if batch.standing[change.key] is Standing.FREE and change.guard is not Guard.MARKER:
                batch.standing[change.key] = Standing.FOREIGN
                await self._read_foreign(batch, change)

    async def _read_foreign(self, batch: _Batch, change: Change) -> None:
        """For mode adopt: what is at a name that is not ours."""
        if self._config.policy.conflict != "adopt":
            return
        replies = await self._talk().query(*((change.name, rrset.rdtype) for rrset in change.after))
        found = []
        for rrset, reply in zip(change.after, replies, strict=True):
            data = self._data(reply, rrset.rdtype, change.zone)
            if data and reply.answer is not None:
                found.append(RRset(rrset.rdtype, reply.answer.ttl(rrset.rdtype), tuple(sorted(data))))
        batch.foreign[change.key] = tuple(found)

    async def _book(self, lease: Lease, batch: _Batch, sent: _Sent, plan: Plan) -> None:
        """Write down what is known now."""
        undone = {change.key for change in plan.changes} - sent.applied
        failed = dict(batch.failed)
        for conflict in plan.conflicts:
            if conflict.host in batch.hosts:
                failed.setdefault(conflict.host, ("conflict", conflict.text))
        waiting: set[str] = set()
        for key, hosts in _hosts_of(undone, plan, batch.known.published).items():
            reason = sent.put_off.get(key, "")
            for host in hosts:
                if reason:
                    failed.setdefault(host, ("failed", reason))
                waiting.add(host)
        before: dict[Key, list[Contribution]] = {}
        for one in batch.known.published:
            before.setdefault((one.zone, one.name), []).append(one)
        foreign = {key for key, standing in batch.standing.items() if standing is Standing.FOREIGN}
        contributions = {
            key: () if key in foreign else found
            for key, found in plan.contributions.items()
            if key not in undone and (key in foreign or tuple(sorted(before.get(key, []))) != found)
        }
        # Unsure names for which there was nothing to do are settled too: nothing is there.
        idle = {triple for triple in batch.unsure if triple[:2] not in undone and triple[0] in self._fenced}
        booking = Booking(
            contributions=contributions,
            settled=frozenset(sent.settled | idle),
            done=tuple(one for one in batch.due if one.uuid not in failed and one.uuid not in waiting),
            failed=failed,
            batch=batch.due,
            robbed=tuple(one for one in plan.conflicts if one.host and one.host not in {due.uuid for due in batch.due}),
            adopted=frozenset(batch.known.adopted & sent.applied),
            frees=any(change.deletes and change.key in sent.applied for change in plan.changes),
            traces=tuple(sent.traces),
        )
        retry = self._config.settings.retry
        await self._store.book(lease, booking, backoff=(retry.first, retry.most))

    def _adapt(self, seconds: float, hosts: int) -> None:
        """Batches as large as the server takes in two seconds; PowerDNS on SQLite likes 50, BIND and Knot 250."""
        if seconds > _SLOW_S and hosts > _LEAST_BATCH:
            self._size = max(_LEAST_BATCH, min(self._size, hosts) // 2)
        elif seconds < _QUICK_S and hosts >= self._size:
            self._size = min(self._config.settings.batch, self._size * 2)


def kept_of(one: Contribution) -> Contribution:
    """Return what stays of an absent host: it gives way to any living one."""
    return Contribution(
        one.target, one.zone, one.name, one.rdtype, one.rdata, one.ttl, one.host, one.gen, one.shared, yields=True
    )


def fits(update: Update) -> bool:
    """Return whether an update fits into one message."""
    from dnsupdate.message import update_wire

    try:
        update_wire(update, 0)
    except TooBigError:
        return False
    return True


def _covered(one: Contribution, desired: list[Contribution]) -> bool:
    return any(found.host == one.host and (found.zone, found.name) == (one.zone, one.name) for found in desired)


def _halves(part: tuple[Change, ...]) -> list[tuple[Change, ...]]:
    middle = len(part) // 2
    return [half for half in (part[:middle], part[middle:]) if half]


def _patience(changes: int) -> int:
    """How many refusals without any success it takes to believe that the zone as a whole is refused."""
    return 2 * max(1, changes).bit_length()


def _is_of(due: Due, change: Change) -> bool:
    return due.uuid in change.hosts or (due.orphan is not None and due.orphan[:2] == change.key)


def _hosts_of(keys: set[Key], plan: Plan, published: tuple[Contribution, ...]) -> Mapping[Key, set[str]]:
    found: dict[Key, set[str]] = {key: set() for key in keys}
    for key in keys:
        found[key] |= {one.host for one in plan.contributions.get(key, ())}
    for one in published:
        if (one.zone, one.name) in found:
            found[one.zone, one.name].add(one.host)
    return found


__all__ = ["Conflict", "Primary", "PrimaryConfig"]
