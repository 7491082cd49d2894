"""Desired minus published is the plan; what is not ours is never touched."""

from hypothesis import given
from hypothesis import strategies as st

from dnsupdate.plan import Change, Guard, Plan, Policy, Standing, State, brake, make, rrsets, settle
from dnsupdate.records import Contribution
from dnsupdate.settings import Brake

ZONE = "z.example."
POLICY = Policy(owner="xarv1")


def claim(name: str, data: str, host: str, gen: int = 1, **more: object) -> Contribution:
    given_ = {"target": "main", "zone": ZONE, "rdtype": "A", "ttl": 60, **more}
    return Contribution(name=f"{name}.{ZONE}", rdata=data, host=host, gen=gen, **given_)  # type: ignore[arg-type]


def planned(desired: list[Contribution], published: list[Contribution], *hosts: str, **state: object) -> Plan:
    return make(desired, frozenset(hosts), State(published=tuple(published), **state), POLICY)  # type: ignore[arg-type]


def only(plan: Plan) -> Change:
    (change,) = plan.changes
    return change


def test_a_new_name_is_made_only_where_nothing_is() -> None:
    change = only(planned([claim("a", "192.0.2.1", "A")], [], "A"))
    assert change.guard is Guard.ABSENT
    assert change.mark
    assert not change.deletes


def test_what_is_published_already_is_not_sent_again() -> None:
    assert planned([claim("a", "192.0.2.1", "A")], [claim("a", "192.0.2.1", "A")], "A").changes == ()


def test_a_changed_name_is_replaced_only_where_our_marker_is() -> None:
    change = only(planned([claim("a", "192.0.2.2", "A", 2)], [claim("a", "192.0.2.1", "A")], "A"))
    assert change.guard is Guard.MARKER
    assert change.types == ("A",)
    assert not change.mark


def test_only_the_types_that_differ_are_sent() -> None:
    old = [claim("a", "192.0.2.1", "A"), claim("a", '"x"', "A", rdtype="TXT")]
    new = [claim("a", "192.0.2.1", "A"), claim("a", '"y"', "A", rdtype="TXT")]
    assert only(planned(new, old, "A")).types == ("TXT",)


def test_a_ttl_alone_is_a_change() -> None:
    assert only(planned([claim("a", "192.0.2.1", "A", ttl=30)], [claim("a", "192.0.2.1", "A")], "A")).types == ("A",)


def test_an_address_swap_moves_both_names_at_once() -> None:
    old = [claim("a", "192.0.2.1", "A"), claim("b", "192.0.2.2", "B")]
    new = [claim("a", "192.0.2.2", "A", 2), claim("b", "192.0.2.1", "B", 3)]
    plan = planned(new, old, "A", "B")
    assert {(change.name, change.after[0].rdatas) for change in plan.changes} == {
        (f"a.{ZONE}", ("192.0.2.2",)), (f"b.{ZONE}", ("192.0.2.1",))
    }  # fmt: skip


def test_a_shared_set_is_the_union_and_loses_only_what_its_host_gave() -> None:
    shared = [claim("s", f"192.0.2.{n}", f"H{n}", shared=True) for n in (1, 2, 3)]
    change = only(planned([], shared, "H2"))
    assert change.after[0].rdatas == ("192.0.2.1", "192.0.2.3")


def test_the_newest_claim_on_a_name_wins_and_the_loser_is_told() -> None:
    plan = planned([claim("a", "192.0.2.2", "B", 2)], [claim("a", "192.0.2.1", "A", 1)], "B")
    assert only(plan).after[0].rdatas == ("192.0.2.2",)
    assert [(one.host, one.name) for one in plan.conflicts] == [("A", f"a.{ZONE}")]


def test_an_absent_host_gives_way_without_a_word() -> None:
    living, absent = claim("a", "192.0.2.1", "A", 1), claim("a", "127.40.4.0", "was:a", 9, yields=True)
    plan = planned([living, absent], [], "A", "was:a")
    assert only(plan).after[0].rdatas == ("192.0.2.1",)
    assert plan.conflicts == ()


def test_a_foreign_name_is_a_conflict_and_is_left_alone() -> None:
    key = (ZONE, f"a.{ZONE}")
    plan = planned([claim("a", "192.0.2.1", "A")], [], "A", standing={key: Standing.FOREIGN})
    assert plan.changes == ()
    assert plan.conflicts[0].host == "A"
    assert "not ours" in plan.conflicts[0].text


