"""The fences in the zones of a target: set to our epoch, watched, and read as signs of what happened to a zone."""

import logging
from collections.abc import Callable, Mapping

from dnsupdate.booking import Lease
from dnsupdate.diagnosis import Diagnosis, Kind
from dnsupdate.link import Link, TroubleError
from dnsupdate.store import Store
from dnsupdate.update import Fence, Update, fence_epoch, fence_name, raise_fence

logger = logging.getLogger(__name__)
_ROUNDS = 4


class AheadError(Exception):
    """A zone has a higher fence than ours."""

    def __init__(self, zone: str, epoch: int) -> None:
        super().__init__(zone)
        self.zone, self.epoch = zone, epoch


class Fences:
    """What is known of the fences. A zone without one of ours is not written to.

    `doubt`: called with a zone that was reset to an old copy.
    """

    def __init__(
        self,
        *,
        owner: str,
        holder: str,
        zones: tuple[str, ...],
        link: Link,
        store: Store,
        wall: Callable[[], str],
        doubt: Callable[[str], None],
    ) -> None:
        self._owner, self._holder, self._zones = owner, holder, zones
        self._link, self._store, self._wall, self._doubt = link, store, wall, doubt
        self._set: dict[str, Fence] = {}
        self._epochs: dict[str, int] = {}  # the highest that is known to have been in a zone
        self._stopped: dict[str, tuple[Diagnosis, float]] = {}

    def begin(self, epochs: Mapping[str, int]) -> None:
        """Forget; take over what former senders saw."""
        self._set.clear()
        self._stopped.clear()
        self._epochs = dict(epochs)

    def clear(self) -> None:
        """The epoch is another: every zone needs its fence anew."""
        self._set.clear()

    def __contains__(self, zone: object) -> bool:
        return zone in self._set

    def __getitem__(self, zone: str) -> Fence:
        return self._set[zone]

    def zones(self) -> list[str]:
        """Return the zones that can be written to."""
        return list(self._set)

    def name(self, zone: str) -> str:
        """Return the name of a zone's fence."""
        return fence_name(self._owner, zone)

    def stop(self, zone: str, diagnosis: Diagnosis, until: float) -> None:
        """Leave a zone alone for a while; the others go on."""
        self._set.pop(zone, None)
        self._stopped[zone] = (diagnosis, until)

    def why_stopped(self, zone: str) -> str:
        """Return why a zone is left alone."""
        found = self._stopped.get(zone)
        return str(found[0]) if found else ""

    async def set_all(self, lease: Lease, *, now: float, pause_s: float) -> None:
        """Set the fence of every zone that has none of ours; zones with trouble of their own are stopped for a while.

        Raises:
            AheadError: a zone has a higher one.
            TroubleError: the target as a whole cannot be worked on.
        """
        for zone in self._zones:
            stopped = self._stopped.get(zone)
            if zone in self._set or (stopped is not None and stopped[1] > now):
                continue
            try:
                await self.set(lease, zone)
            except TroubleError as exc:
                diagnosis = await self._ask_again(zone, exc.diagnosis)
                if diagnosis.kind not in (Kind.ZONE, Kind.REFUSED):
                    raise TroubleError(diagnosis) from None
                self.stop(zone, diagnosis, now + pause_s)
                await self._store.event(lease.target, diagnosis.kind.value, str(diagnosis))
            else:
                self._stopped.pop(zone, None)

    async def _ask_again(self, zone: str, diagnosis: Diagnosis) -> Diagnosis:
        """A refused question says less than a refused update: ask again with one that changes nothing."""
        if diagnosis.kind is not Kind.REFUSED:
            return diagnosis
        (reply,) = await self._link.update(Update(zone))
        return diagnosis if reply.diagnosis.is_applied else reply.diagnosis

    async def set(self, lease: Lease, zone: str) -> None:
        """Set the fence of a zone to our epoch.

        Raises:
            AheadError: the zone has a higher one.
            TroubleError: it cannot be set.
        """
        fence = Fence(owner=self._owner, epoch=lease.epoch, holder=self._holder, since=self._wall())
        for left in reversed(range(_ROUNDS)):
            (found,) = await self._link.read((self.name(zone), "TXT"))
            epoch = max((fence_epoch(text) or 0 for text in found), default=0)
            if epoch >= lease.epoch:
                raise AheadError(zone, epoch)
            await self._notice_reset(lease, zone, epoch, is_there=bool(found))
            (reply,) = await self._link.update(raise_fence(zone, found, fence))
            if reply.diagnosis.is_applied:
                self._set[zone] = fence
                self._epochs[zone] = lease.epoch
                await self._store.remember(lease, {"epochs": self._epochs})
                return
            if reply.diagnosis.kind is not Kind.PREREQUISITE or not left:
                raise TroubleError(reply.diagnosis)

    async def _notice_reset(self, lease: Lease, zone: str, epoch: int, *, is_there: bool) -> None:
        """A fence that vanished or went back: somebody put an old copy of the zone in place."""
        known = self._epochs.get(zone, 0)
        if not known or (is_there and epoch >= known):
            return
        there = f"its fence has epoch {epoch} instead of {known}" if is_there else "its fence is gone"
        text = f"zone {zone} at {self._link.server} was reset to an old copy ({there}); sending all again"
        logger.warning("zone was reset", extra={"action": "zone-reset", "target": lease.target, "zone": zone})
        await self._store.doubt_zone(lease, zone)
        await self._store.event(lease.target, "zone-reset", text)
        self._epochs.pop(zone, None)
        self._doubt(zone)

    async def is_ours(self, zone: str) -> bool:
        """Ask the server whether the fence is still as we set it."""
        (found,) = await self._link.read((self.name(zone), "TXT"))
        return self.judge(zone, found)

    def judge(self, zone: str, found: tuple[str, ...]) -> bool:
        """Return whether what was found is our fence; if not, the zone needs it anew."""
        if found == (self._set[zone].text(),):
            return True
        del self._set[zone]
        return False
