"""How faults are found and shown."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from balancer.config.errors import Fault, Span, as_github, as_text
from balancer.config.loader import parse
from balancer.config.schema import Config
from tests.config.support import SMALL, loaded, places

FIVE = """
version: 1
listen: [{bind: "127.0.0.1"}]
nodes:
  api1: {url: "http://10.0.0.11:8003"}
  api2:
    url: http://10.0.0.12:8003
    wieght: 10
balance:
  policy: leastrequest
health: {interval: 5}
designated: {dns: {order: [api1, apj2]}}
"""


def test_five_different_mistakes_are_all_shown_at_once() -> None:
    assert places(FIVE) == [
        "2:17 listen[0].bind: '127.0.0.1' has no port",
        "7:5 nodes.api2.wieght: unknown key 'wieght'",
        "9:11 balance.policy: 'leastrequest' is not one of round_robin, least_requests, two_choices, hash",
        "10:20 health.interval: 5 has no unit",
        "11:34 designated.dns.order[1]: there is no node 'apj2'",
    ]


def test_an_error_shows_its_line_a_caret_and_the_likely_intent() -> None:
    shown = loaded(FIVE)
    assert (
        "f.yml:7:5: error: nodes.api2.wieght: unknown key 'wieght'\n"
        "    7 |     wieght: 10\n"
        "      |     ^^^^^^ did you mean 'weight'?" in as_text(shown.faults, shown)
    )


def test_one_pass_alone_would_not_show_all() -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(parse(FIVE, "f.yml", {}).data)
    assert caught.value.error_count() == 4, "the name that does not exist is seen by the rules only"


class File:
    path = "f.yml"

    def __init__(self, *lines: str) -> None:
        self.lines = lines


@pytest.mark.parametrize("render", [as_text, as_github])
def test_what_a_terminal_would_act_on_is_never_printed(render: Callable[..., str]) -> None:
    shown = loaded('"\\e[2J\\u202e": 1\nqueue: {max: "\u202e5"}\nbalance: {policy: "\\e]0;x\\a"}\n')
    said = render(shown.faults, shown)
    assert "unknown key '\\x1b[2J\\u202e'" in said
    assert not {"\x1b", "\a", "\u202e"} & set(said)


def test_the_caret_stands_right_behind_tabs() -> None:
    fault = Fault(("a",), "bad", "mend it", span=Span(1, 6, 8))
    assert (
        as_text([fault], File("a\t: [xy]")) == "f.yml:1:6: error: a: bad\n    1 | a\t: [xy]\n      |  \t   ^^ mend it"
    )


def test_of_a_long_line_the_part_around_the_place_is_shown() -> None:
    line = "a: " + "x" * 500 + " HERE " + "y" * 500
    _, shown, caret = as_text([Fault((), "bad", span=Span(1, 505, 509))], File(line)).splitlines()
    assert len(shown) == len("    1 | ") + 160
    assert shown[caret.index("^") : caret.rindex("^") + 1] == "HERE"
    assert shown[8] == shown[-1] == "\u2026"


def test_a_caret_does_not_go_beyond_its_line() -> None:
    assert as_text([Fault((), "bad", span=Span(1, 3, 99))], File("a: b")).splitlines()[-1] == "      |   ^^"


def test_a_fault_without_a_line_still_gives_its_hint() -> None:
    assert as_text([Fault((), "bad", "mend it")], File()) == "f.yml:1:1: error: bad\n       = mend it"


def test_colour_is_added_around_place_word_and_caret_only() -> None:
    fault = Fault(("a",), "bad", "mend it", span=Span(1, 1, 2))
    painted = as_text([fault], File("a: 1"), lambda style, text: f"<{style}>{text}</>")
    assert painted == "<bold>f.yml:1:1:</> <bad>error:</> a: bad\n    1 | a: 1\n      | <bad>^</> mend it"


def test_a_misspelt_key_is_not_also_reported_as_missing() -> None:
    found = places(SMALL.replace("listen:", "listn:").replace("{url:", "{ulr:", 1))
    assert found == ["1:1 listn: unknown key 'listn'", "3:10 nodes.api1.ulr: unknown key 'ulr'"]
