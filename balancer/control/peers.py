"""Other balancers in front of the same nodes: asked for their status, and compared with ours."""

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from balancer.config.addresses import NodeUrl
from balancer.config.service import Peer
from balancer.control.events import EventLog
from balancer.control.httpclient import NoAnswerError, Target, get
from balancer.control.site import Site

LOOK_S = 3.0
ANSWER_S = 3.0
STATUS_BYTES = 4 << 20
STATUS_PATH = "/v1/status"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one. `fault`: why it cannot be compared; `verdict` and `version` are its own words."""

    name: str
    admin: str = ""  # "": it is not asked
    asked_at: datetime | None = None
    fault: str = ""
    verdict: str = ""
    version: str = ""
    differences: tuple[str, ...] = ()


class Peers:
    """Keeps the newest answer of each; `run` asks."""

    def __init__(
        self,
        *,
        site: Site,
        events: EventLog,
        tokens: Callable[[], Mapping[str, str]],
    ) -> None:
        """`tokens`: by the peers' names."""
        self._site = site
        self._events = events
        self._tokens = tokens
        self._told: dict[str, tuple[str, ...]] = {}
        self.seen: tuple[Seen, ...] = ()

    async def run(self, ours: Callable[[], Document]) -> None:
        """Ask all of them again and again, until cancelled; `ours` is our own status."""
        while True:
            if self._site.is_running:
                configured = self._site.config.peers
                found = await asyncio.gather(*(self._look(*item, ours) for item in configured.items()))
                self._take(found)
            await asyncio.sleep(LOOK_S)

    def documents(self) -> list[Document]:
        """Return what the status says of them."""
        return [
            {
                "name": peer.name,
                "admin": peer.admin,
                "asked_at": peer.asked_at.isoformat() if peer.asked_at else None,
                "fault": peer.fault,
                "verdict": peer.verdict,
                "version": peer.version,
                "differences": list(peer.differences),
            }
            for peer in self.seen
        ]

    def causes(self) -> list[str]:
        """Return a sentence for each thing in which one differs."""
        return [f"peer {peer.name}: {text}" for peer in self.seen for text in self._troubles(peer)]

    async def _look(self, name: str, peer: Peer, ours: Callable[[], Document]) -> Seen:
        if peer.admin is None:
            return Seen(name)
        now = self._site.parts.clock.now()
        try:
            theirs = await self._ask(name, peer.admin)
            differs = tuple(differences(ours(), theirs))
            return Seen(name, peer.admin, now, "", str(theirs["verdict"]), str(theirs["version"]), differs)
        except NoAnswerError as exc:
            return Seen(name, peer.admin, now, f"cannot be asked: {exc}")
        except (KeyError, TypeError, ValueError, AttributeError):
            return Seen(name, peer.admin, now, "its status is not one that this version understands")

    async def _ask(self, name: str, admin: NodeUrl) -> Document:
        """Return its status. Raises NoAnswerError, ValueError."""
        status, body = await get(await self._target(name, admin), timeout_s=ANSWER_S, limit=STATUS_BYTES)
        if status in (401, 403):
            raise NoAnswerError(f"it answers {status}: peers.{name}.token has to be a viewer's there")
        if status != 200:
            raise NoAnswerError(f"it answers {status}")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found

    async def _target(self, name: str, admin: NodeUrl) -> Target:
        parts, token = admin.parts, self._tokens().get(name, "")
        if parts.unix_path:
            return Target("", 0, "localhost", STATUS_PATH, unix_path=parts.unix_path, token=token)
        shown = f"[{parts.host}]" if ":" in parts.host else parts.host
        try:
            found = await asyncio.get_running_loop().getaddrinfo(parts.host, parts.port)
        except OSError as exc:
            raise NoAnswerError(f"its name does not resolve: {exc.strerror or exc}") from exc
        tls = await asyncio.to_thread(_context, self._site.config.tls.ca) if parts.scheme == "https" else None
        return Target(
            str(found[0][4][0]), parts.port, f"{shown}:{parts.port}", STATUS_PATH,
            tls=tls, server_name=parts.host if tls else "", token=token,
        )  # fmt: skip

    def _take(self, found: list[Seen]) -> None:
        """Keep what was found; tell of what lasts longer than one look, so that two drains in a row are no news."""
        before = {peer.name: self._troubles(peer) for peer in self.seen}
        self.seen = tuple(found)
        for peer in found:
            now, told = self._troubles(peer), self._told.get(peer.name, ())
            if now != told and now == before.get(peer.name, ()):
                self._told[peer.name] = now
                text = f"peer {peer.name}: {'; '.join(now)}" if now else f"peer {peer.name} is as this one again"
                self._events.add("peer-differs" if now else "peer-agrees", text, level="warning" if now else "info")

    @staticmethod
    def _troubles(peer: Seen) -> tuple[str, ...]:
        return (peer.fault,) if peer.fault else peer.differences


