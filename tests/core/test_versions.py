"""Which version is the accepted one, and who differs."""

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.versions import Reading, judge

OLD, NEW = "3.2.1", "3.3.0"


def readings(**versions: str) -> dict[str, Reading]:
    return {name: Reading(version, answers=True) for name, version in versions.items()}


def test_the_first_version_is_that_of_most_nodes() -> None:
    found = judge("", readings(api1=NEW, api2=OLD, api3=OLD))
    assert (found.accepted, found.differing, found.remember) == (OLD, frozenset({"api1"}), True)


def test_nothing_is_remembered_before_every_node_was_looked_at() -> None:
    found = judge("", readings(api1=NEW) | {"api2": Reading(looked_at=False)})
    assert (found.accepted, found.remember) == (NEW, False)


def test_a_remembered_version_does_not_move_before_every_node_was_looked_at() -> None:
    found = judge(OLD, readings(api1=NEW) | {"api2": Reading(looked_at=False)})
    assert (found.accepted, found.differing) == (OLD, frozenset({"api1"}))


def test_one_upgraded_node_is_different_and_all_of_them_are_not() -> None:
    assert judge(OLD, readings(api1=NEW, api2=OLD)).differing == {"api1"}
    found = judge(OLD, readings(api1=NEW, api2=NEW))
    assert (found.accepted, found.differing, found.remember) == (NEW, frozenset(), True)
    assert "all 2 nodes" in found.reason


def test_drained_and_silent_nodes_have_no_vote_but_are_told_apart_later() -> None:
    others = {"api2": Reading(OLD, enabled=False, answers=True), "api3": Reading(OLD, answers=False)}
    found = judge(OLD, readings(api1=NEW) | others)
    assert (found.accepted, found.differing) == (NEW, frozenset({"api2", "api3"}))


def test_unknown_is_neither_different_nor_a_vote() -> None:
    found = judge(OLD, readings(api1="", api2=OLD))
    assert (found.accepted, found.differing) == (OLD, frozenset())
    assert judge("", readings(api1="", api2="")).accepted == ""


def test_mixed_versions_may_be_allowed() -> None:
    assert judge(OLD, readings(api1=NEW, api2=OLD), allow_mixed=True).differing == frozenset()


any_reading = st.builds(
    Reading, st.sampled_from(["", OLD, NEW]), enabled=st.booleans(), answers=st.booleans(), looked_at=st.booleans()
)


@given(st.sampled_from(["", OLD, NEW]), st.dictionaries(st.sampled_from("abcd"), any_reading))
def test_what_differs_is_known_and_another_version(accepted: str, nodes: dict[str, Reading]) -> None:
    found = judge(accepted, nodes)
    assert all(nodes[name].version not in {"", found.accepted} for name in found.differing)
    if accepted and found.accepted != accepted:
        voters = [item.version for item in nodes.values() if item.enabled and item.answers and item.version]
        assert voters
        assert set(voters) == {found.accepted}
    assert judge(found.accepted, nodes).accepted == found.accepted, "a second look changes nothing"
