"""Configurations of the subset that an import carries back, as Hypothesis draws them."""

import json
from typing import Any

from hypothesis import strategies as st

from balancer.config.schema import Config
from tests.config.support import loaded

Values = dict[str, Any]
NAMES = ("api1", "api2", "api.3", "node_4")
SEGMENTS = st.from_regex(r"[a-z0-9][A-Za-z0-9._~@:-]{0,8}", fullmatch=True)
HEADERS = st.from_regex(r"x-[a-z]{1,8}", fullmatch=True)


def config(values: Values) -> Config:
    """Return the checked configuration of these values."""
    return loaded(json.dumps(values)).require()


def milliseconds(low: int, high: int) -> st.SearchStrategy[str]:
    return st.integers(low, high).map("{}ms".format)


@st.composite
def templates(draw: st.DrawFn) -> str:
    """A path template whose parameters have the names that an import gives them."""
    parts = draw(st.lists(st.one_of(SEGMENTS, st.none()), min_size=1, max_size=4))
    number, segments = 0, []
    for part in parts:
        number += part is None
        segments.append(part if part is not None else f"{{part{number}}}")
    return "/" + "/".join(segments) + draw(st.sampled_from(["", "/*"]))


@st.composite
def matches(draw: st.DrawFn) -> Values:
    found: Values = {}
    if draw(st.booleans()):
        found["path"] = draw(templates())
    if draw(st.booleans()):
        found["host"] = draw(st.sampled_from(["a.example.org", "*.example.org", "b.test"]))
    if draw(st.booleans()):
        found["methods"] = draw(st.lists(st.sampled_from(["GET", "HEAD", "POST"]), min_size=1, unique=True))
    if draw(st.booleans()):
        found["headers"] = draw(st.dictionaries(HEADERS, st.sampled_from([None, "1", "two words"]), max_size=2))
    return found or {"path": draw(templates())}


