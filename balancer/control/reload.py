"""Reading the configuration: at the start, and again when asked; a bad file changes nothing."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from balancer.config.errors import Fault, Loc
from balancer.config.file import Loaded, load
from balancer.config.presets import leaves
from balancer.config.schema import Config
from balancer.control.events import EventLog
from balancer.control.publisher import PublishError
from balancer.control.site import Clock, Current, Site, fingerprint
from balancer.errors import BalanceError, ConfigError


class InvalidConfigError(ConfigError):
    """The file cannot be used. `faults` are all of them."""

    def __init__(self, path: Path, faults: tuple[Fault, ...]) -> None:
        count = len(faults)
        super().__init__(f"{path} has {count} error{'' if count == 1 else 's'}; the running configuration stays")
        self.faults = faults


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

    def __init__(self, site: Site, path: Path, events: EventLog, clock: Clock) -> None:
        self._site = site
        self._path = path
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
        changes = tuple(differences(running.config, loaded.config)) if running else ()
        if not dry_run:
            await self._site.use(current)
            text = "; ".join(changes) if changes else "nothing changed"
            self._events.add("config-reloaded", f"configuration {current.sha256[:8]} in use: {text}", actor=actor)
        return Reloaded(changes, loaded.warnings)

    async def read(self) -> tuple[Loaded, Current]:
        """Read and check the file. Raises InvalidConfigError with all its faults."""
        loaded, data = await asyncio.to_thread(_read, self._path)
        if not loaded.is_valid:
            warnings = set(loaded.warnings)
            raise InvalidConfigError(self._path, tuple(fault for fault in loaded.faults if fault not in warnings))
        return loaded, Current(loaded.require(), self._path, fingerprint(data), self._clock.now())

    def _failed(self, exc: BalanceError, actor: str) -> None:
        faults = exc.faults if isinstance(exc, InvalidConfigError) else ()
        self.last = LastReload(ok=False, at=self._clock.now(), faults=faults, error=str(exc))
        kind = "reload-refused" if not isinstance(exc, PublishError) else "reload-failed"
        self._events.add(kind, str(exc), actor=actor, level="error")


def differences(old: Config, new: Config) -> list[str]:
    """Return a line for each setting that is another one; secrets are named by their place only, so none is shown."""
    before, after = (leaves(config.model_dump(mode="json")) for config in (old, new))
    return [
        f"{_path(loc)}: {before.get(loc, 'nothing')} -> {after.get(loc, 'nothing')}"
        for loc in sorted(before.keys() | after.keys(), key=str)
        if before.get(loc) != after.get(loc)
    ]


def _path(loc: Loc) -> str:
    return ".".join(map(str, loc))


def _read(path: Path) -> tuple[Loaded, bytes]:
    loaded = load(path)
    try:
        return loaded, path.read_bytes()
    except OSError:
        return loaded, b""


def fault_document(fault: Fault) -> dict[str, Any]:
    """Return the JSON form of a fault."""
    return {
        "path": fault.path,
        "message": fault.message,
        "hint": fault.hint,
        "line": fault.span.line if fault.span else None,
        "column": fault.span.column if fault.span else None,
    }
