"""The upgrade as a state machine: which step may follow, what a journal adds up to, what an abort can restore.

Pure: the control process folds its journal with it, the command asks it for the next step, tests walk through it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from balancer.errors import RefusedError, StateError


class Do(StrEnum):
    """What a step does."""

    PAUSE = "pause"  # hold new requests, wait until nothing is in flight
    DRAIN = "drain"
    STOP = "stop"
    UPGRADE = "upgrade"
    MIGRATE = "migrate"
    START = "start"
    READY = "ready"  # checks succeed and the version is the expected one
    COMPARE = "compare"  # all nodes run the same version
    UNDRAIN = "undrain"
    RESUME = "resume"


COMMANDS = frozenset({Do.STOP, Do.UPGRADE, Do.MIGRATE, Do.START})


class State(StrEnum):
    """How far a step is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"  # it was begun, and nobody is left who knows how it ended


class Word(StrEnum):
    """What moves a step."""

    BEGIN = "begin"
    SUCCEED = "succeed"
    FAIL = "fail"
    LOSE = "lose"
    SETTLE = "settle"  # an operator looked: it was done


# A pair that is not here is refused.
TRANSITIONS: dict[State, dict[Word, State]] = {
    State.PENDING: {Word.BEGIN: State.RUNNING},
    State.RUNNING: {Word.SUCCEED: State.DONE, Word.FAIL: State.FAILED, Word.LOSE: State.UNKNOWN},
    State.FAILED: {Word.BEGIN: State.RUNNING, Word.SETTLE: State.DONE},
    State.UNKNOWN: {Word.BEGIN: State.RUNNING, Word.SETTLE: State.DONE},
    State.DONE: {},
}


class Phase(StrEnum):
    """Where the whole upgrade is."""

    FORWARD = "forward"
    ABORTING = "aborting"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `node` "": it concerns all. `text`: the command, for people; what is executed is kept elsewhere."""

    do: Do
    node: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One upgrade. `kept`: nodes that were drained before and stay so. `left`: what an abort cannot restore."""

    id: str
    mode: str
    nodes: tuple[str, ...]
    steps: tuple[Step, ...]
    states: tuple[State, ...]
    kept: tuple[str, ...] = ()
    phase: Phase = Phase.FORWARD
    abort_from: int = 0
    left: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """True while there is something to resume or to abort."""
        return self.phase in {Phase.FORWARD, Phase.ABORTING}

    def state_of(self, do: Do, node: str = "") -> State:
        """Return how far a step of the way forward is; PENDING when there is none."""
        end = self.abort_from or len(self.steps)
        for step, state in zip(self.steps[:end], self.states, strict=False):
            if (step.do, step.node) == (do, node):
                return state
        return State.PENDING


def begun(run_id: str, mode: str, steps: Sequence[Step], *, nodes: Sequence[str], kept: Sequence[str] = ()) -> Run:
    """Return a run with nothing done yet."""
    return Run(run_id, mode, tuple(nodes), tuple(steps), (State.PENDING,) * len(steps), tuple(kept))


def next_step(run: Run) -> int | None:
    """Return the number of the step that is to be done next, None when all are.

    On the way forward a failed one stands in the way; an abort goes on and does what it can.
    """
    if run.phase is Phase.ABORTING:
        over = {State.DONE, State.FAILED}
        return next((n for n in range(run.abort_from, len(run.steps)) if run.states[n] not in over), None)
    return next((n for n, state in enumerate(run.states) if state is not State.DONE), None)


def moved(run: Run, number: int, word: Word, *, again: bool = False) -> Run:
    """Return the run after a word about a step. Raises RefusedError when it does not fit.

    `again`: an operator says that a migration of which nobody knows how it ended, or that failed, may run again.
    """
    if not run.is_open:
        raise RefusedError(f"the upgrade is {run.phase.value}")
    if number != next_step(run):
        raise RefusedError(f"step {number} is not the next one")
    step, state = run.steps[number], run.states[number]
    after = TRANSITIONS[state].get(word)
    if after is None:
        raise RefusedError(f"step {number} ({step.do.value} {step.node}) is {state.value}: it cannot {word.value}")
    if step.do is Do.MIGRATE and word is Word.BEGIN and state is not State.PENDING and not again:
        raise RefusedError(f"the migration is {state.value}: it is not run again without a word of yours")
    return replace(run, states=(*run.states[:number], after, *run.states[number + 1 :]))


