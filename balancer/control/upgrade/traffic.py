"""The steps of an upgrade that are not commands: hold and release traffic, drain, look whether a node is ready."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from balancer.control.upgrade.machine import Do

POLL_S = 0.2
LOOKS = 2  # so many answers in a row, as a node may answer once and fall over

Document = dict[str, Any]


class StepFailedError(Exception):
    """A step cannot be done; the message says why."""


class RefusedByBalancerError(Exception):
    """The balancer said no. `document` is its problem object."""

    def __init__(self, document: Document) -> None:
        super().__init__(str(document.get("what", "the balancer refused")))
        self.document = document


class Api(Protocol):
    """The admin API; waits for a balancer that is being restarted. Raises RefusedByBalancerError when it says no."""

    def get(self, path: str) -> Document:
        """Return the document at `path`."""
        ...

    def post(self, path: str, body: Document, *, wait_s: float = 0.0) -> Document:
        """Ask for a change that may take `wait_s`. It may be asked twice when an answer was lost."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """The plan's terms; None: as the balancer is configured."""

    ready_s: float = 60.0
    hold_s: float | None = None
    drain_s: float | None = None
    cut: bool = False
    release_per_s: float | None = None
    expect: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> Document:
        """Return the JSON form."""
        names = ("ready_s", "hold_s", "drain_s", "cut", "release_per_s")
        return {name: getattr(self, name) for name in names} | {"expect": dict(self.expect)}