@st.composite
def sites(draw: st.DrawFn, *, engine: str) -> Values:
    """A site that the engine's file says whole."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
    is_tls = draw(st.booleans())
    tls: Values = {"server_name": "nodes.example.org"}
    tls |= draw(st.sampled_from([{"ca": "/etc/ssl/nodes.pem"}, {"verify": False}, {}]))
    values: Values = {
        "version": 1,
        "listen": draw(listeners(engine=engine)),
        "nodes": {
            name: {
                "url": f"{'https' if is_tls else 'http'}://10.0.0.{number}:{draw(st.integers(1, 65535))}",
                "weight": draw(st.integers(1, 256)),
                "capacity": draw(st.integers(0, 500)),
                **({"tls": tls} if is_tls else {}),
            }
            for number, name in enumerate(names, 1)
        },
        "balance": draw(policies(engine=engine)),
        "timeouts": draw(deadlines()),
        "limits": {
            "body": f"{draw(st.integers(0, 1 << 30))}B",
            "connections": draw(st.integers(1, 50_000)),
        },
        "trusted_proxies": draw(st.sampled_from([[], ["10.9.0.0/16"], ["10.9.0.0/16", "fd00::/8"]])),
    }
    if draw(st.booleans()):
        values["internal_networks"] = ["10.8.0.0/16", "fd01::/16"]
        values["forwarding"] = {"external_client": True}
    kinds = ["connect", "reset"] if engine == "nginx" else ["connect", "reset", "truncated"]
    values["retry"] = {"retries": draw(st.integers(0, 10)), "on": kinds}
    routes, designated = draw(targets(names))
    values |= {"routes": routes, "designated": designated}
    if engine == "haproxy":
        values["health"] = draw(checks())
        values["queue"] = {"max": draw(st.integers(1, 5000)), "timeout": draw(milliseconds(1, 60_000))}
        for designation in designated.values():
            designation["failback"] = draw(st.sampled_from(["manual", "automatic"]))
    return values


@st.composite
def listeners(draw: st.DrawFn, *, engine: str) -> list[Values]:
    found: list[Values] = [{"bind": f"127.0.0.1:{draw(st.integers(1, 65535))}"}]
    if draw(st.booleans()):
        tls: Values = {"cert": "/etc/ssl/api.pem", "minimum_version": "TLSv1.3"}
        if engine == "nginx":
            tls["key"] = "/etc/ssl/api.key"
        if draw(st.booleans()):
            more: Values = {"names": ["b.example.org"], "key": "/etc/ssl/b.key"} if engine == "nginx" else {}
            tls["certificates"] = [{"cert": "/etc/ssl/b.pem", **more}]
        if draw(st.booleans()):
            tls |= {"client_ca": "/etc/ssl/ca.pem", "client_required": True}
        found.append({"bind": "[::1]:443", "tls": tls, "backlog": draw(st.integers(1, 65535))})
    if draw(st.booleans()):
        found.append({"bind": "unix:/run/api.sock"})
    if engine == "haproxy" and draw(st.booleans()):
        found.append({"bind": "127.0.0.9:88", "proxy_protocol": ["10.7.0.0/16", "fd07::/16"]})
    return found


def policies(*, engine: str) -> st.SearchStrategy[Values]:
    # nginx spells names of fields and cookies in lower case.
    slow: Values = {"slow_start": "0s"} if engine == "nginx" else {}
    hashes: list[Values] = [{"by": "client"}, {"by": "header", "name": "x-session"}]
    hashes.append({"by": "cookie", "name": "session"})
    plain: list[Values] = [{"policy": name} for name in ("round_robin", "least_requests", "two_choices")]
    return st.sampled_from([{**slow, **item} for item in [*plain, *({"policy": "hash", "hash": by} for by in hashes)]])


@st.composite
def deadlines(draw: st.DrawFn) -> Values:
    client, node = draw(milliseconds(1, 100_000)), draw(milliseconds(1, 400_000))
    names = ("header", "connect", "keepalive", "upstream_idle")
    return {
        **{name: draw(milliseconds(1, 100_000)) for name in names},
        "body_idle": client,
        "send_idle": client,
        "response": node,
        "response_idle": node,
    }


@st.composite
def targets(draw: st.DrawFn, names: list[str]) -> tuple[list[Values], Values]:
    routes, designated = [], {}
    for number in range(draw(st.integers(0, 3))):
        name = f"r{number}"
        route: Values = {"name": name, "match": draw(matches())}
        kind = draw(st.sampled_from(["all", "some", "designated"]))
        if kind == "some":
            route["to"] = {"nodes": names[:1]}
        elif kind == "designated":
            designated[name] = {"order": list(draw(st.permutations(names))), "failback": "automatic"}
            route["to"] = {"designated": name}
        routes.append(route)
    return routes, designated


@st.composite
def checks(draw: st.DrawFn) -> Values:
    interval = draw(st.integers(100, 10_000))
    expect: Values = {"status": draw(st.lists(st.integers(200, 299), min_size=1, max_size=3, unique=True))}
    if draw(st.booleans()):
        expect["json"] = draw(st.sampled_from([{"health": "OK"}, {"up": True}, {"a-b": 7, "c": "x.y(z)"}]))
    if draw(st.booleans()):
        expect["body"] = draw(st.sampled_from(["fine", 'a "quoted" one', "it's $5 # not"]))
    return {
        "path": draw(st.sampled_from(["/", "/_health/ping", "/a?b=c&d='e'"])),
        "host": draw(st.sampled_from(["a.test", "localhost"])),
        "token": {"env": "ARV_BALANCE_HEALTH_TOKEN"},
        "expect": expect,
        "interval": f"{interval}ms",
        "fast_interval": f"{draw(st.integers(50, interval))}ms",
        "timeout": f"{draw(st.integers(10, interval))}ms",
        "rise": draw(st.integers(1, 100)),
        "fall": draw(st.integers(1, 100)),
    }
