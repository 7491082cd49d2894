"""Reading the configuration: at the start, and again when asked; a bad file changes nothing."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from balancer.config.diff import differences
from balancer.config.errors import Fault, Severity, as_text
from balancer.config.file import Loaded, load
from balancer.config.rules.runtime import shadowed
from balancer.control.events import EventLog
from balancer.control.overlay import overlay
from balancer.control.publisher import PublishError
from balancer.control.site import Clock, Current, Site, fingerprint
from balancer.control.statefile import Disk
from balancer.errors import BalanceError, ConfigError


class InvalidConfigError(ConfigError):
    """The file cannot be used. `faults` are all of them, `report` shows them with their places."""

    def __init__(self, path: Path, faults: tuple[Fault, ...], report: str) -> None:
        count = len(faults)
        super().__init__(f"{path} has {count} error{'' if count == 1 else 's'}")
        self.path, self.faults, self.report = path, faults, report


@dataclass(frozen=True, slots=True)
class LastReload:
    """How the newest reading went."""

    ok: bool
    at: datetime
    faults: tuple[Fault, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A reading that succeeded."""

    changes: tuple[str, ...]
    warnings: tuple[Fault, ...]


class Reader:
    """Reads one file for one site; one reading at a time."""

    def __init__(
        self, site: Site, path: Path, events: EventLog, clock: Clock, *, last_good: Path | None = None
    ) -> None:
        """`last_good`: where a copy of what is in use is kept, for a control process that starts over a bad file."""
        self._site = site
        self._path = path
        self._last_good = last_good
        self._data = b""
        self._events = events
        self._clock = clock
        self._lock = asyncio.Lock()
        self.last: LastReload | None = None

    async def reload(self, actor: str, *, dry_run: bool = False) -> Reloaded:
        """Read the file again and run on it. Raises ConfigError or PublishError with nothing changed.

        `dry_run` only says what would change.
        """
        async with self._lock:
            try:
                done = await self._reload(actor, dry_run=dry_run)
            except BalanceError as exc:
                if not dry_run:
                    self._failed(exc, actor)
                raise
            if not dry_run:
                self.last = LastReload(ok=True, at=self._clock.now())
            return done

    async def _reload(self, actor: str, *, dry_run: bool) -> Reloaded:
        loaded, current = await self.read()
        running = self._site.current
        changes = tuple(map(str, differences(running.config, loaded.config))) if running else ()
        if not dry_run:
            await self._site.use(current)
            await self.keep()
            text = "; ".join(changes) if changes else "nothing changed"
            self._events.add("config-reloaded", f"configuration {current.sha256[:8]} in use: {text}", actor=actor)
        intents = self._site.intents
        names = {intent.node for intent in intents}
        forgotten = shadowed(loaded.config, overlay(intents, done=names, holders={}, monotonic=self._clock.at))
        return Reloaded(changes, loaded.also(forgotten).warnings)

    async def read(self) -> tuple[Loaded, Current]:
        """Read and check the file. Raises InvalidConfigError with all its faults."""
        loaded, data = await asyncio.to_thread(_read, self._path)
        self._data = data
        if not loaded.is_valid:
            errors = tuple(fault for fault in loaded.faults if fault.severity is Severity.ERROR)
            raise InvalidConfigError(self._path, errors, as_text(errors, loaded))
        return loaded, Current(loaded.require(), self._path, fingerprint(data), self._clock.now())

    async def read_last_good(self, refused: BalanceError) -> tuple[Loaded, Current]:
        """Return what was in use before a control process died over a file that cannot be used.

        Raises `refused` when there is no such copy.
        """
        if self._last_good is None or not await asyncio.to_thread(self._last_good.is_file):
            raise refused
        loaded, data = await asyncio.to_thread(_read, self._last_good)
        if not loaded.is_valid:
            raise refused
        self._failed(refused, "start")
        return loaded, Current(loaded.require(), self._path, fingerprint(data), self._clock.now())

    async def keep(self) -> None:
        """Keep a copy of what was read last and is in use. Without room for it everything goes on."""
        if self._last_good is None:
            return
        try:
            await asyncio.to_thread(_keep, self._last_good, self._data)
        except OSError as exc:
            self._events.add("last-good-failed", f"{self._last_good}: {exc.strerror}", level="warning")

    def _failed(self, exc: BalanceError, actor: str) -> None:
        faults = exc.faults if isinstance(exc, InvalidConfigError) else ()
        self.last = LastReload(ok=False, at=self._clock.now(), faults=faults, error=str(exc))
        kind = "reload-refused" if not isinstance(exc, PublishError) else "reload-failed"
        self._events.add(kind, str(exc), actor=actor, level="error")


def _read(path: Path) -> tuple[Loaded, bytes]:
    loaded = load(path)
    try:
        return loaded, path.read_bytes()
    except OSError:
        return loaded, b""


def _keep(path: Path, data: bytes) -> None:
    disk, fresh = Disk(), path.with_suffix(".new")
    disk.write(fresh, data)
    disk.replace(fresh, path)


def fault_document(fault: Fault) -> dict[str, Any]:
    """Return the JSON form of a fault."""
    return {
        "path": fault.path,
        "message": fault.message,
        "hint": fault.hint,
        "line": fault.span.line if fault.span else None,
        "column": fault.span.column if fault.span else None,
    }
