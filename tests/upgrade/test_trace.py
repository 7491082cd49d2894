"""Traces: the lines of all nodes in the order in which it happened, whatever their clocks say."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from balancer.control.trace import exchanges, node_lines, traced

T0 = 1_790_000_000.0
ID = "req-aaaaaaaaaaaaaaaaaaaa"


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def access(**more: Any) -> str:
    """A line of our access log: began at T0, parked for 1 s, reset by api3, answered by api1 after 1.1 s."""
    line = {
        "timestamp": iso(T0 + 1.1), "http.request.method": "GET", "url.path": "/arvados/v1/collections",
        "url.query": "", "http.response.status_code": 200, "http.server.request.duration": 1.1,
        "client.address": "10.0.0.9", "request_id": ID, "arv.node": "api1", "arv.attempts": 2,
        "arv.history": "api3:reset", "arv.retry_reason": "reset", "arv.queue_s": 1.0, "arv.connect_s": 0.0,
        "arv.ttfb_s": 1.09, "arv.termination": "ok",
    }  # fmt: skip
    return json.dumps(line | more)


def node(at: float, words: str) -> str:
    return json.dumps({"time": iso(at), "level": "info", "msg": words, "RequestID": ID, "respStatusCode": 200})


def test_a_retried_parked_request_is_shown_in_order_though_a_clock_is_two_seconds_ahead() -> None:
    api1 = node_lines("api1", [node(T0 + 1.05 + 2, "request"), node(T0 + 1.085 + 2, "response")], ID)
    api3 = node_lines("api3", [node(T0 + 1.01, "request")], ID)
    found = traced(exchanges([access(), "rubbish", access(request_id="other")], ID), [*api1, *api3])
    assert [(line.where, line.text.split(" respStatusCode")[0]) for line in found.lines] == [
        ("balancer", "accepted: GET /arvados/v1/collections from 10.0.0.9"),
        ("balancer", "waited 1000.0 ms for the end of a pause or for a node"),
        ("api3", "request"),
        ("balancer", "api3: reset; another try"),
        ("api1", "request"),
        ("api1", "response"),
        ("balancer", "api1: first byte"),
        ("balancer", "answered 200: ok, 1100.0 ms"),
    ]
    assert set(found.skew_s) == {"api1"}
    assert abs(found.skew_s["api1"] - 2) <= 1.1  # as well as one request can tell


@given(skew=st.floats(-3600, 3600), at=st.floats(0.0, 1.0))
def test_lines_of_a_node_are_never_shown_outside_of_our_own(skew: float, at: float) -> None:
    lines = node_lines("api1", [node(T0 + at + skew, "one"), node(T0 + at + 0.05 + skew, "two")], ID)
    found = traced(exchanges([access(**{"arv.history": ""})], ID), lines)
    assert (found.lines[0].text[:8], found.lines[-1].text[:8]) == ("accepted", "answered")
    texts = [line.text for line in found.lines if line.where == "api1"]
    assert [text.split()[0] for text in texts] == ["one", "two"]
    assert all(-0.001 <= line.at_s <= 1.101 for line in found.lines)


def test_times_and_words_of_common_loggers_are_read() -> None:
    lines = [
        json.dumps({"ts": T0, "msg": f"float {ID}"}),
        json.dumps({"ts": T0 * 1000, "message": f"milliseconds {ID}"}),
        json.dumps({"time": "2026-09-21T14:13:20.123456789Z", "msg": f"go {ID}"}),
        json.dumps({"__REALTIME_TIMESTAMP": str(int(T0 * 1e6)), "MESSAGE": f"journal {ID}"}),
        json.dumps({"__REALTIME_TIMESTAMP": "5", "MESSAGE": node(T0, "nested")}),
        f"plain text with {ID}",
        json.dumps({"time": "2026-09-21T14:13:20", "msg": f"no zone {ID}"}),
        "another request",
    ]
    found = node_lines("api1", lines, ID)
    assert [line.text.split(" ")[0] for line in found] == [
        "float", "milliseconds", "go", "journal", "nested", "plain", "no",
    ]  # fmt: skip
    assert [line.at_s for line in found] == [T0, T0, T0 + 0.123456, T0, T0, None, None]


def test_an_id_that_a_client_used_twice_shows_both_exchanges() -> None:
    second = access(timestamp=iso(T0 + 5), **{"http.server.request.duration": 0.5, "arv.history": "", "arv.queue_s": 0})
    found = traced(exchanges([second, access()], ID), [])
    assert [round(exchange.ended_s - exchange.began_s, 3) for exchange in found.exchanges] == [1.1, 0.5]
    assert [line.text.split(":")[0] for line in found.lines].count("accepted") == 2


def test_a_request_that_only_nodes_know_is_shown_as_they_tell_it() -> None:
    found = traced([], node_lines("api1", [node(T0, "one"), node(T0 + 1, "two")], ID))
    assert [line.at_s for line in found.lines] == [0.0, 1.0]
    assert traced([], []).lines == ()
