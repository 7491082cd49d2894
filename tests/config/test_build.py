"""Snapshots from configurations: settings, overlays, slots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer import model
from balancer import snapshot as wire
from balancer.config.build import snapshot
from balancer.config.overlay import AddedNode, Holder, NodeIntent, Overlay
from balancer.config.reference import keys
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


# Every key of the sections that workers run on, another value for it, and where it has to arrive.
ARRIVALS = (
    ("balance.policy", "round_robin", "balance.policy", model.Policy.ROUND_ROBIN),
    ("balance.hash.by", "cookie, name: sid", "balance.hash_key", model.HashKey.COOKIE),
    ("balance.hash.name", "sid, by: header", "balance.hash_name", "sid"),
    ("balance.slow_start", "3s", "balance.slow_start_s", 3.0),
    ("balance.min_serving", "0", "balance.min_serving", 0),
    ("retry.retries", "1", "retry.retries", 1),
    ("retry.on", "[connect]", "retry.on", ("connect",)),
    ("retry.budget.ratio", "5%", "retry.budget_ratio", 0.05),
    ("retry.budget.window", "1m", "retry.budget_window_s", 60.0),
    ("retry.budget.min", "1", "retry.budget_min", 1),
    ("queue.max", "1", "queue.max", 1),
    ("queue.timeout", "1s", "queue.timeout_s", 1.0),
    ("park.max", "100", "park.max", 100),
    ("park.max_bytes", "1MiB", "park.max_bytes", 1 << 20),
    ("park.max_per_client", "0", "park.max_per_client", 0),
    ("park.timeout", "10m", "park.timeout_s", 600.0),
    ("park.release", "30/m", "park.release_per_s", 0.5),
    ("park.half_close", "allow", "limits.half_close", True),
    ("drain.timeout", "1s", "drain.timeout_s", 1.0),
    ("drain.tunnel_grace", "0s", "drain.tunnel_grace_s", 0.0),
    ("request_id.header", "X-Id", "request_id.header", "X-Id"),
    ("request_id.format", "uuid", "request_id.format", "uuid"),
    ("request_id.accept", "'a+'", "request_id.accept", "a+"),
    ("limits.header_bytes", "32KiB", "limits.header_bytes", 32 << 10),
    ("limits.header_field_bytes", "4KiB", "limits.header_field_bytes", 4 << 10),
    ("limits.header_count", "5", "limits.header_count", 5),
    ("limits.target_bytes", "100", "limits.target_bytes", 100),
    ("limits.body", "0B", "limits.body_bytes", 0),
    ("limits.chunk_extensions", "0B", "limits.chunk_extension_bytes", 0),
    ("limits.trailers", "1KiB", "limits.trailer_bytes", 1 << 10),
    ("limits.connections", "5", "limits.connections", 5),
    ("limits.requests_per_connection", "5", "limits.requests_per_connection", 5),
    ("limits.min_rate", "0B/s", "limits.min_rate_bytes_per_s", 0),
    ("limits.min_rate_after", "1s", "limits.min_rate_after_s", 1.0),
    ("limits.tunnels", "5", "limits.tunnels", 5),
    ("limits.buffered_response", "0B", "limits.buffered_response_bytes", 0),
    ("timeouts.header", "1s", "timeouts.header_s", 1.0),
    ("timeouts.body_idle", "1s", "timeouts.body_idle_s", 1.0),
    ("timeouts.connect", "500ms", "timeouts.connect_s", 0.5),
    ("timeouts.response", "1h", "timeouts.response_s", 3600.0),
    ("timeouts.response_idle", "1s", "timeouts.response_idle_s", 1.0),
    ("timeouts.keepalive", "1s", "timeouts.keepalive_s", 1.0),
    ("timeouts.tunnel_idle", "1s", "timeouts.tunnel_idle_s", 1.0),
    ("timeouts.upstream_idle", "1s", "timeouts.upstream_idle_s", 1.0),
    ("timeouts.send_idle", "1s", "timeouts.send_idle_s", 1.0),
    ("forwarding.external_client", "true", "forwarding.external_client_header", True),
    ("forwarding.default_host", "h", "forwarding.default_host", "h"),
    ("forwarding.via", "v", "forwarding.via", "v"),
    ("forwarding.drop_underscore", "false", "forwarding.drop_underscore", False),
    ("forwarding.drop_dotted", "false", "forwarding.drop_dotted", False),
    ("forwarding.upgrade", "[websocket]", "forwarding.upgrade_tokens", ("websocket",)),
    ("log.access", "off", "access_log.format", "off"),
    ("log.path", "/var/log/x", "access_log.path", "/var/log/x"),
    ("log.redact", "[a]", "access_log.redact", ("a",)),
    ("log.level", "debug", "", None),  # the control process and the parent read it themselves
)


def _in_snapshot(text: str, path: str) -> object:
    found: object = snapshot(loaded(text).require(), generation=1).snapshot
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("key", "value", "path", "expected"), ARRIVALS, ids=[row[0] for row in ARRIVALS])
def test_every_setting_arrives_in_the_snapshot(key: str, value: str, path: str, expected: object) -> None:
    *sections, last = key.split(".")
    text = (
        SMALL + "internal_networks: [10.0.0.0/8]\n" + ": {".join([*sections, f"{last}: {value}"]) + "}" * len(sections)
    )
    if path:
        assert _in_snapshot(text, path) == expected
        assert _in_snapshot(SMALL, path) != expected, "the default would have passed too"


def test_no_setting_of_these_sections_is_forgotten() -> None:
    sections = tuple(f"{row[0].split('.')[0]}." for row in ARRIVALS)
    leaves = {key.path for key in keys() if key.path.startswith(sections) and key.child is None}
    assert leaves == {row[0] for row in ARRIVALS}


def test_routes_arrive_with_all_their_conditions() -> None:
    text = SMALL + (
        "routes:\n  - {name: r, match: {path: /a/*, host: h, methods: [GET], headers: {X-A: b, X-B:}},\n"
        "     to: {nodes: [api2]}, park: false, retry: false, timeout: 5s}\n"
    )
    (route,) = snapshot(loaded(text).require(), generation=1).snapshot.routes
    match = model.Match("/a/*", "h", ("GET",), (("x-a", "b"), ("x-b", None)))
    assert route == model.Route("r", 0, match, None, ("api2",), 5.0, park=False, retry=False)
