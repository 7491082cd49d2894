"""What is in effect, where it comes from, and what changed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from balancer.config import flat
from balancer.config.addresses import Bind, Network, NodeUrl
from balancer.config.diff import differences
from balancer.config.origin import Origins
from balancer.config.scalars import ByteRate, Duration, Rate, Share, Size
from tests.config.support import SMALL, loaded
from tests.config.test_mutations import BASE

FULL = (Path(__file__).parents[2] / "examples" / "full.yml").read_text()


@pytest.mark.parametrize("text", [SMALL, BASE, FULL], ids=["small", "base", "full"])
def test_what_is_shown_is_a_valid_file_that_means_the_same(text: str) -> None:
    config = loaded(text).require()
    shown = flat.as_yaml(flat.plain(config), lambda loc: "x" * (len(loc) % 3))
    again = loaded(shown).require()
    assert flat.plain(again) == flat.plain(config)
    assert differences(config, again) == ()


def test_each_value_names_its_origin() -> None:
    read = loaded(
        """\
        preset: arvados
        listen: [{bind: "127.0.0.1:8080"}]
        nodes: {a: {url: "http://127.0.0.1:1"}}
        health:
          interval: ${T:-3s}
        routes:
          - {name: mine, match: {path: /x}}
        designated: {dns: {order: [a]}}
        """
    )
    origins = Origins(read)
    assert {value.path: origins.of(value.loc) for value in flat.values(flat.plain(read.require()))}.items() >= {
        "listen[127.0.0.1:8080].bind": "f.yml:2",
        "listen[127.0.0.1:8080].backlog": "default",
        "nodes.a.url": "f.yml:3",
        "nodes.a.weight": "default",
        "health.interval": "f.yml:5 (variable)",
        "health.path": "preset arvados",
        "health.timeout": "default",
        "routes[mine].name": "f.yml:7",
        "routes[mine].park": "default",
        "routes[node-ping].match.path": "preset arvados",
        "routes[node-ping].park": "default",
        "designated.dns.order": "f.yml:8",
        "designated.dns.failover": "default",
        "timeouts.response": "preset arvados",
        "timeouts.connect": "default",
    }.items()


def test_differences_are_by_name_and_in_the_units_of_the_file() -> None:
    old = loaded(
        SMALL + "park: {timeout: 100s}\nroutes:\n  - {name: a, match: {path: /a}}\n  - {name: b, match: {path: /b}}\n"
    )
    new = loaded(
        """\
        listen: [{bind: "127.0.0.1:8080"}, {bind: "127.0.0.1:8081"}]
        nodes:
          api1: {url: "http://127.0.0.1:9001", weight: 50}
          api3: {url: "http://127.0.0.1:9003"}
        park: {timeout: 2m}
        health: {token: {file: /secret}}
        routes:
          - {name: b, match: {path: /b}, park: false}
          - {name: a, match: {path: /a}}
        """
    )
    assert [str(change) for change in differences(old.require(), new.require())] == [
        '+ listen[127.0.0.1:8081]: {bind: "127.0.0.1:8081", proxy_protocol: [], backlog: 4096}',
        "~ nodes.api1.weight: 100 -> 50",
        '- nodes.api2: {url: "http://127.0.0.1:9002", weight: 100, capacity: 0}',
        '+ nodes.api3: {url: "http://127.0.0.1:9003", weight: 100, capacity: 0}',
        "~ routes[b].park: true -> false",
        "~ routes (order): [a, b] -> [b, a]",
        "+ health.token: {file: /secret}",
        "~ park.timeout: 100s -> 2m",
    ]


def test_secrets_of_the_dns_section_are_masked() -> None:
    old = loaded(SMALL + "dns: {tsig: {secret: hunter2, name: k}}\n").require()
    new = loaded(SMALL + "dns: {tsig: {secret: hunter3, name: k}}\n").require()
    assert "hunter" not in flat.as_yaml(flat.plain(old))
    assert [str(change) for change in differences(old, new)] == ['~ dns.tsig.secret: "***" -> "***"']
    assert [str(change) for change in differences(loaded(SMALL).require(), new)] == [
        '+ dns: {tsig: {secret: "***", name: k}}'
    ]


@given(st.integers(0, 10**7))
def test_a_duration_prints_itself_as_what_it_is_read_from(milliseconds: int) -> None:
    value = Duration(milliseconds / 1000)
    assert abs(Duration.parse(str(value)) - value) < 1e-9


@given(st.integers(0, 1 << 45))
def test_sizes_print_themselves_as_what_they_are_read_from(number: int) -> None:
    assert Size.parse(str(Size(number))) == number
    assert ByteRate.parse(str(ByteRate(number))) == number


@pytest.mark.parametrize("text", ["200/s", "1/s", "30/m", "0.5/m", "1.5/s"])
def test_rates_print_themselves_as_what_they_are_read_from(text: str) -> None:
    assert Rate.parse(str(Rate.parse(text))) == Rate.parse(text)


def test_shares_print_themselves_in_percent() -> None:
    assert str(Share.parse("12.5%")) == "12.5%"


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        (Bind, "0.0.0.0:0080", "0.0.0.0:80"),
        (Bind, "[0::1]:80", "[::1]:80"),
        (Bind, "localhost:80", "localhost:80"),
        (Bind, "unix:/run/x.sock", "unix:/run/x.sock"),
        (Network, "10.0.0.5", "10.0.0.5/32"),
        (Network, "fd00:0::/8", "fd00::/8"),
        (NodeUrl, "HTTP://Api1.Example.org/", "http://api1.example.org:80"),
        (NodeUrl, "https://[FD00::1]", "https://[fd00::1]:443"),
        (NodeUrl, "unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_addresses_have_one_form(kind: type[Bind | Network | NodeUrl], text: str, canonical: str) -> None:
    assert str(kind.parse(text)) == canonical
    assert kind.parse(canonical) == canonical


@given(st.text(st.sampled_from("ahtp:/.[]@0159%-_ ?#é"), max_size=20), st.sampled_from([Bind, Network, NodeUrl]))
def test_any_text_is_an_address_in_one_form_or_refused(text: str, kind: type[Bind | Network | NodeUrl]) -> None:
    try:
        found = kind.parse(text)
    except PydanticCustomError:
        return
    assert kind.parse(str(found)) == found
    if isinstance(found, NodeUrl):
        assert found.parts.unix_path or found.parts.host
