"""The designation moves only for a reason, and its epoch only forwards."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from balancer.core.designation import Decision, Holder, Kind, Policy, Standing, appoint, decide

ORDER = ("api1", "api2", "api3")
AUTO = Policy(ORDER, automatic_failover=True, automatic_failback=False, hold_down_s=10.0)
MANUAL = Policy(ORDER, automatic_failover=False)
BACK = Policy(ORDER, automatic_failover=True, automatic_failback=True, hold_down_s=10.0)


def standings(text: str, since: float = 0.0) -> dict[str, Standing]:
    """`+` can serve, `-` cannot, `d` drained by people, ` ` not there; one letter a node."""
    signs = dict(zip(ORDER, text, strict=True))
    return {name: Standing(sign == "+", since, deliberate=sign == "d") for name, sign in signs.items() if sign != " "}


@pytest.mark.parametrize(
    ("policy", "holder", "nodes", "now", "kind", "node", "epoch"),
    [
        (AUTO, Holder(), "+++", 0.0, Kind.MOVE, "api1", 1),
        (AUTO, Holder(), "-++", 0.0, Kind.MOVE, "api2", 1),
        (AUTO, Holder(), "---", 0.0, Kind.WAIT, None, 0),
        (MANUAL, Holder(), "---", 0.0, Kind.MOVE, "api1", 1),
        (AUTO, Holder("api1", 4), "+++", 0.0, Kind.KEEP, "api1", 4),
        (AUTO, Holder("api2", 4), "+++", 99.0, Kind.KEEP, "api2", 4),  # fail-back is manual
        (AUTO, Holder("api1", 4), "-++", 9.9, Kind.WAIT, "api1", 4),  # it may come back
        (AUTO, Holder("api1", 4), "-++", 10.0, Kind.MOVE, "api2", 5),
        (AUTO, Holder("api1", 4), "--+", 10.0, Kind.MOVE, "api3", 5),
        (AUTO, Holder("api1", 4), "---", 99.0, Kind.WAIT, "api1", 4),
        (AUTO, Holder("api1", 4), "d++", 0.0, Kind.MOVE, "api2", 5),  # people said so: at once
        (AUTO, Holder("api1", 4), " ++", 0.0, Kind.MOVE, "api2", 5),
        (AUTO, Holder("old", 4), "+++", 0.0, Kind.MOVE, "api1", 5),
        (MANUAL, Holder("api1", 4), "-++", 99.0, Kind.WAIT, "api1", 4),
        (MANUAL, Holder("api1", 4), "d++", 99.0, Kind.WAIT, "api1", 4),
        (MANUAL, Holder("old", 4), "-++", 0.0, Kind.MOVE, "api2", 5),
        (BACK, Holder("api2", 4), "+++", 9.9, Kind.KEEP, "api2", 4),
        (BACK, Holder("api2", 4), "+++", 10.0, Kind.MOVE, "api1", 5),
        (BACK, Holder("api3", 4), "-++", 10.0, Kind.MOVE, "api2", 5),
        (Policy(()), Holder(), "+++", 0.0, Kind.WAIT, None, 0),
    ],
)
def test_who_holds_it(
    policy: Policy, holder: Holder, nodes: str, now: float, kind: Kind, node: str | None, epoch: int
) -> None:
    decision = decide(policy, holder, standings(nodes), now)
    assert (decision.kind, decision.holder) == (kind, Holder(node, epoch))
    assert decision.reason


def test_waiting_says_when_to_ask_again() -> None:
    assert decide(AUTO, Holder("api1", 1), standings("-++"), 4.0).again_in_s == 6.0
    assert decide(AUTO, Holder("api1", 1), standings("-++", since=100.0), 104.0).again_in_s == 6.0
    assert decide(BACK, Holder("api2", 1), standings("+++", since=100.0), 104.0).again_in_s == 6.0
    assert decide(BACK, Holder("api2", 1), standings("+++"), 4.0).again_in_s == 6.0


def test_a_steady_node_takes_it_back_even_while_a_better_one_flaps() -> None:
    nodes = {"api1": Standing(True, 99.0), "api2": Standing(True, 0.0), "api3": Standing(True, 0.0)}
    assert decide(BACK, Holder("api3", 1), nodes, 100.0).holder == Holder("api2", 2)


def test_an_older_epoch_is_never_decided_upon() -> None:
    decision = decide(AUTO, Holder("api1", 4), standings("-++"), 99.0, highest_epoch=7)
    assert (decision.kind, decision.holder) == (Kind.CATCH_UP, Holder("api1", 4))
    assert "7" in decision.reason


def test_a_person_appoints_above_every_epoch() -> None:
    assert appoint(Holder("api1", 0), "api3", "ops").holder == Holder("api3", 1)
    moved = appoint(Holder("api1", 4), "api3", "ops", highest_epoch=7)
    assert (moved.kind, moved.holder) == (Kind.MOVE, Holder("api3", 8))
    assert "ops" in moved.reason
    assert appoint(Holder("api1", 4), "api1", "ops").kind is Kind.KEEP


class DesignationMachine(RuleBasedStateMachine):
    """Two balancers over one store with compare-and-set; nodes come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = standings("+++")
        self.store = Holder()
        self.known = [Holder(), Holder()]
        self.history: list[Holder] = []

    @rule(seconds=st.integers(0, 15))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(ORDER), up=st.booleans(), deliberate=st.booleans())
    def node_changes(self, name: str, up: bool, deliberate: bool) -> None:
        if self.nodes[name].available is not up:
            self.nodes[name] = Standing(up, self.now, deliberate)

    @rule(who=st.integers(0, 1), policy=st.sampled_from((AUTO, MANUAL, BACK)))
    def balancer_decides(self, who: int, policy: Policy) -> None:
        decision = decide(policy, self.known[who], self.nodes, self.now, self.store.epoch)
        if decision.kind is Kind.CATCH_UP:
            self.known[who] = self.store
        elif decision.kind is Kind.MOVE:
            self._remember(who, decision)

    @rule(who=st.integers(0, 1), node=st.sampled_from(ORDER))
    def person_appoints(self, who: int, node: str) -> None:
        decision = appoint(self.known[who], node, "ops", self.store.epoch)
        if decision.kind is Kind.MOVE:
            self._remember(who, decision)

    def _remember(self, who: int, decision: Decision) -> None:
        """Compare-and-set on the epoch, as a store does it."""
        if decision.holder.epoch == self.store.epoch + 1:
            self.store = self.known[who] = decision.holder
            self.history.append(decision.holder)

    @invariant()
    def epochs_only_grow_and_each_names_one_node(self) -> None:
        assert [holder.epoch for holder in self.history] == list(range(1, len(self.history) + 1))
        assert all(known.epoch <= self.store.epoch for known in self.known)
        for known in self.known:
            assert known.epoch == 0 or known == self.history[known.epoch - 1]


TestDesignationMachine = DesignationMachine.TestCase
