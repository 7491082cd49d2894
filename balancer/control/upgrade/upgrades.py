"""Keeps the upgrade in the control process: the journal, who drives it, the interlock of versions, the totals.

Commands are run by `arv-balance upgrade`, with the rights and the keys of the operator; this process runs none.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from balancer import scoreboard as sb
from balancer.control.actions import UnknownNodeError
from balancer.control.httpclient import NoAnswerError, get
from balancer.control.intents import Kind
from balancer.control.probe import check, lookup
from balancer.control.prober import Prober
from balancer.control.site import Site
from balancer.control.upgrade import machine
from balancer.control.upgrade.history import History
from balancer.control.upgrade.journal import Journal
from balancer.control.upgrade.machine import Phase, Run, State, Step, Word
from balancer.control.versions import Versions, identity
from balancer.core.parking import forecast
from balancer.errors import BalanceError, RefusedError
from balancer.model import Admin
from balancer.observe import counts
from balancer.observe.counts import Counts

SCHEMA = "arv-balance/upgrade/v1"
HOLD_S = 10.0  # a command that has not been heard of for so long is gone
OUTPUT_CHARACTERS = 64 << 10
VERSION_BYTES = 1 << 20

Document = dict[str, Any]


class Rates(Protocol):
    """The traffic of late."""

    def cluster(self) -> counts.Rates:
        """Return the rates of all nodes."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What an upgrade is to be. `plan`: its file's name, for people; `hold_s`: for how long it pauses traffic."""

    run_id: str
    who: str
    mode: str
    plan: str
    digest: str
    nodes: tuple[str, ...]
    steps: tuple[Step, ...]
    hold_s: float | None = None


@dataclass(frozen=True, slots=True)
class Driver:
    """Who carries steps out. `seen_s`: heard of then (monotonic)."""

    ticket: str
    who: str
    seen_s: float


