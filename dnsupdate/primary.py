"""The work of a sender whose target is an authoritative primary: fence, repair, batches.

The order that makes it safe: the record sets that a message may change are written down as unsure before it leaves;
after an answer that leaves open whether it was applied, the fence is raised before anything else is sent.

While the server works on a batch, the one before is booked and the next are planned, if they have no name in common.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from dnsupdate.ahead import Ahead, Ready, begun
from dnsupdate.batch import Batch, Sent, apart, booking, prepare
from dnsupdate.booking import Booking, Lease, Trace, Triple
from dnsupdate.both import both
from dnsupdate.diagnosis import Diagnosis, Kind
from dnsupdate.errors import DnsUpdateError
from dnsupdate.exchange import Channel, Peer, Reply
from dnsupdate.fences import AheadError, Fences
from dnsupdate.link import Link, TroubleError
from dnsupdate.message import TooBigError, write_ahead
from dnsupdate.plan import Change, Guard, Key, Plan, Policy, RRset, Standing
from dnsupdate.records import Renderer
from dnsupdate.repair import Repair
from dnsupdate.sender import Step
from dnsupdate.settings import TargetSettings
from dnsupdate.store import Store
from dnsupdate.update import Update, apply_changes, marker_name, marker_text, probe

_ROUNDS = 6  # of learning whose names are whose, before the rest waits for the next step
_SLOW_S, _QUICK_S, _LEAST_BATCH = 2.0, 0.5, 10

Part = tuple[Change, ...]  # the changes of one message


class Observer(Protocol):
    """Gets the numbers."""

    def exchanged(self, target: str, zone: str, server: str, rcode: str, seconds: float) -> None:
        """An UPDATE ended."""
        ...

    def published(self, target: str, records: int) -> None:
        """So many record sets were changed and confirmed."""
        ...

    def serial(self, target: str, zone: str, server: str, serial: int) -> None:
        """The zone's serial, as seen."""
        ...


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
    """One authoritative primary and the zones that we write at it. `clock`: monotonic; `wall`: the time as text."""

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
        self._observer, self._clock = observer, clock
        self.link = Link(config.peers, connect)
        self.repair = Repair(
            zones=config.zones,
            policy=config.policy,
            types=lambda: renderer.types_of(config.target),
            link=self.link,
            transfer_peers=config.transfer_peers,
            store=store,
        )
        self.fences = Fences(
            owner=config.policy.owner,
            holder=config.holder,
            zones=config.zones,
            link=self.link,
            store=store,
            wall=wall,
            doubt=self.repair.doubt,
        )
        self._serials: dict[str, int] = {}
        self._gone: set[str] = set()  # hosts that lost all their records since there was last nothing to do
        self._size = config.settings.batch
        self._ahead = Ahead(self._prepare)
        self._unbooked: tuple[Ready, Booking] | None = None

    async def close(self) -> None:
        """Close the connection; nothing more is made ready."""
        await self._ahead.close()
        await self.link.close()

    async def begin(self, lease: Lease, state: dict[str, Any]) -> None:
        """Forget what this process believed; take over what former senders saw of the zones."""
        self.fences.begin({zone: int(epoch) for zone, epoch in (state.get("epochs") or {}).items()})
        self.repair.begin()
        self._serials.clear()
        await self._ahead.drop()
        await self._store.warm_up(lease.target)
        self._unbooked = None  # what is not booked is unsure, and so is looked at again
        if state.get("fingerprint") != self._config.fingerprint:
            await self._store.mark_all(lease)
            await self._store.remember(lease, {"fingerprint": self._config.fingerprint})

    async def step(self, lease: Lease) -> Step:
        """Fence what is not fenced, repair what is due, send one batch; or see that all is as it should be."""
        settings = self._config.settings
        try:
            await self.fences.set_all(lease, now=self._clock(), pause_s=settings.retry.most)
            zones = self.fences.zones()
            await self.repair.due(lease, zones, now=self._clock(), interval_s=settings.reconcile)
            return await self._batch(lease)
        except AheadError as exc:
            await self._ahead.drop()
            return await self._overtaken(lease, exc)
        except TroubleError as exc:
            await self._ahead.drop()
            return await self._trouble(lease, exc.diagnosis)
        except DnsUpdateError:
            await self._ahead.drop()
            raise

    async def _overtaken(self, lease: Lease, exc: AheadError) -> Step:
        """A higher fence than ours, while the lease is ours: the database went back, or there are two of them."""
        above = await self._store.raise_epoch(lease, above=exc.epoch)
        self.fences.clear()
        text = (
            f"zone {exc.zone} had a fence with epoch {exc.epoch}, ours was {lease.epoch}: the database was restored "
            f"from an older copy, or another uses the owner {self._config.policy.owner}; going on with {above.epoch}"
        )
        await self._store.event(self._config.target, "fence-ahead", text)
        return Step(text, above, busy=True)

    async def _trouble(self, lease: Lease, diagnosis: Diagnosis) -> Step:
        """Rest; first make sure that nothing sent so far can be applied behind our back."""
        await self.link.turn()
        if not diagnosis.surely_not_applied:
            lease = await self._store.raise_epoch(lease)
            self.fences.clear()
        return Step(str(diagnosis), lease, trouble=diagnosis)

    async def _idle(self, lease: Lease) -> Step:
        """Nothing to send: see that fences and serials are as we left them."""
        self._gone.clear()
        zones = self.fences.zones()
        questions = [(self.fences.name(zone), "TXT") for zone in zones]
        found = await self.link.read(*questions, *((zone, "SOA") for zone in zones))
        for zone, fence, soa in zip(zones, found[: len(zones)], found[len(zones) :], strict=True):
            if not self.fences.judge(zone, fence):
                return Step(f"the fence of zone {zone} is not ours any more", lease, busy=True)
            serial = int(soa[0].split()[2]) if soa else 0
            self._observer.serial(self._config.target, zone, self.link.server, serial)
            if self._serials.setdefault(zone, serial) != serial:
                self._serials[zone] = serial
                await self.repair.compare(lease, zone, now=self._clock())
        await self._store.renew(lease)
        return Step("all is published", lease)

    async def _batch(self, lease: Lease) -> Step:
        ready = await self._ahead.take()
        if ready is None:
            await self._settle(lease)
            ready = await self._prepare(lease, [])
        if ready is None:
            return await self._idle(lease)
        started = self._clock()
        self._ahead.sent(ready)
        self._ahead.fill(lease, self._size)
        (sent, plan), _ = await both(self._converse(lease, ready), self._settle(lease))
        if sent.trouble is not None:
            await self._ahead.drop()
        if sent.is_unknown:
            lease = await self._store.raise_epoch(lease)
            self.fences.clear()
        self._unbooked = ready, booking(ready.batch, sent, plan, lambda zone: zone in self.fences)
        hosts = len(ready.batch.due)
        self._adapt(self._clock() - started, hosts)
        if sent.trouble is not None:
            await self.link.turn()
        if not self._ahead.has_more:
            await self._settle(lease)
        text = f"{len(sent.applied)} names changed for {hosts} hosts"
        return Step(text, lease, busy=sent.trouble is None, trouble=sent.trouble)

    async def _settle(self, lease: Lease) -> None:
        """Book the batch that was sent last."""
        written, self._unbooked = self._unbooked, None
        if written is not None:
            retry = self._config.settings.retry
            await self._store.book(lease, written[1], backoff=(retry.first, retry.most))
            self._ahead.booked(written[0])

    async def _prepare(self, lease: Lease, taken: list[Ready]) -> Ready | None:
        """Return the next batch, while its record sets are being written down as unsure; None: there is none.

        `taken`: batches that are ready, on their way or not booked yet. While there are such, a batch that has a name
        in common with them, needs the server's word or lets hosts go has to wait, and None is returned too.
        """
        hosts = [one.uuid for other in taken for one in other.batch.due]
        names = frozenset(key for other in taken for key in other.keys)
        due = await self._store.due(lease, self._size, hosts)
        batch = await prepare(self._store, lease.target, due, self._renderer.render)
        if taken and not apart(batch, names):
            return None
        if not due and not batch.unsure:
            return None
        if not taken:
            await self._read_standings(batch, {key[:2] for key in batch.unsure if key[0] in self.fences})
        plan = self._plan(batch)
        keys = frozenset(plan.contributions)
        if keys & names:
            return None
        return Ready(batch, plan, keys, begun(self._write_down(lease, batch, plan, ahead=bool(taken))))

    async def _write_down(self, lease: Lease, batch: Batch, plan: Plan, *, ahead: bool) -> None:
        triples = {one for one in _triples(plan.changes) if one[0] in self.fences}
        await both(self._note(lease, batch, triples, ahead=ahead), self._write_ahead(batch, plan.changes))

    async def _write_ahead(self, batch: Batch, changes: Iterable[Change]) -> None:
        """Write the messages while the server and the disk are busy: they wait for nothing then."""
        for part in self._parts(changes):
            update = self._message(batch, part)
            with suppress(TooBigError):  # it will be seen to when it is sent
                write_ahead(update)
                batch.written[update.zone] = part, self.fences[update.zone], update

    def _message(self, batch: Batch, part: Part) -> Update:
        zone = part[0].zone
        fence = self.fences[zone]
        written = batch.written.get(zone)
        if written is not None and written[:2] == (part, fence):
            return written[2]
        return apply_changes(zone, part, fence, self._config.policy, self._config.settings.marker_ttl)

    def _parts(self, changes: Iterable[Change]) -> list[Part]:
        """Return the changes in zones that can be written to, by zone."""
        zones = [zone for zone in self._config.zones if zone in self.fences]
        parts = [tuple([change for change in changes if change.zone == zone]) for zone in zones]
        return [part for part in parts if part]

    async def _note(self, lease: Lease, batch: Batch, triples: set[Triple], *, ahead: bool = False) -> None:
        """Write down what a message is about to change."""
        missing = triples - batch.noted
        if missing:
            batch.sending.append(await self._store.note_sending(lease, missing, ahead=ahead))
            batch.noted |= missing

    async def _converse(self, lease: Lease, ready: Ready) -> tuple[Sent, Plan]:
        """Send, and plan and send again until nothing new is learned about whose the names are."""
        await ready.noted
        sent, plan, batch = Sent(), ready.plan, ready.batch
        for _ in range(_ROUNDS):
            sent.put_off.clear()
            sent.again = False
            await self._send(lease, batch, [one for one in plan.changes if one[:2] not in sent.applied], sent)
            if not sent.again or sent.trouble is not None:
                break
            plan = self._plan(batch)
        return sent, plan

    def _plan(self, batch: Batch) -> Plan:
        return batch.plan(self._config.policy, self._config.settings.brake, self._config.target, self._gone)

    async def _send(self, lease: Lease, batch: Batch, changes: list[Change], sent: Sent) -> None:
        """Send changes, one message a zone at once; look closer where a server said no."""
        for change in changes:
            if change.zone not in self.fences:
                sent.refuse([change], self.fences.why_stopped(change.zone))
        queue = self._parts(changes)
        refusals = 0
        while queue and sent.trouble is None:
            parts, queue = queue, []
            if any(part != batch.written.get(part[0].zone, ((),))[0] for part in parts):  # those are noted
                await self._note(lease, batch, {triple for part in parts for triple in _triples(part)})
            started = self._clock()
            for part, reply in await self._exchange(batch, parts, queue, sent):
                self._trace(part, reply, self._clock() - started, sent, batch)
                refusals += reply.diagnosis.kind is Kind.REFUSED
                halves = await self._judge(lease, batch, part, reply, sent)
                if halves and not sent.applied and refusals > _patience(len(changes)):
                    sent.refuse(part, str(reply.diagnosis))  # the zone as a whole, not one host of it
                    self.fences.stop(part[0].zone, reply.diagnosis, self._clock() + self._config.settings.retry.most)
                else:
                    queue += halves

    async def _exchange(
        self, batch: Batch, parts: list[Part], queue: list[Part], sent: Sent
    ) -> list[tuple[Part, Reply]]:
        """Send parts as one message each; what does not fit is halved and waits, or refused if it is one name."""
        ready = [part for part in parts if part[0].zone in self.fences]
        try:
            replies = await self.link.update(*(self._message(batch, part) for part in ready))
        except TooBigError as exc:
            if len(ready) > 1:
                return [pair for part in ready for pair in await self._exchange(batch, [part], queue, sent)]
            if len(ready[0]) == 1:
                sent.refuse(ready[0], f"{ready[0][0].name}: {exc} do not fit in one message")
            else:
                queue += _halves(ready[0])
            return []
        return list(zip(ready, replies, strict=True))

    def _trace(self, part: Part, reply: Reply, seconds: float, sent: Sent, batch: Batch) -> None:
        zone, rcode = part[0].zone, reply.diagnosis.seen.rcode or reply.diagnosis.kind.value
        self._observer.exchanged(self._config.target, zone, self.link.server, rcode, seconds)
        self._serials.pop(zone, None)
        due = {one.uuid for one in batch.due}
        hosts = sorted({host for change in part for host in change.hosts if host in due})
        if hosts:
            sent.traces.append(Trace(zone, tuple(hosts), reply.message_id, seconds, rcode))

    async def _judge(self, lease: Lease, batch: Batch, part: Part, reply: Reply, sent: Sent) -> list[Part]:
        """Take note of an answer; return what is to be sent again in smaller messages."""
        diagnosis = reply.diagnosis
        if diagnosis.is_applied:
            sent.applied |= {change[:2] for change in part}
            if batch.unsure or batch.known.unsure:
                triples = _triples(part)
                sent.settled |= triples
                batch.unsure -= triples
            self._observer.published(self._config.target, sum(len(change.after) for change in part))
            return []
        if not diagnosis.surely_not_applied:
            sent.refuse(part, "")
            sent.trouble, sent.is_unknown = diagnosis, True
            return []
        match diagnosis.kind:
            case Kind.PREREQUISITE:
                await self._learn(lease, batch, part, sent)
            case Kind.REFUSED if len(part) > 1:
                return _halves(part)
            case Kind.REFUSED:
                sent.refuse(part, str(diagnosis))
            case Kind.ZONE:
                self.fences.stop(part[0].zone, diagnosis, self._clock() + self._config.settings.retry.most)
                sent.refuse(part, str(diagnosis))
            case _:
                sent.refuse(part, "")
                sent.trouble = diagnosis
        return []

    async def _learn(self, lease: Lease, batch: Batch, part: Part, sent: Sent) -> None:
        """A prerequisite failed: the fence, or whose a name is?"""
        zone = part[0].zone
        if not await self.fences.is_ours(zone):
            await self.fences.set(lease, zone)  # raises when we were overtaken; notices when the zone was reset
            sent.refuse(part, "")  # the tables may say something else now: the next step reads them
            return
        sent.again = True
        suspects: list[Change] = []
        replies = await self.link.update(*(probe(change, self._config.policy) for change in part))
        for change, reply in zip(part, replies, strict=True):
            if reply.diagnosis.kind is Kind.PREREQUISITE:
                suspects.append(change)
            elif not reply.diagnosis.is_applied:
                raise TroubleError(reply.diagnosis)
        await self._read_standings(batch, {change.key for change in suspects})
        for change in suspects:
            if self._config.policy.ownership != "txt":
                batch.standing[change.key] = Standing.FREE
            if batch.standing[change.key] is Standing.FREE and change.guard is not Guard.MARKER:
                batch.standing[change.key] = Standing.FOREIGN
                await self._read_foreign(batch, change)

    async def _read_standings(self, batch: Batch, keys: set[Key]) -> None:
        """Ask the server whose names are; their markers tell."""
        ordered = sorted(keys)
        if self._config.policy.ownership != "txt":
            batch.standing.update(dict.fromkeys(ordered, Standing.OURS))
            return
        mine = (marker_text(self._config.policy.owner),)
        found = await self.link.read(*((marker_name(name), "TXT") for _, name in ordered))
        for key, marker in zip(ordered, found, strict=True):
            batch.standing[key] = Standing.OURS if marker == mine else Standing.FREE

    async def _read_foreign(self, batch: Batch, change: Change) -> None:
        """For mode adopt: what is at a name that is not ours."""
        if self._config.policy.conflict != "adopt":
            return
        replies = await self.link.ask(*((change.name, rrset.rdtype) for rrset in change.after))
        found = [(rrset.rdtype, reply.answer) for rrset, reply in zip(change.after, replies, strict=True)]
        batch.foreign[change.key] = tuple(
            RRset(rdtype, answer.ttl(rdtype), answer.data(rdtype))
            for rdtype, answer in found
            if answer is not None and answer.data(rdtype)
        )

    def _adapt(self, seconds: float, hosts: int) -> None:
        """Batches as large as the server takes in two seconds; PowerDNS on SQLite likes 50, BIND and Knot 250."""
        if seconds > _SLOW_S and hosts > _LEAST_BATCH:
            self._size = max(_LEAST_BATCH, min(self._size, hosts) // 2)
        elif seconds < _QUICK_S and hosts >= self._size:
            self._size = min(self._config.settings.batch, self._size * 2)


def _triples(part: Iterable[Change]) -> set[Triple]:
    return {(change.zone, change.name, rdtype) for change in part for rdtype in change.types}


def _halves(part: Part) -> list[Part]:
    middle = len(part) // 2
    return [half for half in (part[:middle], part[middle:]) if half]


def _patience(changes: int) -> int:
    """How many refusals without any success it takes to believe that the zone as a whole is refused."""
    return 2 * max(1, changes).bit_length()
