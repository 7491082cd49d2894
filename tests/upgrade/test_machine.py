"""The upgrade's state machine: order, what may be repeated, what an abort restores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from balancer.control.upgrade import machine
from balancer.control.upgrade.journal import parsed, spelled
from balancer.control.upgrade.machine import TRANSITIONS, Do, Phase, Run, State, Step, Word
from balancer.control.upgrade.plan import _rolling, _stop_all
from balancer.errors import RefusedError, StateError

NAMES = ("api1", "api2", "api3")
HAS = {(do, name): "command" for do in (Do.STOP, Do.UPGRADE, Do.START) for name in NAMES} | {
    (Do.MIGRATE, "api1"): "migrate"
}


def run_of(mode: str, kept: tuple[str, ...] = ()) -> Run:
    make = _stop_all if mode == "stop-all" else _rolling
    steps = [Step(step.do, step.node, HAS.get((step.do, step.node), "")) for step in make(NAMES, HAS)]
    return machine.begun("one", mode, steps, nodes=NAMES, kept=kept)


def after(run: Run, do: Do, node: str = "", *, words: tuple[Word, ...] = (Word.BEGIN, Word.SUCCEED)) -> Run:
    """Do everything up to a step, then say `words` about it."""
    while (number := machine.next_step(run)) is not None:
        step = run.steps[number]
        is_it = (step.do, step.node) == (do, node)
        for word in words if is_it else (Word.BEGIN, Word.SUCCEED):
            run = machine.moved(run, number, word)
        if is_it:
            return run
    raise AssertionError("there is no such step")


def test_every_state_is_in_the_table_and_a_step_that_is_done_stays_done() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.DONE] == {}
    assert {to for words in TRANSITIONS.values() for to in words.values()} == set(State) - {State.PENDING}


def test_stop_all_migrates_when_all_nodes_are_stopped_and_before_any_is_started() -> None:
    order = [(step.do, step.node) for step in run_of("stop-all").steps]
    assert order[0] == (Do.PAUSE, "")
    assert order[-1] == (Do.RESUME, "")
    migrate = order.index((Do.MIGRATE, "api1"))
    assert all(order.index((Do.STOP, name)) < migrate < order.index((Do.START, name)) for name in NAMES)
    assert all(order.index((Do.READY, name)) < order.index((Do.UNDRAIN, "api1")) for name in NAMES)


def test_rolling_has_at_most_one_node_drained_at_any_time() -> None:
    drained: set[str] = set()
    for step in run_of("rolling").steps:
        if step.do is Do.DRAIN:
            drained.add(step.node)
        if step.do is Do.UNDRAIN:
            drained.remove(step.node)
        assert len(drained) <= 1


@pytest.mark.parametrize("state", [(Word.BEGIN, Word.FAIL), (Word.BEGIN, Word.LOSE)])
def test_a_migration_that_may_have_had_effect_runs_again_only_by_an_operators_word(state: tuple[Word, ...]) -> None:
    run = after(run_of("stop-all"), Do.MIGRATE, "api1", words=state)
    number = machine.next_step(run)
    assert number is not None
    with pytest.raises(RefusedError, match="not run again"):
        machine.moved(run, number, Word.BEGIN)
    assert machine.moved(run, number, Word.BEGIN, again=True).states[number] is State.RUNNING
    assert machine.moved(run, number, Word.SETTLE).states[number] is State.DONE


def test_steps_are_done_in_order_and_none_of_a_closed_upgrade() -> None:
    run = run_of("rolling")
    with pytest.raises(RefusedError, match="not the next one"):
        machine.moved(run, 1, Word.BEGIN)
    with pytest.raises(RefusedError, match="cannot succeed"):
        machine.moved(run, 0, Word.SUCCEED)
    with pytest.raises(RefusedError, match="has steps to do yet"):
        machine.apply(run, {"kind": "end"})
    done = machine.apply(after(run, Do.COMPARE), {"kind": "end"})
    assert done.phase is Phase.FINISHED
    with pytest.raises(RefusedError, match="finished"):
        machine.moved(done, 0, Word.BEGIN)


def test_an_abort_before_any_upgrade_starts_and_undrains_what_was_stopped() -> None:
    run = after(run_of("stop-all", kept=("api3",)), Do.STOP, "api2", words=(Word.BEGIN, Word.FAIL))
    steps, left = machine.unwind(run)
    assert [(step.do, step.node) for step in steps] == [
        (Do.START, "api1"), (Do.READY, "api1"), (Do.START, "api2"), (Do.READY, "api2"),
        (Do.UNDRAIN, "api1"), (Do.UNDRAIN, "api2"), (Do.RESUME, ""),
    ]  # fmt: skip
    assert not left


def test_an_abort_leaves_an_upgraded_node_drained_and_says_so() -> None:
    run = after(run_of("rolling"), Do.UPGRADE, "api1", words=(Word.BEGIN, Word.FAIL))
    steps, left = machine.unwind(run)
    assert steps == ()
    assert [sentence.split(":")[0] for sentence in left] == ["api1 stays drained with what `upgrade` made of it"]


@pytest.mark.parametrize("words", [(Word.BEGIN,), (Word.BEGIN, Word.SUCCEED), (Word.BEGIN, Word.LOSE)])
def test_an_abort_after_the_migration_began_lets_no_node_of_the_old_version_serve(words: tuple[Word, ...]) -> None:
    run = after(run_of("stop-all"), Do.MIGRATE, "api1", words=words)
    steps, left = machine.unwind(run)
    assert steps == ()
    assert "the migration is" in left[0]


def test_an_abort_goes_on_past_steps_that_fail_and_names_them() -> None:
    run = after(run_of("stop-all"), Do.STOP, "api1")
    run = machine.apply(run, machine.abort_record(run))
    assert run.phase is Phase.ABORTING
    while (number := machine.next_step(run)) is not None:
        run = machine.moved(machine.moved(run, number, Word.BEGIN), number, Word.FAIL)
    run = machine.apply(run, {"kind": "end"})
    assert run.phase is Phase.ABORTED
    assert "start api1 failed" in run.left


def test_records_out_of_place_are_told() -> None:
    with pytest.raises(StateError, match="out of place"):
        machine.folded([{"kind": "step", "number": 0, "word": "begin", "again": False}])
    with pytest.raises(StateError, match="cannot be read"):
        machine.folded([{"kind": "run", "id": "x"}])


class Walk(RuleBasedStateMachine):
    """Any words in any order, crashes between them: the journal gives the same run, no migration runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.run = run_of("stop-all")
        self.records = [machine.run_record(self.run)]
        self.migrations = 0  # begun without a word of the operator
        self.done_before: frozenset[int] = frozenset()

    def say(self, record: dict[str, object]) -> None:
        try:
            self.run = machine.apply(self.run, record)
        except RefusedError:
            return
        self.records.append(record)
        step = self.run.steps[int(str(record["number"]))] if record["kind"] == "step" else None
        if step and step.do is Do.MIGRATE and record["word"] == Word.BEGIN.value and not record["again"]:
            self.migrations += 1

    @rule(word=st.sampled_from(Word), again=st.booleans(), off=st.integers(-1, 1))
    def word(self, word: Word, again: bool, off: int) -> None:
        number = machine.next_step(self.run)
        if number is not None:
            self.say(machine.step_record(max(0, number + off), word, again=again))

    @rule()
    def next_is_done(self) -> None:
        number = machine.next_step(self.run)
        if number is not None:
            self.say(machine.step_record(number, Word.BEGIN))
            self.say(machine.step_record(number, Word.SUCCEED))

    @precondition(lambda self: self.run.phase is Phase.FORWARD)
    @rule(sure=st.integers(0, 9))
    def abort(self, sure: int) -> None:
        if sure == 0:
            self.say(machine.abort_record(self.run))

    @rule()
    def end(self) -> None:
        self.say({"kind": "end"})

    @invariant()
    def the_journal_adds_up_to_the_run(self) -> None:
        data = b"".join(spelled(record) for record in self.records)
        assert machine.folded(parsed(data).records) == self.run

    @invariant()
    def no_migration_runs_twice_by_itself(self) -> None:
        assert self.migrations <= 1

    @invariant()
    def what_is_done_stays_done(self) -> None:
        done = frozenset(number for number, state in enumerate(self.run.states) if state is State.DONE)
        assert done >= self.done_before
        self.done_before = done


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_wherever_it_is_aborted_nobody_serves_with_a_version_that_does_not_fit(data: st.DataObject) -> None:
    run = run_of(data.draw(st.sampled_from(["stop-all", "rolling"])))
    for _ in range(data.draw(st.integers(0, len(run.steps) - 1))):
        number = machine.next_step(run)
        assert number is not None
        run = machine.moved(machine.moved(run, number, Word.BEGIN), number, Word.SUCCEED)
    steps, _left = machine.unwind(run)
    undrained = {step.node for step in steps if step.do is Do.UNDRAIN}
    touched = {name for name in NAMES if run.state_of(Do.UPGRADE, name) is not State.PENDING}
    assert not undrained & touched
    assert not (undrained and run.state_of(Do.MIGRATE, "api1") is not State.PENDING)
