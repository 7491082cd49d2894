"""What a journal tells beside the state: when steps began and ended, their output, what was counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from balancer.control.upgrade import machine
from balancer.control.upgrade.machine import Run, Word

Document = dict[str, Any]

_NO_STEP: Document = {
    "began_at": None,
    "ended_at": None,
    "took_s": None,
    "exit": None,
    "output": "",
    "why": "",
    "token": "",
    "where": "",
}
_FACTS = ("exit", "output", "why")
_BEGIN_FACTS = ("token", "where")


@dataclass(frozen=True, slots=True)
class History:
    """A value, as the run is. `heads`: of the run, without its steps; `told`: of each step, by number."""

    run: Run | None = None
    head: Mapping[str, Any] | None = None
    told: Mapping[int, Document] | None = None
    heard: tuple[int, str, str] | None = None  # number, word and token of the last step record
    totals: Document | None = None

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> "History":
        """Return what a whole journal tells. Raises BalanceError when it makes no sense."""
        found = cls()
        for record in records:
            found = found.after(record)
        return found

    def after(self, record: Mapping[str, Any]) -> "History":
        """Return the history with one record more. Raises RefusedError or StateError when it does not fit."""
        run = machine.apply(self.run, record)
        match record["kind"]:
            case "run":
                return History(run, head=record, told={})
            case "step":
                told = {**(self.told or {}), record["number"]: self._step(record)}
                heard = record["number"], record["word"], str(record.get("token", ""))
                return replace(self, run=run, told=told, heard=heard)
            case "end":
                return replace(self, run=run, totals=record.get("totals"))
            case _:
                return replace(self, run=run, heard=None)

    def has_heard(self, number: int, word: Word, token: str) -> bool:
        """Return whether the last record is this very one, said twice because an answer was lost."""
        return bool(token) and self.heard == (number, word.value, token)

    @property
    def counts(self) -> Mapping[str, Any]:
        """What the counters stood at in the beginning, {} before any."""
        found: Mapping[str, Any] = (self.head or {}).get("counts", {})
        return found

    @property
    def p99_before_s(self) -> float | None:
        """The 99th percentile of answers' times before."""
        return (self.head or {}).get("p99_before_s")

    def document(self) -> Document:
        """Return the JSON form."""
        run, head = self.run, self.head or {}
        names = ("plan", "digest", "who", "at")
        return {
            "open": run is not None and run.is_open,
            "phase": run.phase.value if run else "none",
            "id": run.id if run else "",
            "mode": run.mode if run else "",
            **{name: head.get(name, "") for name in names},
            "versions": dict(head.get("versions", {})),
            "nodes": list(run.nodes) if run else [],
            "kept": list(run.kept) if run else [],
            "left": list(run.left) if run else [],
            "abort_from": run.abort_from if run else 0,
            "next": machine.next_step(run) if run and run.is_open else None,
            "steps": [self._shown(run, number) for number in range(len(run.steps))] if run else [],
        }

    def _shown(self, run: Run, number: int) -> Document:
        step, told = run.steps[number], (self.told or {}).get(number, _NO_STEP)
        return {
            "number": number,
            "do": step.do.value,
            "node": step.node,
            "text": step.text,
            "state": run.states[number].value,
            **told,
        }

    def _step(self, record: Mapping[str, Any]) -> Document:
        told = dict((self.told or {}).get(record["number"], _NO_STEP))
        if record["word"] == Word.BEGIN.value:
            return {**_NO_STEP, "began_at": record.get("at")} | {
                name: record[name] for name in _BEGIN_FACTS if name in record
            }
        told["ended_at"] = record.get("at")
        if told["began_at"] and told["ended_at"]:
            began, ended = (datetime.fromisoformat(told[name]) for name in ("began_at", "ended_at"))
            told["took_s"] = round((ended - began).total_seconds(), 3)
        return told | {name: record[name] for name in _FACTS if name in record}
