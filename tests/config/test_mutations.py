"""Mistakes in a valid file: each is reported once, at its line and column, and nothing else is.

A mutation replaces one piece of the file; `<` in the new piece is where the error has to point (it is taken out).
"""

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.config.errors import Severity
from tests.config.support import loaded

BASE = """\
version: 1
cluster: xarv1
preset: arvados
listen:
  - bind: "0.0.0.0:443"
    tls:
      cert: /etc/ssl/api.pem
      key: /etc/ssl/api.key
  - bind: "127.0.0.1:8080"
    backlog: 512
    proxy_protocol: [10.0.0.0/8, 10.9.0.1]
trusted_proxies: [192.0.2.0/24]
internal_networks:
  - 10.0.0.0/8
nodes:
  api1: {url: "http://10.0.0.11:8003", weight: 100, capacity: 64}
  api2:
    url: http://10.0.0.12:8003
    weight: 50
  api3:
    url: https://10.0.0.13
    tls: {server_name: api3.example.org, verify: true}
balance: {policy: least_requests, slow_start: 10s, min_serving: 1}
designated:
  dns: {order: [api1, api2], failover: automatic, failback: manual}
  jobs: {order: [api3]}
routes:
  - {name: node-ping, match: {path: "/arvados/v1/nodes/{uuid}/ping"}, to: {designated: dns}}
  - name: batch
    match: {headers: {X-Batch: "1"}, methods: [POST]}
    to: {nodes: [api2, api3]}
    timeout: 30s
health:
  path: /_health/ping
  token: {file: /etc/arv-balance/management-token}
  expect: {json: {health: OK}}
  interval: 2s
  timeout: 1s
  rise: 2
retry: {retries: 2, on: [connect, reset], budget: {ratio: 20%, min: 10}}
queue: {max: 1024, timeout: 30s}
park:
  max: 5000
  timeout: 120s
  release: 200/s
drain: {timeout: 60s}
request_id: {format: arvados}
limits: {header_bytes: 16KiB, header_count: 100, body: 128MiB, min_rate: 240B/s}
timeouts: {connect: 3s, response: 310s}
workers: 2
admin:
  listen: "127.0.0.1:8081"
  tokens:
    - {name: ops, role: operator, file: /etc/arv-balance/ops}
    - {name: ci, role: viewer, env: CI_TOKEN}
state: {dir: /var/lib/arv-balance}
log: {access: json, redact: [api_token, ping_secret]}
"""


class Mutation(NamedTuple):
    """`message` is a part of what has to be said; of one `group` only one is made at a time."""

    old: str
    new: str
    message: str
    group: str = ""


