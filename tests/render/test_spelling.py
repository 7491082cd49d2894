"""The raw-path pattern takes what the balancer's own router takes, whatever the spelling."""

import re

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.routing import RouteTable
from balancer.model import Match, Route
from balancer.render.spelling import pattern

PING = "/arvados/v1/nodes/{uuid}/ping"
TABLE = RouteTable((Route(name="ping", slot=0, match=Match(path=PING), designated="dns"),))
RAW = re.compile(pattern(PING).encode())


def routed(path: bytes) -> bool:
    return TABLE.match(b"GET", b"h", path, lambda _name: None) is not None


def spelled(text: str, choices: list[int]) -> bytes:
    """`text` with each character plain or percent-encoded, slashes once or twice or with `/./` between."""
    out = b""
    for character, choice in zip(text.encode(), choices, strict=False):
        if character == 0x2F:
            out += (b"/", b"//", b"/./", b"/%2e/")[choice % 4]
        else:
            out += (bytes((character,)), b"%%%02x" % character, b"%%%02X" % character)[choice % 3]
    return out


@given(
    st.lists(st.integers(0, 11), min_size=80, max_size=80),
    st.sampled_from(["", "/", ".json", ".json/", "//"]),
    st.from_regex(r"[a-z0-9-]{1,27}", fullmatch=True),
)
def test_every_spelling_of_the_ping_path_is_taken(choices: list[int], tail: str, uuid: str) -> None:
    path = spelled(f"/arvados/v1/nodes/{uuid}/ping", choices) + tail.encode()
    assert routed(path)
    assert RAW.match(path)


@given(st.from_regex(rb"(/(arvados|v1|nodes|ping|[a-z%2.]{0,5})){1,7}", fullmatch=True))
def test_it_takes_nothing_that_the_router_does_not_take(path: bytes) -> None:
    if b".." not in path and b"%2e" not in path.lower():
        assert bool(RAW.match(path)) <= routed(path)


def test_templates_of_other_shapes() -> None:
    assert re.match(pattern("/static/*"), "/static/a/b")
    assert re.match(pattern("/static/*"), "/static")
    assert not re.match(pattern("/static/*"), "/statics")
    assert re.match(pattern("/"), "//")
    assert re.match(pattern("/*"), "/anything")
    assert not re.match(pattern("/a.b"), "/axb")
