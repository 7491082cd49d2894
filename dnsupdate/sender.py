"""The sender of one target: get the lease, do the work while it lasts, rest, for ever.

Who may send is a row in the database; what was sent by a former sender is told apart by the fence in the zone. All
processes of a site may run a sender for each target: one of them works, the others wait for its lease to end.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dnsupdate.booking import Lease
from dnsupdate.diagnosis import Diagnosis
from dnsupdate.errors import LeaseLostError, StoreError
from dnsupdate.settings import TargetSettings
from dnsupdate.store import Store

logger = logging.getLogger(__name__)
OTHER_SENDS, NOT_DESIGNATED = "another process is the sender", "not designated"


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `lease` is the one to go on with; `busy`: there may be more to do at once.

    `trouble` concerns the whole target: rest before the next step, the longer the oftener it happened.
    """

    text: str
    lease: Lease
    busy: bool = False
    trouble: Diagnosis | None = None


class Work(Protocol):
    """What a sender does while it has the lease."""

    async def begin(self, lease: Lease, state: dict[str, Any]) -> None:
        """Start over: `state` is what former senders remembered of the server."""
        ...

    async def step(self, lease: Lease) -> Step:
        """Do one batch, or look around when there is none."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class Waker(Protocol):
    """Says that there may be something to do; the poll interval is what counts."""

    async def wait(self, seconds: float) -> None:
        """Return after that time, or sooner."""
        ...


@dataclass(slots=True)
class Status:
    """What this process knows about its sender, for `status` and metrics. `idle`: with the lease it found all done."""

    leads: bool = False
    idle: bool = False
    epoch: int = 0
    text: str = "starting"
    error: str | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderConfig:
    """Whose sender. `designation`: for a directory; the epoch with which this node is designated, None: it is not."""

    target: str
    settings: TargetSettings
    holder: str
    designation: Callable[[], int | None] | None = None


class Sender:
    """One target's sender in this process. `run()` ends only by cancellation, and then gives the lease up."""

    def __init__(
        self,
        config: SenderConfig,
        *,
        store: Store,
        work: Work,
        waker: Waker,
        random: Callable[[], float],
    ) -> None:
        self.status = Status()
        self._target, self._settings, self._holder = config.target, config.settings, config.holder
        self._designation = config.designation
        self._store, self._work, self._waker, self._random = store, work, waker, random
        self._lease: Lease | None = None
        self._has_told = False  # the tables speak of trouble, this process's or that of a former sender

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            await self._register()
            while True:
                delay_s = await self.cycle()
                if delay_s > 0:
                    await self._waker.wait(delay_s)
        finally:
            await self._stop()

    async def _register(self) -> None:
        while True:
            try:
                await self._store.register(self._target, self._settings.kind)
            except StoreError as exc:
                await self._waker.wait(self._failed(str(exc)))
            else:
                return

    async def _stop(self) -> None:
        lease, self._lease = self._lease, None
        await self._work.close()
        if lease is not None:
            with suppress(StoreError):
                await self._store.give_up(lease)

    async def cycle(self) -> float:
        """Do one thing; return how many seconds to rest at most."""
        try:
            return await self._cycle()
        except LeaseLostError as exc:
            self._lease = None
            self.status.leads = self.status.idle = False
            self.status.text = str(exc)
            logger.warning("lost the lease", extra={"action": "lease-lost", "target": self._target})
            return self._settings.poll * self._random()
        except StoreError as exc:
            # The lease may have run out meanwhile; the next renewal will tell.
            return self._failed(str(exc))

    async def _cycle(self) -> float:
        if self._lease is None:
            taken = await self._acquire()
            if taken is None:
                self.status = Status(text=OTHER_SENDS if self._designation is None else NOT_DESIGNATED)
                return self._settings.poll
            self._lease = taken[0]
            self._has_told = bool(taken[1].get("error"))
            self.status = Status(leads=True, epoch=taken[0].epoch, text="has the lease")
            logger.info("took the lease", extra={"action": "lease", "target": self._target, "epoch": self._lease.epoch})
            await self._work.begin(*taken)
        step = await self._work.step(self._lease)
        self._lease = step.lease
        idle = not step.busy and step.trouble is None
        self.status = replace(self.status, epoch=step.lease.epoch, text=step.text, idle=idle)
        if step.trouble is not None:
            await self._tell(step.trouble)
            return self._failed(str(step.trouble))
        if self._has_told:
            await self._store.remember(self._lease, {"error": None})
            self._has_told = False
            await self._store.event(self._target, "recovered", step.text)
        self.status = replace(self.status, error=None, failures=0)
        return 0.0 if step.busy else self._settings.poll

    async def _acquire(self) -> tuple[Lease, dict[str, Any]] | None:
        designation = None
        if self._designation is not None:
            designation = self._designation()
            if designation is None:
                return None
        return await self._store.acquire(self._target, self._holder, self._settings.lease, designation)

    async def _tell(self, trouble: Diagnosis) -> None:
        """Write the target's trouble down once, for all who show it."""
        if self._lease is None or self.status.error == str(trouble):
            return
        error = {"kind": trouble.kind.value, "text": str(trouble)}
        await self._store.remember(self._lease, {"error": error})
        self._has_told = True
        await self._store.event(self._target, trouble.kind.value, str(trouble))

    def _failed(self, text: str) -> float:
        """Return the rest after a failure: doubling, with jitter, at most the longest, for ever."""
        if self.status.error != text:
            logger.error("cannot send", extra={"action": "trouble", "target": self._target, "reason": text})
        failures = self.status.failures + 1
        self.status = replace(self.status, error=text, failures=failures)
        retry = self._settings.retry
        delay_s = min(retry.most, retry.first * 2.0 ** min(failures - 1, 16)) * (0.5 + self._random() / 2)
        # Without a step the lease would run out while the target is away, and the epochs with it.
        return min(delay_s, self._settings.lease / 3) if self._lease is not None else delay_s


class EventWaker:
    """Wakes when an event is set: a NOTIFY came, or a test wants it."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> None:
        """Wait for the event or the time; a nudge during the work before counts too."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()