MUTATIONS = (
    # The schema: kinds, bounds, choices, keys.
    Mutation("version: 1", "version: <2", "the number 2 is not one of 1"),
    Mutation("cluster: xarv1", "cluster: <[xarv1]", "expected a text, got a list"),
    Mutation("preset: arvados", "preset: <arvado", "'arvado' is not one of arvados"),
    Mutation("backlog: 512", 'backlog: <"512"', "expected a whole number, got the text '512'"),
    Mutation("    backlog:", "    <backlogs: 512\n    backlog:", "unknown key 'backlogs'", "backlog"),
    Mutation("10.9.0.1]", "<10.9.0.1/16]", "has bits set behind its prefix"),
    Mutation("[192.0.2.0/24]", "[<everywhere]", "is not a network"),
    Mutation("networks:\n  - 10.0.0.0/8", "networks: <10.0.0.0/8", "expected a list, got a text"),
    Mutation("weight: 100,", "weight: <1001,", "1001 is out of range"),
    Mutation("capacity: 64", "capacity: <6.4", "expected a whole number, got the number 6.4"),
    Mutation("    weight: 50", "    <wieght: 50", "unknown key 'wieght'"),
    Mutation("    url: http://10.0.0.12:8003\n", "", "missing key 'url'", "url"),
    Mutation("    url: http://10.0.0.12:8003", "    <ulr: http://10.0.0.12:8003", "unknown key 'ulr'", "url"),
    Mutation("https://10.0.0.13", "<https://u:hidden@10.0.0.13", "cannot hold credentials"),
    Mutation("verify: true", "verify: <yes", "expected true or false, got the text 'yes'"),
    Mutation("policy: least_requests", "policy: <least_request", "'least_request' is not one of round_robin"),
    Mutation("slow_start: 10s", "slow_start: <10", "10 has no unit"),
    Mutation("failback: manual", "<fallback: manual", "unknown key 'fallback'"),
    Mutation("failover: automatic", "failover: <off", "'off' is not one of automatic, manual"),
    Mutation('X-Batch: "1"', "X-Batch: <1", "expected a text, got the number 1"),
    Mutation("[POST]", "[<post]", "'post' is not a method"),
    Mutation("timeout: 30s\nhealth", "timeout: <30 s\nhealth", "'30 s' is not a duration"),
    Mutation("name: batch", "name: <true", "expected a text, got the boolean true", "route"),
    Mutation("path: /_health/ping", "path: <_health/ping", "is not a path"),
    Mutation("token: {file: /etc/arv-balance/management-token}", "token: <s3cr3t", "cannot stand in the file"),
    Mutation("rise: 2", "rise: <0", "0 is out of range"),
    Mutation("retries: 2", "retries: <many", "expected a whole number, got the text 'many'"),
    Mutation("ratio: 20%", "ratio: <0.2", "0.2 is not a share"),
    Mutation("max: 1024", "<maximum: 1024", "unknown key 'maximum'"),
    Mutation("release: 200/s", "release: <200", "200 has no unit"),
    Mutation("drain: {timeout: 60s}", "drain: <60s", "expected a mapping, got a text"),
    Mutation("format: arvados", "format: <uuid4", "'uuid4' is not one of"),
    Mutation("header_bytes: 16KiB", "header_bytes: <16k", "'16k' is not a size"),
    Mutation("body: 128MiB", "body: <128", "128 has no unit"),
    Mutation("connect: 3s", "connect: <0s", "0s is out of range"),
    Mutation("workers: 2", "workers: <0", "is not a number of workers"),
    Mutation("role: operator", "role: <operater", "'operater' is not one of"),
    Mutation("- {name: ci, role: viewer,", "- <{name: ci,", "missing key 'role'", "token"),
    Mutation("state: {", "<sate: {", "unknown key 'sate'"),
    Mutation("access: json", "access: <yaml", "'yaml' is not one of json"),
    # YAML: duplicates, empty values, variables, tags.
    Mutation("queue: {", "queue: {timeout: 9s, ", "duplicate key 'timeout' (first at line", "queue"),
    Mutation("max: 5000", "max: 5000\n  <max: 6000", "duplicate key 'max' (first at line"),
    Mutation("timeout: 120s", "<timeout:", "is empty"),
    Mutation("rise: 2", 'rise: 2\n  host: <"${NOT_SET}"', "the environment variable NOT_SET is not set", "rise"),
    Mutation("header_count: 100", "header_count: <!!binary 100", "the tag '!!binary' is not allowed"),
    # The rules: names that exist, things that are there once, values that fit.
    Mutation('"127.0.0.1:8080"', '<"0.0.0.0:443"', "is taken by listen[0].bind", "bind"),
    Mutation('"127.0.0.1:8081"', '<"127.0.0.1:8080"', "is taken by listen[1].bind", "bind"),
    Mutation('"0.0.0.0:443"', '<"0.0.0.0"', "has no port", "bind"),
    Mutation("    tls:\n      cert: /etc/ssl/api.pem\n", "    <tls:\n", "needs a certificate"),
    Mutation("[api1, api2]", "[api1, <apj2]", "there is no node 'apj2'"),
    Mutation("[api3]}", "[api3, <api3]}", "'api3' is in the list twice"),
    Mutation("[api2, api3]", "[api2, <api4]", "there is no node 'api4'"),
    Mutation("designated: dns}}", "designated: <dn}}", "there is no designated 'dn'"),
    Mutation('"/arvados/v1/nodes/{uuid}/ping"', '<"/arvados/v1/nodes/x{uuid}/ping"', "is not a segment"),
    Mutation("name: batch", "name: <node-ping", "is the name of routes[0].name too", "route"),
    Mutation("min_serving: 1", "min_serving: <3", "3 of 3 nodes"),
    Mutation("timeout: 1s\n", "timeout: <3s\n", "timeout 3s is longer than interval 2s"),
    Mutation("ping_secret]", "<api_token]", "'api_token' is in the list twice"),
    Mutation("ops}\n    - {name: ci", "ops}\n    - {name: <ops", "is the name of admin.tokens[0].name too", "token"),
    Mutation("http://10.0.0.12:8003", "<http://10.0.0.11:8003", "is the address of nodes.api1.url too", "url"),
)
# Where the error is not in what was written but elsewhere.
ELSEWHERE = {
    "    url: http://10.0.0.12:8003\n": ("  api2:", "  <api2:"),
    "queue: {": ("1024, timeout", "1024, <timeout"),
}


def mutated(mutations: list[Mutation]) -> tuple[str, list[tuple[int, int]]]:
    """Return the file with the mistakes and the places at which they have to be reported."""
    text = BASE
    for old, new, *_ in mutations:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
        if "<" not in new:
            before, after = ELSEWHERE[old]
            assert text.count(before) == 1, before
            text = text.replace(before, after)
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        for part in range(line.count("<")):
            pieces = line.split("<")
            places.append((number, sum(map(len, pieces[: part + 1])) + 1))
    return text.replace("<", ""), places


def reported(text: str) -> list[tuple[int, int, str]]:
    return [
        (fault.span.line, fault.span.column, fault.message)
        for fault in loaded(text).faults
        if fault.span and fault.severity is Severity.ERROR
    ]


def apart(mutations: list[Mutation]) -> bool:
    """True when no two change the same piece or speak of the same thing."""
    spans = sorted((BASE.index(m.old), BASE.index(m.old) + len(m.old)) for m in mutations)
    groups = [m.group for m in mutations if m.group]
    elsewhere = [BASE.index(ELSEWHERE[m.old][0]) for m in mutations if "<" not in m.new]
    return (
        all(end <= start for (_, end), (start, _) in pairwise(spans))
        and len(groups) == len(set(groups))
        and not any(start - 8 <= place <= end for place in elsewhere for start, end in spans)
    )


def test_the_base_file_has_no_error_and_no_warning_by_mistake() -> None:
    assert [fault.message for fault in loaded(BASE).faults] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.message)
def test_each_mistake_is_reported_once_at_its_place(mutation: Mutation) -> None:
    text, places = mutated([mutation])
    found = reported(text)
    assert [(line, column) for line, column, _ in found] == places
    assert mutation.message in found[0][2]


@given(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=8, unique=True).filter(apart))
def test_several_mistakes_are_each_reported_once_and_nothing_else_is(mutations: list[Mutation]) -> None:
    text, places = mutated(mutations)
    found = reported(text)
    assert [(line, column) for line, column, _ in found] == places
    for mutation in mutations:
        # The line number that a message names moves with the other mistakes; its words do not.
        assert sum(mutation.message in message for _, _, message in found) >= 1
