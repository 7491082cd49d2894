"""How faults are found and shown."""

from balancer.config.errors import as_text
from tests.config.support import loaded, places

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