class Traffic:
    """Does such steps by way of the admin API. Each may be done again after it was interrupted."""

    def __init__(
        self, api: Api, terms: Terms, waits: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._api = api
        self._terms = terms
        self._waits = waits
        self._sleep = sleep

    def do(self, run: Document, step: Document) -> str:
        """Do a step and return a note for people. Raises StepFailedError."""
        node = step["node"]
        try:
            match Do(step["do"]):
                case Do.PAUSE:
                    return self._pause(run)
                case Do.DRAIN:
                    return self._drain(run, node)
                case Do.READY:
                    return self._ready(run, node)
                case Do.COMPARE:
                    return self._compare(run)
                case Do.UNDRAIN:
                    return self._undrain(run, node)
                case Do.RESUME:
                    return self._resume(run)
                case other:
                    raise StepFailedError(f"{other.value} is a command")
        except RefusedByBalancerError as exc:
            lines = [str(exc), *(_named(item) for item in exc.document.get("exchanges", []))]
            raise StepFailedError("; ".join(lines)) from exc

    def _pause(self, run: Document) -> str:
        body = {"reason": reason(run), "for": self._terms.hold_s, "wait": self._terms.drain_s, "cut": self._terms.cut}
        sent = {name: value for name, value in body.items() if value}
        drain_s = self._terms.drain_s or float(self._api.get("/v1/pause")["drain_s"])
        deadline = time.monotonic() + drain_s + 10
        while True:
            pause = self._api.get("/v1/pause")
            if pause["paused"] and pause["pause"]["reason"] != reason(run):
                raise StepFailedError(f"traffic is paused by {pause['pause']['who']}: {pause['pause']['reason']}")
            if pause["paused"] and pause["complete"]:
                return f"nothing is in flight, {pause['parked']} requests wait"
            if not pause["paused"]:
                pause = self._api.post("/v1/pause", sent, wait_s=drain_s + 10)
                continue
            if time.monotonic() > deadline:  # the one who asked is gone, so it is ours to undo it
                self._api.post("/v1/resume", {"reason": reason(run)})
                raise StepFailedError(f"{pause['busy']} exchanges were still under way after {drain_s:g} s")
            self._waits(f"{pause['busy']} in flight, {pause['tunnels']} tunnels, {pause['parked']} requests wait")
            self._sleep(POLL_S)

    def _drain(self, run: Document, node: str) -> str:
        force = run["mode"] == "stop-all"
        answer = self._api.post(
            f"/v1/nodes/{node}/drain", {"reason": reason(run), "force": force, "cut": self._terms.cut}
        )
        limit_s = (self._terms.drain_s or float(answer["timeout_s"])) + 5
        found = self._until(f"/v1/nodes/{node}", lambda found: found["state"] == "drained", limit_s)
        if found["state"] != "drained":
            names = "; ".join(_named(item) for item in found["exchanges"])
            raise StepFailedError(f"{node} is {found['state']} after {limit_s:g} s: {names or 'something in flight'}")
        return ""

    def _ready(self, run: Document, node: str) -> str:
        expect = self._terms.expect if run["phase"] == "forward" else {}
        deadline, in_row = time.monotonic() + self._terms.ready_s, 0
        while True:
            found = self._api.get(f"/v1/upgrade/nodes/{node}")
            wrong = _unexpected(found, expect) if found["ok"] else str(found["text"])
            in_row = 0 if wrong else in_row + 1
            if in_row == LOOKS:
                return _version_note(run["versions"].get(node, ""), found["version"])
            if time.monotonic() > deadline:
                raise StepFailedError(f"{node} is not ready after {self._terms.ready_s:g} s: {wrong}")
            self._waits(f"{node}: {wrong or 'answers'}")
            self._sleep(POLL_S)

    def _compare(self, run: Document) -> str:
        found = {node: self._api.get(f"/v1/upgrade/nodes/{node}")["version"] for node in run["nodes"]}
        known = {version for version in found.values() if version}
        if len(known) > 1:
            told = ", ".join(f"{node} runs {version or 'an unknown one'}" for node, version in found.items())
            raise StepFailedError(f"versions differ: {told}")
        return f"all run {known.pop()}" if known else "versions are unknown"

    def _undrain(self, run: Document, node: str) -> str:
        if node in run["kept"]:
            return "stays drained, as it was before"
        self._api.post(f"/v1/nodes/{node}/undrain", {"reason": reason(run)})
        found = self._until(f"/v1/nodes/{node}", lambda found: bool(found["serving"]), self._terms.ready_s)
        if not found["serving"]:
            text = f"{node} is {found['state']} after {self._terms.ready_s:g} s: {found['check']['text']}"
            raise StepFailedError(text)
        return ""

    def _resume(self, run: Document) -> str:
        rate = {"rate": self._terms.release_per_s} if self._terms.release_per_s else {}
        answer = self._api.post("/v1/resume", {"reason": reason(run), **rate})
        return f"{answer['released']} requests waited" if answer["changed"] else "traffic was not paused any more"

    def _until(self, path: str, is_true: Callable[[Document], bool], limit_s: float) -> Document:
        deadline = time.monotonic() + limit_s
        while True:
            found = self._api.get(path)
            if is_true(found) or time.monotonic() > deadline:
                return found
            self._waits(f"{found['name']}: {found['state']}, {found['in_flight'] + found['tunnels']} in flight")
            self._sleep(POLL_S)


def reason(run: Mapping[str, Any]) -> str:
    """Return the reason that intents of an upgrade carry; by it they are known again."""
    return f"upgrade {run['id']}"


def _named(item: Document) -> str:
    return (
        f"{item.get('method', '?')} {item.get('path', '?')} {item.get('age_s', 0):.1f} s {item.get('request_id', '')}"
    )


def _unexpected(found: Document, expect: Mapping[str, str]) -> str:
    wrong = [
        f"{name} is {found['members'].get(name, 'unknown')}, expected {value}"
        for name, value in expect.items()
        if found["members"].get(name) != value
    ]
    return "; ".join(wrong)


def _version_note(before: str, after: str) -> str:
    """Return `0.1.0 ⇒ 0.1.1` of two words of versions (`name=value name=value`), each change told once."""
    if not after:
        return "answers"
    was, now = (dict(item.partition("=")[::2] for item in word.split()) for word in (before, after))
    changes = {(was[name], value): None for name, value in now.items() if name in was and was[name] != value}
    return ", ".join(f"{old} ⇒ {new}" for old, new in changes) or f"runs {after}"
