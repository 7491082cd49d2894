"""Access log lines: valid whatever is in them, and without secrets in any spelling."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.exchange import Cause
from balancer.model import AccessLog
from balancer.observe.accesslog import TERMINATION, is_plain, make_formatter, quoted

NAMES = AccessLog().redact


class Clock:
    def iso(self, mono_ns: int) -> bytes:
        return b"2026-11-24T07:00:00.%03dZ" % (mono_ns // 1_000_000 % 1000)

    combined = haproxy = iso


@dataclass
class Client:
    peer: str = "192.0.2.7"
    port: int = 4321


@dataclass
class Routed:
    name: bytes = b"r"


@dataclass
class Entry:
    client: Client = field(default_factory=Client)
    target: Routed = field(default_factory=Routed)
    client_address: str = ""
    method: bytes = b"GET"
    path: bytes = b"/p?q=1"
    http11: bool = True
    agent: bytes = b"curl/8"
    request_id: bytes = b"req-1"
    status: int = 200
    request_bytes: int = 0
    response_bytes: int = 1024
    last_node: bytes = b"n1"
    history: bytes = b""
    attempts: int = 1
    retry_reason: str = ""
    started_at: int = 1_000_000_000
    chosen_at: int = 1_000_000_000
    connected_at: int = 1_000_000_000
    first_byte_at: int = 1_250_000_000
    waited_ns: int = 0
    cause: Cause = Cause.OK


def line_of(entry: Entry, kind: str = "json", now: int = 1_250_000_000) -> bytes:
    formatter = make_formatter(AccessLog(format=kind))
    assert formatter is not None
    return formatter(entry, Clock(), now)


def parsed(entry: Entry, now: int = 1_250_000_000) -> dict[str, Any]:
    line = line_of(entry, now=now)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_an_ordinary_line_holds_the_facts() -> None:
    found = parsed(Entry(), now=1_300_000_000)
    assert found["url.path"] == "/p"
    assert found["url.query"] == "q=1"
    assert found["http.response.status_code"] == 200
    assert found["http.server.request.duration"] == 0.3
    assert found["arv.ttfb_s"] == 0.25
    assert found["client.address"] == "192.0.2.7"
    assert (found["arv.attempts"], found["arv.queue_s"], found["arv.connect_s"]) == (1, 0, 0)
    assert (found["arv.bytes_in"], found["arv.bytes_out"]) == (0, 1024)
    assert found["arv.termination"] == "ok"


@pytest.mark.parametrize(
    ("entry", "key", "value"),
    [
        (Entry(attempts=2, history=b"n1:reset,n2:200", retry_reason="reset"), "arv.retry_reason", "reset"),
        (Entry(waited_ns=2_000_000_000), "arv.queue_s", 2.0),
        (Entry(connected_at=1_001_000_000), "arv.connect_s", 0.001),
        (Entry(chosen_at=0, connected_at=0, first_byte_at=0), "arv.attempts", 0),
        (Entry(first_byte_at=0), "arv.ttfb_s", 0.0),
        (Entry(http11=False), "network.protocol.version", "1.0"),
        (Entry(client_address="198.51.100.9"), "client.address", "198.51.100.9"),
        (Entry(path=b"*"), "url.query", ""),
    ],
)
def test_what_is_not_ordinary_shows(entry: Entry, key: str, value: object) -> None:
    assert parsed(entry)[key] == value


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_json_line_is_valid_whatever_the_client_sent(path: bytes, agent: bytes) -> None:
    parsed(Entry(path=path, agent=agent, cause=Cause.MALFORMED))


@given(st.binary(max_size=40).map(lambda text: b"/" + bytes(33 + byte % 94 for byte in text)))
def test_a_json_line_of_a_request_that_was_forwarded_is_valid(target: bytes) -> None:
    found = parsed(Entry(path=target))
    query = found["url.query"]
    assert found["url.path"] + (f"?{query}" if b"?" in target else "") == target.decode()


@given(st.binary(max_size=40))
def test_what_is_plain_needs_no_quoting_and_all_else_gets_it(value: bytes) -> None:
    text = json.loads(b'"' + quoted(value) + b'"')
    assert text.encode("latin-1") == value
    if is_plain(value):
        assert json.loads(json.dumps(value.decode())) == value.decode()


SPELLINGS = ("{0}", "{0}[]", "{0}[a][b]", "%61{1}", "+{0}", "{0}+", "{0}%5B%5D", "{2}", "%41{1}")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.sampled_from(SPELLINGS), st.sampled_from("&;"), st.sampled_from(["", "x=%2B&"])
        ),
        min_size=1,
        max_size=4,
    )
)
def test_no_spelling_of_a_secret_parameter_gets_its_value_into_the_log(pairs: list[tuple[str, str, str, str]]) -> None:
    query = ""
    for name, spelling, separator, before in pairs:
        known = "api_token" if "%" in spelling[:1] else name
        written = spelling.format(known, known[1:], known.upper())
        query += f"{before}{written}=HIDDEN{separator}"
    for kind in ("json", "combined", "haproxy"):
        assert b"HIDDEN" not in line_of(Entry(path=b"/p?" + query.encode()), kind)


@pytest.mark.parametrize("kind", ["json", "combined", "haproxy"])
@pytest.mark.parametrize("path", ["/login?return_to=https%3A%2F%2Fw%2F%3Fapi_token%3DHIDDEN", "/api_token=HIDDEN/x"])
def test_a_secret_inside_another_value_or_the_path_is_left_out(kind: str, path: str) -> None:
    assert b"HIDDEN" not in line_of(Entry(path=path.encode()), kind)


@pytest.mark.parametrize("kind", ["combined", "haproxy"])
def test_the_other_formats_redact_and_quote(kind: str) -> None:
    line = line_of(Entry(path=b'/p"?api_token=HIDDEN'), kind)
    assert b"HIDDEN" not in line
    assert b'\\"' in line


def test_every_cause_has_its_letters() -> None:
    assert set(TERMINATION) == set(Cause)
