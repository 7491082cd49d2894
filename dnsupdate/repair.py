"""Keeps copies of the zones and compares them with the table; what differs is sent again."""

import asyncio
import logging
from collections.abc import Callable

from dnsupdate.booking import Lease
from dnsupdate.both import leased
from dnsupdate.exchange import Peer
from dnsupdate.link import Link
from dnsupdate.plan import Policy
from dnsupdate.reconcile import compare
from dnsupdate.records import Contribution
from dnsupdate.store import Store
from dnsupdate.transfer import Content, Mirror, TransferError
from dnsupdate.update import marker_name

logger = logging.getLogger(__name__)
_QUESTIONS = 500
_SHOWN = 20


class Repair:
    """The second line of defence. `types`: record types that templates can make."""

    def __init__(
        self,
        *,
        zones: tuple[str, ...],
        policy: Policy,
        types: Callable[[], frozenset[str]],
        link: Link,
        transfer_peers: tuple[Peer, ...],
        store: Store,
    ) -> None:
        self._policy, self._types, self._link = policy, types, link
        self._transfer_peers, self._store = transfer_peers, store
        self._mirrors = {zone: Mirror(zone) for zone in zones}
        self._at: dict[str, float] = {}
        self._unmirrored: set[str] = set()

    def begin(self) -> None:
        """Compare everything soon."""
        self._at.clear()

    def doubt(self, zone: str) -> None:
        """The zone is another one than we copied."""
        self._mirrors[zone].forget()
        self._at.pop(zone, None)

    async def due(self, lease: Lease, zones: list[str], *, now: float, interval_s: float) -> None:
        """Compare the zones whose turn it is."""
        for zone in zones:
            last = self._at.get(zone)
            if last is None or now - last >= interval_s:
                await self.compare(lease, zone, now=now)

    async def compare(self, lease: Lease, zone: str, *, now: float) -> None:
        """Compare a zone with the table; note what differs as unsure, and orphans as hosts to be looked at.

        A large zone takes longer than a lease lasts, so it is renewed meanwhile.
        """
        await leased(self._store, lease, self._compare(lease, zone, now=now))

    async def _compare(self, lease: Lease, zone: str, *, now: float) -> None:
        self._at[zone] = now
        published, unsure = await self._store.zone(lease, zone)
        try:
            peer = self._link.pick(self._transfer_peers)
            content: Content = await self._mirrors[zone].refresh(peer, timeout_s=peer.timeout_s)
        except TransferError as exc:
            content = await self._by_questions(lease, zone, published, exc)
        findings = await asyncio.to_thread(compare, zone, content, published, unsure, self._policy, self._types())
        if findings.drifted:
            await self._store.note_unsure(lease, findings.drifted)
        if findings.orphans:
            await self._store.note_orphans(lease, findings.orphans)
        if findings.texts:
            await self._store.event(lease.target, "drift", f"zone {zone}: {'; '.join(findings.texts[:_SHOWN])}")
        await self._store.renew(lease)

    async def _by_questions(
        self, lease: Lease, zone: str, published: tuple[Contribution, ...], exc: TransferError
    ) -> Content:
        """Ask for each name instead of the whole zone; what we lost track of cannot be found that way."""
        if zone not in self._unmirrored:
            self._unmirrored.add(zone)
            text = f"zone {zone} cannot be transferred ({exc}): names that we lost track of will never be deleted"
            logger.warning("no transfer", extra={"action": "no-transfer", "target": lease.target, "zone": zone})
            await self._store.event(lease.target, "no-transfer", text)
        wanted = sorted({(one.name, one.rdtype) for one in published})
        if self._policy.ownership == "txt":
            wanted += sorted({(marker_name(one.name), "TXT") for one in published})
        content: dict[str, dict[str, tuple[int, frozenset[str]]]] = {}
        for start in range(0, len(wanted), _QUESTIONS):
            part = wanted[start : start + _QUESTIONS]
            for (name, rdtype), reply in zip(part, await self._link.ask(*part), strict=True):
                if reply.answer is not None and reply.answer.data(rdtype):
                    found = reply.answer.ttl(rdtype), frozenset(reply.answer.data(rdtype))
                    content.setdefault(name, {})[rdtype] = found
            await self._store.renew(lease)
        return content
