"""What version each node runs, read from a document that it serves, and the accepted one, remembered."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from balancer.control.events import EventLog
from balancer.control.probe import lookup
from balancer.control.statefile import StateFile
from balancer.core import versions as rules
from balancer.errors import StateError


class Nodes(Protocol):
    """Where to say which nodes differ, and what is known of them."""

    def set_differs(self, name: str, *, differs: bool, why: str) -> None:
        """Say whether a node's version differs where it must not."""

    def readings(self, versions: Mapping[str, str]) -> dict[str, rules.Reading]:
        """Return what is known of every node, in configured order."""
        ...


class Versions:
    """Keeps the readings and the accepted version. `is_suspended`: an upgrade is mixing them on purpose."""

    def __init__(self, file: StateFile, events: EventLog) -> None:
        self._file = file
        self._events = events
        self._read: dict[str, str] = {}
        self._unsaved = asyncio.Event()
        self.accepted = ""
        self.allow_mixed = False
        self.is_suspended = False

    async def load(self) -> None:
        """Take over what was accepted before."""
        loaded = await asyncio.to_thread(self._file.load)
        accepted = (loaded.document or {}).get("accepted", "")
        self.accepted = accepted if isinstance(accepted, str) else ""
        if loaded.damage:
            text = f"the accepted version cannot be read and is found anew: {loaded.damage}"
            self._events.add("version-unreadable", text, level="warning")

    def of(self, name: str) -> str:
        """Return the version of a node, "" while it is unknown."""
        return self._read.get(name, "")

    def note(self, name: str, version: str, nodes: Nodes) -> None:
        """Take a reading and judge all nodes again."""
        old = self._read.get(name, "")
        self._read[name] = version
        if old and version and old != version:
            self._events.add("node-version", f"{name} runs {version} (was {old})", node=name)
        self.judge(nodes)

    def judge(self, nodes: Nodes) -> None:
        """Find the accepted version and tell which nodes differ from it."""
        readings = nodes.readings(self._read)
        self._read = {name: version for name, version in self._read.items() if name in readings}
        mixed = self.allow_mixed or self.is_suspended
        found = rules.judge(self.accepted, readings, allow_mixed=mixed)
        if found.remember:
            self.accepted = found.accepted
            self._events.add("version-accepted", f"version {found.accepted} is the accepted one: {found.reason}")
            self._unsaved.set()
        for name, reading in readings.items():
            differs = name in found.differing
            why = f"runs {reading.version}, the accepted version is {found.accepted}" if differs else "version agrees"
            nodes.set_differs(name, differs=differs, why=why)

    async def run(self) -> None:
        """Write the accepted version whenever it moved, until cancelled."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await asyncio.to_thread(self._file.save, {"accepted": self.accepted})
            except StateError as exc:  # it is found anew after a restart: worth a word, not worth stopping for
                self._events.add("version-unsaved", str(exc), level="warning")


def identity(document: Any, members: Sequence[str]) -> str:
    """Return what tells one version from another: the named members that a document has, as text."""
    found = [(name, lookup(document, name)) for name in members]
    return " ".join(f"{name}={value}" for name, value in found if isinstance(value, str | int) and value != "")
