"""What would happen to a request: rule, node and why not the others, without sending anything."""

from dataclasses import replace
from typing import Any

import pytest

from balancer.control.explain import Asked, Situation, Standing, explain
from balancer.model import (
    Admin,
    Balance,
    Designation,
    Forwarding,
    HashKey,
    Health,
    Match,
    Node,
    Pause,
    Policy,
    Route,
    Snapshot,
)

NODES = tuple(
    Node(name, slot, "127.0.0.1", 9000 + slot, capacity=4) for slot, name in enumerate(("api1", "api2", "api3"))
)
PING = Route("node-ping", 0, Match(path="/arvados/v1/nodes/{uuid}/ping"), designated="dns", park=False, retry=False)
SNAPSHOT = Snapshot(
    1,
    "x",
    nodes=NODES,
    routes=(PING,),
    designations=(Designation("dns", ("api1", "api2"), "api2", 3),),
    forwarding=Forwarding(
        trusted_proxies=("10.0.0.0/8",), internal_networks=("192.168.0.0/16",), external_client_header=True
    ),
)


def situation(snapshot: Snapshot = SNAPSHOT, /, **changes: Standing) -> Situation:
    standings = {node.name: Standing(Health.HEALTHY, 0, 0.0) for node in snapshot.nodes}
    return Situation(snapshot, standings | changes, now_s=1000.0)


def why_not(found: dict[str, Any]) -> dict[str, str]:
    return {node["name"]: node["why_not"] for node in found["nodes"]}


def test_the_least_loaded_node_is_chosen_and_the_next_ones_follow() -> None:
    now = situation(
        api1=Standing(Health.HEALTHY, 3, 0.0),
        api2=Standing(Health.HEALTHY, 1, 0.0),
        api3=Standing(Health.HEALTHY, 2, 0.0),
    )
    found = explain(Asked("GET", "/x"), now)
    assert found["preference"] == ["api2", "api3", "api1"]
    assert found["outcome"] == "goes to api2 (least_requests)"
    assert found["route"]["why"] == "no rule matches: any node"


def test_each_node_says_why_it_would_not_get_it() -> None:
    nodes = (
        replace(NODES[0], admin=Admin.DRAINING),
        replace(NODES[1], weight=0),
        NODES[2],
        Node("api4", 3, "127.0.0.1", 9003),
    )
    now = situation(
        replace(SNAPSHOT, nodes=nodes),
        api3=Standing(Health.HEALTHY, 4, 0.0),
        api4=Standing(Health.UNHEALTHY, 0, 0.0, "connection refused"),
    )
    found = explain(Asked("GET", "/x"), now)
    assert why_not(found) == {
        "api1": "it is draining",
        "api2": "its weight is 0",
        "api3": "at its capacity: 4 of 4 in flight",
        "api4": "its checks fail: connection refused",
    }
    assert found["chosen"] is None
    assert found["outcome"].startswith("waits in the queue")


@pytest.mark.parametrize(
    "target",
    [
        "/arvados/v1/nodes/zzzzz-7ekkf-1/ping",
        "/arvados//v1/nodes/zzzzz/pin%67/?ping_secret=hush",
        "/arvados/v1/nodes/z/ping.json",
    ],
)
def test_a_ping_in_any_spelling_goes_to_the_designated_node(target: str) -> None:
    found = explain(Asked("POST", target), situation())
    assert (found["chosen"], found["route"]["name"]) == ("api2", "node-ping")
    assert found["headers"]["set"]["X-Arv-Designation"] == "dns;epoch=3"
    assert "hush" not in str(found)
    assert found["retry"]["text"] == "never: no other node is available"


def test_a_pause_holds_all_but_what_is_exempt() -> None:
    paused = replace(SNAPSHOT, pause=Pause(2000.0, "failover"))
    assert explain(Asked("GET", "/x"), situation(paused))["outcome"] == "waits: traffic is paused (failover)"
    assert (
        explain(Asked("POST", "/arvados/v1/nodes/z/ping"), situation(paused))["outcome"] == "goes to api2 (designated)"
    )


def test_without_any_node_it_waits_or_fails_as_its_rule_says() -> None:
    down = {node.name: Standing(Health.UNHEALTHY, 0, 0.0) for node in NODES}
    assert explain(Asked("GET", "/x"), situation(**down))["outcome"].startswith("waits for at most 120 s")
    assert explain(Asked("GET", "/arvados/v1/nodes/z/ping"), situation(**down))["outcome"].startswith("gets 503")


def test_header_changes_are_those_of_the_byte_path() -> None:
    asked = Asked(
        "GET",
        "/x",
        (
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("X_Under", "1"),
            ("X-Forwarded-For", "192.168.1.9"),
            ("X-Request-Id", "req-mine"),
            ("X-Arv-Designation", "dns;epoch=99"),
        ),
        peer="10.0.0.7",
    )
    headers = explain(asked, situation())["headers"]
    assert headers["client"] == "192.168.1.9"
    assert headers["removed"] == ["Connection", "X-Hop", "X_Under", "X-Arv-Designation"]
    assert headers["set"]["X-Forwarded-For"] == "192.168.1.9, 10.0.0.7"
    assert headers["set"]["X-External-Client"] == "0"
    assert headers["set"]["X-Request-Id"] == "req-mine"
    two = replace(asked, headers=(("X-Request-Id", "a"), ("X-Request-Id", "b")))
    assert "a new id" in explain(two, situation())["headers"]["set"]["X-Request-Id"]


def test_what_may_be_repeated_is_what_the_one_rule_about_retries_says() -> None:
    get, post = (explain(Asked(method, "/x"), situation())["retry"] for method in ("GET", "POST"))
    assert get["text"] == "up to 2 times on another node after connect, reset, truncated"
    assert post["text"] == "up to 2 times on another node after connect"
    fixed = replace(SNAPSHOT, routes=(replace(PING, designated=None),))
    ping = explain(Asked("GET", "/arvados/v1/nodes/z/ping"), situation(fixed))["retry"]
    assert ping["text"] == "up to 2 times on another node after connect"
    assert ping["verdicts"]["reset"] == "give-up: rule node-ping does not repeat requests"
    override = explain(Asked("POST", "/x", (("X-Http-Method-Override", "GET"),)), situation())
    assert override["effective_method"] == "GET"


def test_a_hash_policy_keeps_a_client_on_its_node() -> None:
    hashed = replace(SNAPSHOT, balance=Balance(policy=Policy.HASH, hash_key=HashKey.COOKIE, hash_name="sid"))

    def chosen(sid: str) -> object:
        return explain(Asked("GET", "/x", (("Cookie", f"a=b; sid={sid}"),)), situation(hashed))["chosen"]

    assert all(chosen(f"s{n}") == chosen(f"s{n}") for n in range(20))
    assert len({chosen(f"s{n}") for n in range(50)}) == 3


def test_slow_start_shows_in_the_effective_weight() -> None:
    found = explain(Asked("GET", "/x"), situation(api1=Standing(Health.HEALTHY, 0, healthy_since_s=995.0)))
    weights = {node["name"]: node["effective_weight"] for node in found["nodes"]}
    assert weights == {"api1": 50, "api2": 100, "api3": 100}