class Upgrades:
    """One upgrade at a time."""

    def __init__(
        self,
        *,
        site: Site,
        prober: Prober,
        versions: Versions,
        trend: Rates,
        journal: Journal,
    ) -> None:
        self._site = site
        self._board = site.parts.publisher.board
        self._prober = prober
        self._versions = versions
        self._events = site.parts.events
        self._trend = trend
        self._journal = journal
        self._history = History()
        self._driver: Driver | None = None
        self._lock = asyncio.Lock()

    @property
    def run(self) -> Run | None:
        """The upgrade that goes on, or the last one."""
        return self._history.run

    async def load(self) -> None:
        """Take up the journal. One that cannot be read is kept aside and told; nodes and pause stay as they are."""
        read = await asyncio.to_thread(self._journal.load)
        damage = read.damage
        if not damage:
            try:
                self._history = History.of(read.records)
            except BalanceError as exc:
                damage = str(exc)
        if damage:
            self._history = History()
            aside = await asyncio.to_thread(self._journal.set_aside, "bad")
            text = f"the journal of the upgrade cannot be read: {damage}; kept as {aside}"
            self._events.add("upgrade-unreadable", text, level="error")
        self._judge_versions()

    # --- what may be asked --------------------------------------------------------------------------------------

    def document(self) -> Document:
        """Return the upgrade as it stands."""
        driver = self._driver if self._is_driven() else None
        return {
            "schema": SCHEMA,
            **self._history.document(),
            "driver": driver.who if driver else "",
            "totals": self._totals(),
        }

    def brief(self) -> Document | None:
        """Return the upgrade in a few facts, None when there never was one."""
        run = self.run
        if run is None:
            return None
        at = machine.next_step(run) if run.is_open else None
        doing = run.steps[at] if at is not None else None
        return {
            "open": run.is_open,
            "phase": run.phase.value,
            "id": run.id,
            "mode": run.mode,
            "steps": len(run.steps),
            "done": run.states.count(State.DONE),
            "doing": f"{doing.do.value} {doing.node}".strip() if doing else "",
            "driver": self._driver.who if self._driver and self._is_driven() else "",
        }

    async def look(self, name: str) -> Document:
        """Ask a node now, past all verdicts: does it answer its check, which version does it run."""
        plan = self._prober.plan(name)
        if plan is None:
            raise UnknownNodeError(name, (node.name for node in self._site.snapshot.nodes))
        if plan.target is None:
            return {"schema": SCHEMA, "node": name, "ok": False, "text": plan.fault, "version": "", "members": {}}
        result = await check(plan.target, plan.expect, timeout_s=plan.timeout_s)
        found: Any = None
        if result.ok and plan.version_target is not None:
            with suppress(NoAnswerError, ValueError):  # unreadable is unknown
                status, body = await get(plan.version_target, timeout_s=plan.timeout_s, limit=VERSION_BYTES)
                found = json.loads(body) if status == 200 else None
        members = {name: lookup(found, name) for name in plan.version_members} if isinstance(found, dict) else {}
        version = identity(found, plan.version_members)
        if version:
            self._versions.note(name, version, self._prober)  # else a reading of before the upgrade would still count
        return {
            "schema": SCHEMA,
            "node": name,
            "ok": result.ok,
            "text": result.text,
            "version": version,
            "members": {key: str(value) for key, value in members.items() if isinstance(value, str | int)},
        }

    # --- what moves it ------------------------------------------------------------------------------------------

    async def begin(self, asked: Asked, *, dry_run: bool) -> Document:
        """Begin an upgrade. Raises RefusedError when it cannot be; with `dry_run` only that is found out."""
        async with self._lock:
            if self.run is not None and self.run.is_open:
                if self.run.id == asked.run_id:  # the answer to the first time was lost
                    return {**self.document(), "ticket": self._take_over(asked.who), "warnings": []}
                raise RefusedError(f"upgrade {self.run.id} is not over: arv-balance upgrade resume, or upgrade abort")
            self._guard(asked)
            kept = [name for name in asked.nodes if self._site.intents.get(Kind.DRAIN, name)]
            run = machine.begun(asked.run_id, asked.mode, asked.steps, nodes=asked.nodes, kept=kept)
            record = machine.run_record(
                run,
                plan=asked.plan,
                digest=asked.digest,
                who=asked.who,
                at=self._now(),
                counts=_kept_counts(self._counts()),
                p99_before_s=self._trend.cluster().p99_s,
                versions={name: self._versions.of(name) for name in asked.nodes},
            )
            if dry_run:
                return {"schema": SCHEMA, **History.of([record]).document(), "warnings": self._warnings(asked)}
            await asyncio.to_thread(self._journal.set_aside, "1")
            self._history = History()
            self._board.shared.cells[sb.H_UPGRADE_SLOWEST_US] = 0
            await self._add(record)
            ticket = self._take_over(asked.who)
        self._event("upgrade-begun", f"upgrade {asked.run_id}: {asked.mode}, {len(asked.nodes)} nodes", asked.who)
        return {**self.document(), "ticket": ticket, "warnings": self._warnings(asked)}

    async def attach(self, who: str, *, force: bool, dry_run: bool = False) -> Document:
        """Let a command drive the upgrade on. Raises RefusedError while another one does.

        `dry_run`: only that is found out.
        """
        async with self._lock:
            run = self._open()
            if self._driver and self._is_driven() and not force:
                raise RefusedError(f"upgrade {run.id} is being driven by a command of {self._driver.who}")
            return {**self.document(), "ticket": "" if dry_run else self._take_over(who)}

    def heard_of(self, ticket: str) -> None:
        """Note that a command still drives. Raises RefusedError when another one has taken over."""
        driver = self._driver
        if driver is not None and driver.ticket != ticket:
            raise RefusedError(f"another command, of {driver.who}, has taken the upgrade over")
        who = driver.who if driver else ""
        self._driver = Driver(ticket, who, self._site.parts.clock.monotonic())

    def leave(self, ticket: str) -> None:
        """Note that a command drives no more."""
        if self._driver is not None and self._driver.ticket == ticket:
            self._driver = None

    async def word(self, ticket: str, number: int, word: Word, *, who: str, again: bool, facts: Document) -> Document:
        """Take a word about a step: on the disk when this returns. Raises RefusedError when it does not fit."""
        async with self._lock:
            self._open()
            self.heard_of(ticket)
            if self._history.has_heard(number, word, facts.get("token", "")):
                return self.document()  # the answer to the first time was lost
            record = machine.step_record(number, word, again=again, who=who, at=self._now(), **facts)
            await self._add(record)
        self._tell(number, word, who, facts)
        return self.document()

    async def abort(self, ticket: str, who: str) -> Document:
        """Turn the upgrade around. Raises RefusedError when it is not going forward."""
        async with self._lock:
            run = self._open()
            self.heard_of(ticket)
            if run.phase is Phase.ABORTING:
                return self.document()
            await self._add(self._abort_record(run, who))
        self._event("upgrade-aborting", f"upgrade {run.id} is being aborted", who, level="warning")
        return self.document()

    def way_back(self, who: str) -> Document:
        """Return the upgrade as it would be once `abort` has turned it around; nothing is changed."""
        run = self._open()
        if run.phase is Phase.ABORTING:
            return self.document()
        return {**self.document(), **self._history.after(self._abort_record(run, who)).document()}

    async def end(self, ticket: str, who: str) -> Document:
        """Close the upgrade after its last step."""
        async with self._lock:
            if self.run is not None and not self.run.is_open:
                return self.document()
            self._open()
            self.heard_of(ticket)
            await self._add({"kind": "end", "who": who, "at": self._now(), "totals": self._totals()})
            self._driver = None
            run = self._history.run
        phase = run.phase.value if run else ""
        self._event(f"upgrade-{phase}", f"upgrade {run.id if run else ''} is {phase}", who)
        return self.document()

    def counted(self, now: Counts) -> None:
        """Take a reading of the counters, one a second: what took longest is there for some seconds only."""
        if self.run is not None and self.run.is_open:
            self._slowest_s(now)

    # --- inside -------------------------------------------------------------------------------------------------

    async def _add(self, record: Document) -> None:
        after = self._history.after(record)  # raises before anything is written
        await asyncio.to_thread(self._journal.append, record)
        self._history = after
        self._judge_versions()

    def _abort_record(self, run: Run, who: str) -> Document:
        return machine.abort_record(run, who=who, at=self._now())

    def _judge_versions(self) -> None:
        """Versions mix on purpose while a rolling upgrade goes on."""
        run = self.run
        is_mixing = run is not None and run.is_open and run.mode == "rolling"
        if is_mixing != self._versions.is_suspended:
            self._versions.is_suspended = is_mixing
            self._versions.judge(self._prober)

    def _open(self) -> Run:
        run = self.run
        if run is None or not run.is_open:
            raise RefusedError("there is no upgrade to go on with")
        return run

    def _take_over(self, who: str) -> str:
        self._driver = Driver(secrets.token_hex(8), who, self._site.parts.clock.monotonic())
        return self._driver.ticket

    def _is_driven(self) -> bool:
        now_s = self._site.parts.clock.monotonic()
        return self._driver is not None and now_s - self._driver.seen_s < HOLD_S

    def _guard(self, asked: Asked) -> None:
        nodes = {node.name: node for node in self._site.snapshot.nodes if node.admin is not Admin.REMOVED}
        unknown = [name for name in asked.nodes if name not in nodes]
        if unknown:
            raise UnknownNodeError(unknown[0], nodes)
        pause = self._site.intents.get(Kind.PAUSE)
        if pause is not None:
            raise RefusedError(f"traffic is paused by {pause.who}: an upgrade holds and releases it itself")
        serving = [name for name, node in nodes.items() if node.admin is Admin.ENABLED]
        others = [name for name in serving if name not in asked.nodes]
        if asked.mode == "stop-all" and others:
            raise RefusedError(f"{others[0]} would go on with the old version: name it too, or drain it before")
        least = self._site.config.balance.min_serving
        if asked.mode == "rolling" and set(serving) & set(asked.nodes) and len(serving) - 1 < least:
            raise RefusedError(
                f"{len(serving) - 1} nodes would serve while one is upgraded, and balance.min_serving is {least}"
            )

    def _warnings(self, asked: Asked) -> list[str]:
        config, found = self._site.config, []
        if config.versions.path is None:
            found.append("versions.path is not set: versions are not compared")
        if asked.mode == "stop-all":
            park, drain = self._site.snapshot.park, self._site.snapshot.drain
            hold_s = asked.hold_s or park.timeout_s
            seen = forecast(self._trend.cluster().per_s, park.timeout_s, park.max)
            found.append(f"requests wait: {seen}")
            text = "requests get 503 with Retry-After if draining and all commands take longer than park.timeout"
            found.append(f"{text}, {park.timeout_s:g} s (drain.timeout alone is {drain.timeout_s:g} s)")
            if hold_s > park.timeout_s:
                found.append(f"the pause of {hold_s:g} s is longer than park.timeout, {park.timeout_s:g} s")
        return found

    def _counts(self) -> Counts:
        return counts.read(self._board.shared, (), self._site.parts.clock.monotonic())

    def _totals(self) -> Document | None:
        """Return what happened to requests since the beginning; None when the counters began anew meanwhile."""
        if self._history.totals is not None or not self._history.counts:
            return self._history.totals
        now, before = self._counts(), self._history.counts
        requests = now.accepted - before["accepted"]
        if requests < 0:
            return None
        spent = [max(0, new - old) for new, old in zip(now.timing.cells, before["durations"], strict=False)]
        slowest_s = self._slowest_s(now)
        return {
            "requests": requests,
            "failed": now.failed - before["failed"],
            "retried": now.retried - before["retried"],
            "open": now.accepted - now.answered,
            "parked": self._board.total(sb.W_PARKED),
            "p99_s": counts.quantile(spent, 0.99, slowest_s),
            "slowest_s": slowest_s,
            "p99_before_s": self._history.p99_before_s,
        }

    def _slowest_s(self, now: Counts) -> float | None:
        """Return what took longest since the beginning; it is kept where a restart of control leaves it."""
        cells, lately_s = self._board.shared.cells, now.timing.slowest_s(self._history.counts.get("at_s", now.at_s))
        cells[sb.H_UPGRADE_SLOWEST_US] = max(cells[sb.H_UPGRADE_SLOWEST_US], round((lately_s or 0.0) * 1e6))
        return cells[sb.H_UPGRADE_SLOWEST_US] / 1e6 or None

    def _now(self) -> str:
        return self._site.parts.clock.now().isoformat()

    def _tell(self, number: int, word: Word, who: str, facts: Mapping[str, Any]) -> None:
        run = self.run
        if run is None or word is Word.BEGIN:
            return
        step = run.steps[number]
        what = f"{step.do.value} {step.node}".strip()
        match word:
            case Word.SUCCEED:
                self._event("upgrade-step", f"upgrade: {what} is done", who, node=step.node)
            case _:
                why = str(facts.get("why", ""))[:300]
                text = f"upgrade: {what}: {word.value}" + (f": {why}" if why else "")
                self._event("upgrade-step", text, who, node=step.node, level="warning")

    def _event(self, kind: str, text: str, who: str, *, node: str = "", level: str = "info") -> None:
        self._events.add(kind, text, actor=who, node=node, level=level)


def steps_of(items: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the steps that a caller names. Raises RefusedError."""
    try:
        return tuple(
            Step(machine.Do(item["do"]), str(item.get("node", "")), str(item.get("text", ""))) for item in items
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise RefusedError(f"the steps cannot be read: {exc}") from exc


def _kept_counts(now: Counts) -> Document:
    return {
        "at_s": now.at_s,
        "accepted": now.accepted,
        "failed": now.failed,
        "retried": now.retried,
        "durations": list(now.timing.cells),
    }