def unwind(run: Run) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Return the steps that restore what can be restored, and sentences about what cannot."""
    if run.state_of(Do.MIGRATE, _migrated_at(run)) is not State.PENDING:
        return (), _left_after_migration(run)
    stopped = [name for name in run.nodes if run.state_of(Do.STOP, name) is not State.PENDING]
    drained = [name for name in run.nodes if run.state_of(Do.DRAIN, name) is not State.PENDING]
    touched = [name for name in drained if run.state_of(Do.UPGRADE, name) is not State.PENDING]
    back = [name for name in drained if name not in touched and run.state_of(Do.UNDRAIN, name) is State.PENDING]
    steps: list[Step] = []
    for name in back:
        text = next((step.text for step in run.steps if (step.do, step.node) == (Do.START, name)), "")
        if name in stopped and text:
            steps += [Step(Do.START, name, text), Step(Do.READY, name)]
    steps += [Step(Do.UNDRAIN, name) for name in back if name not in run.kept]
    if run.state_of(Do.PAUSE) is not State.PENDING:
        steps.append(Step(Do.RESUME))
    return tuple(steps), _left_over(run, touched)


def _migrated_at(run: Run) -> str:
    return next((step.node for step in run.steps if step.do is Do.MIGRATE), "")


def _left_after_migration(run: Run) -> tuple[str, ...]:
    state = run.state_of(Do.MIGRATE, _migrated_at(run))
    return (
        f"the migration is {state.value}: nodes of the old version may not fit the database any more",
        "nodes stay as they are, drained ones stay drained, and requests wait until the pause ends",
        "restore the database and the old version by hand, then: arv-balance nodes undrain NODE, arv-balance resume",
    )


def _left_over(run: Run, touched: Sequence[str]) -> tuple[str, ...]:
    left = []
    for name in touched:
        done = run.state_of(Do.UNDRAIN, name) is State.DONE
        how = "serves with" if done else "stays drained with"
        left.append(f"{name} {how} what `upgrade` made of it: downgrade it by hand, or resume later with a new plan")
    return tuple(left)


# --- the journal's records ------------------------------------------------------------------------------------------


def run_record(run: Run, **facts: Any) -> dict[str, Any]:
    """Return the record that begins a journal; `facts` are kept for people."""
    steps = [{"do": step.do.value, "node": step.node, "text": step.text} for step in run.steps]
    return {
        "kind": "run",
        "id": run.id,
        "mode": run.mode,
        "nodes": list(run.nodes),
        "kept": list(run.kept),
        "steps": steps,
        **facts,
    }


def step_record(number: int, word: Word, *, again: bool = False, **facts: Any) -> dict[str, Any]:
    """Return the record of a word about a step."""
    return {"kind": "step", "number": number, "word": word.value, "again": again, **facts}


def abort_record(run: Run, **facts: Any) -> dict[str, Any]:
    """Return the record that turns a run around."""
    steps, left = unwind(run)
    return {
        "kind": "abort",
        "steps": [{"do": step.do.value, "node": step.node, "text": step.text} for step in steps],
        "left": list(left),
        **facts,
    }


def apply(run: Run | None, record: Mapping[str, Any]) -> Run:
    """Return the run after a record. Raises RefusedError when it does not fit, StateError when it is no record."""
    try:
        match record["kind"]:
            case "run":
                steps = _steps(record["steps"])
                return begun(record["id"], record["mode"], steps, nodes=record["nodes"], kept=record["kept"])
            case "step" if run is not None:
                return moved(run, record["number"], Word(record["word"]), again=record["again"])
            case "abort" if run is not None:
                return _aborting(run, _steps(record["steps"]), record["left"])
            case "end" if run is not None:
                return _ended(run)
    except (KeyError, TypeError, ValueError) as exc:
        raise StateError(f"a record of the upgrade's journal cannot be read: {exc!r}") from exc
    raise StateError(f"a record of the upgrade's journal is out of place: {record.get('kind')!r}")


def folded(records: Iterable[Mapping[str, Any]]) -> Run | None:
    """Return the run that a journal adds up to, None for an empty one."""
    run: Run | None = None
    for record in records:
        run = apply(run, record)
    return run


def _steps(items: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    return tuple(Step(Do(item["do"]), str(item["node"]), str(item["text"])) for item in items)


def _aborting(run: Run, steps: tuple[Step, ...], left: Sequence[str]) -> Run:
    if run.phase is not Phase.FORWARD:
        raise RefusedError(f"the upgrade is {run.phase.value} already")
    states = (*run.states, *(State.PENDING for _ in steps))
    return replace(
        run, steps=run.steps + steps, states=states, phase=Phase.ABORTING, abort_from=len(run.steps), left=tuple(left)
    )


def _ended(run: Run) -> Run:
    if next_step(run) is not None or not run.is_open:
        raise RefusedError("the upgrade has steps to do yet" if run.is_open else f"the upgrade is {run.phase.value}")
    way_back = list(zip(run.steps, run.states, strict=True))[run.abort_from :]
    failed = [step for step, state in way_back if state is State.FAILED] if run.phase is Phase.ABORTING else []
    left = [f"{step.do.value} {step.node} failed".replace("  ", " ") for step in failed]
    phase = Phase.ABORTED if run.phase is Phase.ABORTING else Phase.FINISHED
    return replace(run, phase=phase, left=(*run.left, *left))