def test_an_operators_word_takes_a_foreign_name_over() -> None:
    key = (ZONE, f"a.{ZONE}")
    desired = [claim("a", "192.0.2.1", "A")]
    plan = planned(desired, [], "A", standing={key: Standing.FOREIGN}, adopted=frozenset({key}))
    assert only(plan).guard is Guard.NONE
    assert only(plan).mark


def test_mode_adopt_takes_only_what_is_equal_already() -> None:
    key = (ZONE, f"a.{ZONE}")
    desired = [claim("a", "192.0.2.1", "A")]
    policy = Policy(owner="xarv1", conflict="adopt")
    equal = State(standing={key: Standing.FOREIGN}, foreign={key: rrsets(desired)})
    other = State(standing={key: Standing.FOREIGN}, foreign={key: rrsets([claim("a", "192.0.2.9", "A")])})
    assert only(make(desired, frozenset("A"), equal, policy)).guard is Guard.VALUE
    assert make(desired, frozenset("A"), other, policy).changes == ()


def test_what_may_be_on_its_way_is_sent_again_although_the_table_says_it_is_there() -> None:
    there = [claim("a", "192.0.2.1", "A")]
    plan = planned(there, there, "A", unsure=frozenset({(ZONE, f"a.{ZONE}", "A")}))
    assert only(plan).types == ("A",)


def test_an_unsure_name_that_nobody_wants_is_deleted_if_it_is_ours_and_forgotten_if_it_is_free() -> None:
    key, unsure = (ZONE, f"a.{ZONE}"), frozenset({(ZONE, f"a.{ZONE}", "A")})
    assert only(planned([], [], unsure=unsure, standing={key: Standing.OURS})).deletes
    assert planned([], [], unsure=unsure, standing={key: Standing.FREE}).changes == ()
    assert planned([], [], unsure=unsure, standing={key: Standing.FOREIGN}).changes == ()


def test_a_cname_is_alone_or_not_at_all() -> None:
    held, losers = settle([claim("a", "b.", "A", rdtype="CNAME"), claim("a", "192.0.2.1", "A")])
    assert [one.rdtype for one in held] == ["A"]
    assert "CNAME" in losers[0].text


def test_without_markers_a_deletion_needs_the_value_that_we_wrote() -> None:
    policy = Policy(owner="xarv1", ownership="none")
    plan = make([], frozenset("A"), State(published=(claim("a", "192.0.2.1", "A"),)), policy)
    assert only(plan).guard is Guard.VALUE
    assert only(plan).expected[0].rdatas == ("192.0.2.1",)


def test_the_brake_counts_hosts_and_their_share() -> None:
    limits = Brake()
    assert brake(0, 500, 1000, limits) is None
    assert brake(20, 0, 1000, limits) is None
    assert "21 hosts would" in str(brake(21, 0, 1000, limits))
    assert "21 hosts would" in str(brake(1, 20, 1000, limits))
    assert brake(3, 0, 10, limits) is None
    assert "4 of 10 hosts would" in str(brake(4, 0, 10, limits))
    assert brake(4, 0, 9, limits) is None


CLAIMS = st.lists(
    st.builds(
        lambda name, data, host, gen, shared, kind: claim(
            name, f"192.0.2.{data}" if kind == "A" else f'"{data}"', host, gen, shared=shared, rdtype=kind
        ),
        st.sampled_from("abc"),
        st.integers(1, 4),
        st.sampled_from(["A", "B", "C"]),
        st.integers(1, 5),
        st.just(False) | st.booleans(),
        st.sampled_from(["A", "TXT"]),
    ),
    max_size=8,
)


@given(desired=CLAIMS, published=CLAIMS)
def test_a_plan_that_was_applied_leaves_nothing_to_do(
    desired: list[Contribution], published: list[Contribution]
) -> None:
    hosts = frozenset("ABC")
    held = [one for key in {c.name for c in published} for one in settle([c for c in published if c.name == key])[0]]
    plan = make(desired, hosts, State(published=tuple(held)), POLICY)
    after = [one for found in plan.contributions.values() for one in found]
    assert make(desired, hosts, State(published=tuple(after)), POLICY).changes == ()


@given(desired=CLAIMS, published=CLAIMS)
def test_every_change_carries_a_guard_and_foreign_names_never_change(
    desired: list[Contribution], published: list[Contribution]
) -> None:
    foreign = {(ZONE, f"{name}.{ZONE}"): Standing.FOREIGN for name in "abc"}
    plan = make(desired, frozenset("ABC"), State(published=tuple(published), standing=foreign), POLICY)
    assert plan.changes == ()
    plan = make(desired, frozenset("ABC"), State(published=tuple(published)), POLICY)
    assert all(change.guard in (Guard.ABSENT, Guard.MARKER) for change in plan.changes)
