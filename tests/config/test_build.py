"""Snapshots from configurations: settings, overlays, slots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer import model
from balancer import snapshot as wire
from balancer.config.build import snapshot
from balancer.config.overlay import AddedNode, Holder, NodeIntent, Overlay
from balancer.config.slots import Slots, assign
from balancer.errors import ConfigError
from tests.config.support import SMALL, loaded


def test_a_minimal_file_gives_the_snapshot_defaults() -> None:
    made = snapshot(loaded(SMALL).require(), generation=7).snapshot
    plain = model.Snapshot(generation=7, cluster="default")
    for name in ("balance", "retry", "queue", "park", "drain", "request_id", "limits", "timeouts", "forwarding"):
        assert getattr(made, name) == getattr(plain, name), name
    assert [(n.name, n.slot, n.host, n.port) for n in made.nodes] == [
        ("api1", 0, "127.0.0.1", 9001),
        ("api2", 1, "127.0.0.1", 9002),
    ]
    assert wire.decode(wire.encode(made)) == made


def test_the_arvados_preset_routes_pings_to_the_designated_node() -> None:
    made = snapshot(loaded("preset: arvados" + SMALL).require(), generation=1).snapshot
    assert [(r.name, r.match.path, r.designated) for r in made.routes] == [
        ("node-ping", "/arvados/v1/nodes/{uuid}/ping", "dns")
    ]
    assert made.designations == (model.Designation("dns", ("api1", "api2"), None, 0),)
    assert not made.forwarding.external_client_header, "without internal networks every client would be external"
    assert made.timeouts.response_s > 300


def test_internal_networks_make_the_arvados_preset_tell_nodes_who_is_external() -> None:
    text = "preset: arvados\ninternal_networks: [10.0.0.0/8]" + SMALL
    forwarding = snapshot(loaded(text).require(), generation=1).snapshot.forwarding
    assert forwarding.external_client_header
    assert forwarding.internal_networks == ("10.0.0.0/8",)


def test_what_the_file_says_wins_over_the_preset() -> None:
    config = loaded(
        """
        preset: arvados
        listen: [{bind: "127.0.0.1:8080"}]
        nodes: {a: {url: "http://127.0.0.1:1"}}
        health: {path: /other}
        timeouts: {response: 400s}
        routes:
          - {name: mine, match: {methods: [GET]}}
          - {name: node-ping, match: {path: /ping}, to: {nodes: [a]}}
        """
    ).require()
    assert (config.health.path, config.health.expect.json_) == ("/other", {"health": "OK"})
    assert [str(config.timeouts.response), float(config.timeouts.response_idle)] == ["400s", 310.0]
    assert [(route.name, route.match.path) for route in config.routes] == [("mine", None), ("node-ping", "/ping")]


def test_the_overlay_changes_nodes_and_names_the_holder() -> None:
    overlay = Overlay(
        nodes={
            "api1": NodeIntent(admin=model.Admin.DRAINING, weight=5),
            "api9": NodeIntent(added=AddedNode("http://10.0.0.9:80", capacity=3), weight=50),
        },
        holders={"dns": Holder("api2", 4)},
        pause=model.Pause(until=12.5, reason="failover"),
    )
    made = snapshot(loaded("preset: arvados" + SMALL).require(), overlay, generation=1, workers=3).snapshot
    assert [(n.name, n.admin, n.weight, n.capacity) for n in made.nodes] == [
        ("api1", model.Admin.DRAINING, 5, 0),
        ("api2", model.Admin.ENABLED, 100, 0),
        ("api9", model.Admin.ENABLED, 50, 3),
    ]
    assert (made.designations[0].node, made.designations[0].epoch) == ("api2", 4)
    assert made.pause == model.Pause(12.5, "failover")
    assert made.workers == 3


def test_an_address_in_the_file_wins_over_one_added_at_run_time() -> None:
    overlay = Overlay(nodes={"api1": NodeIntent(added=AddedNode("http://10.9.9.9:1"))})
    made = snapshot(loaded(SMALL).require(), overlay, generation=1).snapshot
    assert [node.host for node in made.nodes] == ["127.0.0.1", "127.0.0.1"]


def test_a_name_keeps_its_slot_over_reloads_and_gets_it_back() -> None:
    first, _ = assign(["a", "b", "c"], {}, {}, size=4)
    second, gone = assign(["c", "d"], first, {}, size=4)
    assert (second, gone) == ({"c": 2, "d": 3}, {"a": 0, "b": 1})
    third, gone = assign(["c", "d", "b"], second, gone, size=4)
    assert (third, gone) == ({"c": 2, "d": 3, "b": 1}, {"a": 0})


def test_a_slot_is_reused_only_after_it_is_out_of_use() -> None:
    with pytest.raises(ConfigError, match="no slot is free for c"):
        assign(["b", "c"], {"a": 0, "b": 1}, {}, size=2, busy={0})
    assert assign(["b", "c"], {"a": 0, "b": 1}, {}, size=2) == ({"b": 1, "c": 0}, {})


def test_slots_are_found_again_in_a_running_snapshot() -> None:
    config = loaded(SMALL).require()
    before = snapshot(config, generation=1, slots=Slots(nodes={"api2": 5}, listeners={"127.0.0.1:8080": 3})).snapshot
    after = snapshot(config, generation=2, slots=Slots.of(before)).snapshot
    assert {n.name: n.slot for n in after.nodes} == {"api1": 0, "api2": 5}
    assert after.listeners[0].slot == 3


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abcdefgh"), max_size=5), st.sets(st.integers(0, 5), max_size=2)), max_size=12
    )
)
def test_over_any_reloads_names_keep_their_slots_and_busy_ones_are_left_alone(
    reloads: list[tuple[set[str], set[int]]],
) -> None:
    slots: dict[str, int] = {}
    retired: dict[str, int] = {}
    for names, busy in reloads:
        before, gone = slots, retired
        try:
            slots, retired = assign(sorted(names), before, gone, size=6, busy=busy)
        except ConfigError:
            assert len(names | busy) > 1, "there was room"
            continue
        assert set(slots) == names
        assert len(set(slots.values())) == len(slots), "two names in one slot"
        assert not set(slots.values()) & set(retired.values())
        for name, slot in slots.items():
            known = {**gone, **before}.get(name)
            assert slot == known if known is not None else slot not in busy
