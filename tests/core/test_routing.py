"""Routes match what a node would understand, not how it is spelt."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.routing import RouteTable, effective_method, host_without_port, normalise, template_fault
from balancer.errors import ConfigError
from balancer.model import Match, Route

PING = Route("node-ping", 0, Match(path="/arvados/v1/nodes/{uuid}/ping"), designated="dns")
UUID = "zzzzz-7ekkf-0123456789abcde"
PING_PATH = f"/arvados/v1/nodes/{UUID}/ping".encode()


def no_header(_name: bytes) -> bytes | None:
    return None


def matched(table: RouteTable, target: bytes, method: bytes = b"GET", host: bytes = b"api.test") -> str | None:
    route = table.match(method, host, target, no_header)
    return None if route is None else route.name


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a?b=/../c", b"/a"),
        (b"/%61%2D%7e", b"/a-~"),
        (b"/a%2fb%2Fc", b"/a%2Fb%2Fc"),
        (b"/a%252fb", b"/a%252fb"),
        (b"/%2570ing", b"/%2570ing"),
        (b"//a///b", b"/a/b"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/../../a", b"/a"),
        (b"/a//../b", b"/b"),
        (b"/a/.", b"/a/"),
        (b"/a/b/..", b"/a/"),
        (b"/..", b"/"),
        (b"/a/...", b"/a/..."),
        (b"/.well-known/x", b"/.well-known/x"),
        (b"http://h:80/a/../b?q", b"/b"),
        (b"http://h", b"/"),
        (b"http://h?q=/x", b"/"),
        (b"*", b"*"),
        (b"/%3f%23", b"/%3F%23"),
        (b"/%zz", b"/%zz"),
    ],
)
def test_a_target_means_one_path(target: bytes, path: bytes) -> None:
    assert normalise(target) == path


@given(st.binary(max_size=60))
def test_normalising_twice_changes_nothing_more(junk: bytes) -> None:
    path = normalise(b"/" + junk.replace(b"?", b"").replace(b"%", b""))
    assert normalise(path) == path
    assert b"//" not in path
    assert not {b".", b".."} & set(path.split(b"/"))


@pytest.mark.parametrize(
    ("template", "target", "matches"),
    [
        ("/login", b"/login", True),
        ("/login", b"/login/", True),
        ("/login", b"/login.json?x", True),
        ("/login", b"/loginx", False),
        ("/login", b"/login/x", False),
        ("/login", b"/LOGIN", False),
        ("/", b"/", True),
        ("/", b"/x", False),
        ("/a/*", b"/a", True),
        ("/a/*", b"/a/", True),
        ("/a/*", b"/a/b/c?d", True),
        ("/a/*", b"/ab", False),
        ("/a/*", b"/public/%2e./a/b", True),
        ("/a/*", b"/a%2fb", False),
        ("/*", b"/anything/at/all", True),
        ("/*", b"*", False),
        ("/{x}/b", b"/a/b", True),
        ("/{x}/b", b"//b", False),
        ("/{x}/b", b"/a%2Fc/b", True),
        ("/a.b/{x}", b"/aXb/c", False),
    ],
)
def test_a_template_matches_whole_paths(template: str, target: bytes, matches: bool) -> None:
    table = RouteTable((Route("r", 0, Match(path=template)),))
    assert (matched(table, target) == "r") is matches


@pytest.mark.parametrize("path", ["login", "/a/*/b", "/{}", "/{a", "/a%20b", "/..", "/a{b}c", "/a?b"])
def test_a_template_that_can_never_be_meant_is_refused(path: str) -> None:
    assert template_fault(path)
    with pytest.raises(ConfigError, match="path"):
        RouteTable((Route("r", 0, Match(path=path)),))


def test_the_first_route_whose_conditions_all_hold_wins() -> None:
    table = RouteTable(
        (
            Route("put", 0, Match(path="/a/*", methods=("PUT", "PATCH"))),
            Route("host", 1, Match(host="*.wide.test")),
            Route("flag", 2, Match(headers=(("x-flag", None), ("x-kind", "b")))),
            Route("a", 3, Match(path="/a/*")),
        )
    )
    headers = {b"x-flag": b"", b"x-kind": b"b"}
    assert matched(table, b"/a/1", b"PUT") == "put"
    assert matched(table, b"/a/1") == "a"
    assert matched(table, b"/b/1") is None
    assert matched(table, b"/a/1", host=b"x.Wide.Test:8000") == "host"
    assert matched(table, b"/a/1", host=b"wide.test") == "a"
    assert (found := table.match(b"GET", b"h", b"/a/1", headers.get)) is not None
    assert found.name == "flag"
    headers[b"x-kind"] = b"c"
    assert (found := table.match(b"GET", b"h", b"/a/1", headers.get)) is not None
    assert found.name == "a"


def test_an_empty_table_sends_everything_everywhere() -> None:
    assert matched(RouteTable(()), b"/") is None
    assert matched(RouteTable(()), b"*") is None


@pytest.mark.parametrize(
    ("host", "plain"),
    [(b"A.Test:80", b"a.test"), (b"[::1]:80", b"[::1]"), (b"[::1]", b"[::1]"), (b"a.test.", b"a.test"), (b"", b"")],
)
def test_a_host_is_compared_without_port_and_case(host: bytes, plain: bytes) -> None:
    assert host_without_port(host) == plain


@pytest.mark.parametrize(
    ("method", "target", "header", "effective"),
    [
        (b"POST", b"/", b"put", b"PUT"),
        (b"POST", b"/?_method=GET", None, b"GET"),
        (b"POST", b"/?a=1&%5Fmethod=patch", None, b"PATCH"),
        (b"POST", b"/?_method=GET", b"PUT", b"GET"),
        (b"POST", b"/?_method=BREW", b"PUT", b"PUT"),
        (b"POST", b"/", b"CONNECT", b"POST"),
        (b"GET", b"/?_method=DELETE", b"DELETE", b"GET"),
        (b"POST", b"/", None, b"POST"),
    ],
)
def test_a_post_acts_as_the_method_it_names(
    method: bytes, target: bytes, header: bytes | None, effective: bytes
) -> None:
    assert effective_method(method, target, {b"x-http-method-override": header}.get) == effective


# --- pings: what a Rails-like stack maps to the ping route, we match; and nothing else ---


def rails_like_path(target: bytes) -> bytes:
    """What reaches the router of a Rails application behind nginx: its own few lines, written apart from ours."""
    text = target.split(b"?")[0]
    if not text.startswith(b"/"):
        text = b"/" + text.split(b"://", 1)[1].partition(b"/")[2]
    hidden = re.sub(rb"(?i)%2f", b"\x00", text)  # an encoded slash is data
    parts: list[bytes] = []
    for part in unquote_to_bytes(hidden).split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/" + b"/".join(parts)


RAILS_ROUTE = re.compile(rb"/arvados/v1/nodes/(?P<id>[^/]+)/ping(\.[^/.?]+)?")


def encoded(text: bytes) -> st.SearchStrategy[bytes]:
    """Each byte as it is or percent-encoded, in both cases of hex."""
    forms = [st.sampled_from((bytes((b,)), b"%%%02x" % b, b"%%%02X" % b)) for b in text]
    return st.tuples(*forms).map(b"".join)


slashes = st.sampled_from((b"/", b"/", b"//", b"///", b"/./", b"/x/../", b"/%2e/", b"/x/%2E./", b"/y//.%2e/"))
ends = st.sampled_from(
    (b"", b"/", b"//", b"/.", b".json", b".json/", b"%2ejson", b".xml", b"/x/..", b"?ping_secret=1%2f")
)
starts = st.sampled_from((b"", b"http://api.test", b"HTTPS://api.test:443"))


@st.composite
def ping_spellings(draw: st.DrawFn) -> bytes:
    target = draw(starts)
    for segment in (b"arvados", b"v1", b"nodes", UUID.encode(), b"ping"):
        target += draw(slashes) + draw(encoded(segment))
    return target + draw(ends)


PIECES = (
    *(b"/", b"//", b"/.", b"/..", b"%2f", b"%2F", b"%252f", b".", b"x", b"?", b"%00", b"%3f"),
    *(
        b"arvados",
        b"v1",
        b"nodes",
        b"ping",
        b".json",
        b"%70ing",
        b"pin",
        b"/arvados/v1/nodes/u/ping",
        b"/arvados/v1/nodes/",
    ),
)


@given(ping_spellings())
def test_every_spelling_of_a_ping_is_the_ping(target: bytes) -> None:
    assert RAILS_ROUTE.fullmatch(rails_like_path(target))
    assert matched(RouteTable((PING,)), target) == "node-ping"


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(lambda parts: b"/" + b"".join(parts)))
def test_the_ping_is_what_the_decoder_says_it_is_and_nothing_else(target: bytes) -> None:
    table = RouteTable((Route("login", 1, Match(path="/login")), PING))
    assert (matched(table, target) == "node-ping") is bool(RAILS_ROUTE.fullmatch(rails_like_path(target)))


@pytest.mark.parametrize(
    "target",
    [
        PING_PATH.replace(b"/ping", b"%2fping"),
        PING_PATH.replace(b"ping", b"%2570ing"),
        PING_PATH + b".",
        PING_PATH + b"s",
    ],
)
def test_what_no_node_decodes_to_a_ping_is_none(target: bytes) -> None:
    assert matched(RouteTable((PING,)), target) is None