def _context(ca: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def differences(ours: Document, theirs: Document) -> Iterator[str]:
    """Yield in words in what another balancer's status is not as ours. Raises what a foreign document makes it raise.

    What may differ is not among it: addresses to listen on, traffic, workers.
    """
    if ours["cluster"] != theirs["cluster"]:
        yield f"it is in front of another cluster, {theirs['cluster']}"
        return
    if ours["version"] != theirs["version"]:
        yield f"arv-balance is {ours['version']} here, {theirs['version']} there"
    yield from _pauses(ours["pause"], theirs["pause"])
    yield from _nodes(ours, theirs)
    yield from _designations(ours["designations"], theirs["designations"])


def _pauses(here: Document | None, there: Document | None) -> Iterator[str]:
    if here and not there:
        yield "traffic is paused here, not there"
    elif there and not here:
        yield f"traffic is paused there by {there['who']}, not here"


def _nodes(ours: Document, theirs: Document) -> Iterator[str]:
    here, there = ({node["name"]: node for node in status["nodes"]} for status in (ours, theirs))
    gone_here, gone_there = set(ours["removed"]), set(theirs["removed"])
    for name in sorted((here.keys() | there.keys() | gone_here | gone_there) - (gone_here & gone_there)):
        states = [
            _word(name, nodes, gone) for nodes, gone in ((here, gone_here), (there, gone_there))
        ]  # fmt: skip
        if states[0] != states[1]:
            yield f"{name} is {states[0]} here, {states[1]} there"
        elif name in here and name in there and here[name]["address"] != there[name]["address"]:
            yield f"{name} is at {here[name]['address']} here, at {there[name]['address']} there"


def _word(name: str, nodes: Mapping[str, Document], removed: set[str]) -> str:
    """Return a node's state as far as balancers should agree on it: one that drains is as one that has."""
    if name in removed:
        return "removed"
    if name not in nodes:
        return "unknown"
    node = nodes[name]
    return "drained" if node["admin"] != "enabled" else str(node["health"])


def _designations(ours: list[Document], theirs: list[Document]) -> Iterator[str]:
    here, there = ({item["name"]: item for item in items} for items in (ours, theirs))
    for name in sorted(here.keys() & there.keys()):
        mine, other = here[name], there[name]
        if mine["node"] != other["node"]:
            yield (
                f"{name} is at {mine['node'] or 'nobody'} here (epoch {mine['epoch']}), "
                f"at {other['node'] or 'nobody'} there (epoch {other['epoch']})"
            )
        elif mine["epoch"] != other["epoch"]:
            epochs = f"{name} has epoch {mine['epoch']} here, {other['epoch']} there"
            yield f"{epochs}: nodes refuse what the lower one sends"
    for name in sorted(here.keys() ^ there.keys()):
        yield f"designation {name} is only {'here' if name in here else 'there'}"
