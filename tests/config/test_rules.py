"""Rules over the whole file: errors that need more than one value, and warnings that teach."""

import pytest

from balancer.config.errors import Severity, as_github, as_json, as_text
from balancer.config.reference import keys
from balancer.config.validation import STAND_INS
from tests.config.support import SMALL, loaded, places

HEAD = 'listen: [{bind: "127.0.0.1:8080"}]\n'
NODES = 'nodes: {a: {url: "http://127.0.0.1:1"}, b: {url: "http://127.0.0.1:2"}}\n'


def warnings(text: str, env: dict[str, str] | None = None) -> list[str]:
    found = loaded(text, env).faults
    assert [fault.message for fault in found if fault.severity is Severity.ERROR] == []
    return [f"{fault.span.line}:{fault.span.column} {fault.message}" for fault in found if fault.span]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\n", ["1:1 listen: nothing to listen on", "1:1 nodes: no nodes"]),
        ("[1, 2]\n", ["1:1 : the file has to be a mapping"]),
        ("", ["1:1 listen: nothing to listen on", "1:1 nodes: no nodes"]),
        ("listen: []\nnodes: {}\n", ["1:1 listen: nothing to listen on", "2:1 nodes: no nodes"]),
        (HEAD + "nodes: [a]\n", ["2:8 nodes: expected a mapping, got a list"]),
        (HEAD + "nodes: {-x: {url: 'http://a'}}\n", ["2:9 nodes.-x: '-x' is not a name"]),
        (
            HEAD + "nodes: {-x: {url: 'http://a', wieght: 1}}\n",
            ["2:9 nodes.-x: '-x' is not a name", "2:31 nodes.-x.wieght: unknown key 'wieght'"],
        ),
        (
            HEAD + "nodes: {a: {url: 'http://127.0.0.1:8080/'}}\n",
            ["2:18 nodes.a.url: 'http://127.0.0.1:8080' is this balancer itself: listen[0].bind"],
        ),
        (HEAD + "nodes: {a: {url: 'http://a/x'}}\n", ["2:18 nodes.a.url: 'http://a/x' has a path"]),
        (
            HEAD + "nodes: {a: {url: 'http://a', weight: 0}}\n",
            ["2:1 nodes: every node has weight 0: none takes balanced requests"],
        ),
        (
            HEAD + NODES + "balance: {min_serving: 2}\n",
            ["3:24 balance.min_serving: 2 of 2 nodes: none could ever be drained"],
        ),
        (
            HEAD + NODES + "balance: {policy: hash, hash: {by: header}}\n",
            ["3:36 balance.hash.by: a hash by header needs a name"],
        ),
        (
            HEAD + NODES + "balance: {policy: hash, hash: {name: X}}\n",
            ["3:38 balance.hash.name: a hash by client has no name"],
        ),
        (
            HEAD + NODES + "drain: {timeout: 5m}\n",
            ["3:18 drain.timeout: park.timeout 2m is shorter than drain.timeout 5m"],
        ),
        (
            HEAD + NODES + "health: {fast_interval: 5s}\n",
            ["3:25 health.fast_interval: fast_interval 5s is slower than interval 2s"],
        ),
        (
            HEAD + NODES + "limits: {header_bytes: 4KiB, target_bytes: 2000}\n",
            ["3:24 limits.header_bytes: header_field_bytes 8KiB is larger than header_bytes 4KiB"],
        ),
        (
            HEAD + NODES + "park: {max: 5, max_per_client: 6}\n",
            ["3:32 park.max_per_client: max_per_client 6 is larger than max 5"],
        ),
        (
            HEAD + NODES + "peers: {b2: {}}\ndesignated: {dns: {order: [a]}}\n",
            [
                "4:14 designated.dns: no automatic fail-over with peers: each balancer would choose for itself",
            ],
        ),
        (
            HEAD + NODES + "designated: {dns: {store: postgres}}\n",
            ["3:27 designated.dns.store: store: postgres needs state.database"],
        ),
        (HEAD + NODES + 'admin: {listen: "10.0.0.1:1"}\n', ["3:17 admin.listen: admin.listen needs tokens"]),
        (
            HEAD + NODES + "health: {token: {}}\n",
            ["3:10 health.token: says not where the secret is kept, exactly one is needed"],
        ),
        (
            HEAD + NODES + "health: {token: {file: /a, env: B}}\n",
            ["3:10 health.token: file and env are set, exactly one is needed"],
        ),
        (
            HEAD + NODES + "health: {token: {value: hunter2}}\n",
            ["3:18 health.token.value: unknown key 'value'"],
        ),
        (
            HEAD + NODES + "routes: [{name: r, match: {path: /x}, to: {}}]\n",
            ["3:39 routes[0].to: needs either designated or nodes"],
        ),
        (
            HEAD + NODES + 'routes: [{name: r, match: {path: "/{a}/{a}"}}]\n',
            ["3:34 routes[0].match.path: a name is in the template twice"],
        ),
        (
            HEAD + NODES + 'routes: [{name: r, match: {path: "/*/a"}}]\n',
            ["3:34 routes[0].match.path: '*' is not a segment of a path template"],
        ),
        (
            HEAD + NODES + 'routes: [{name: r, match: {path: "/a%41"}}]\n',
            [
                "3:34 routes[0].match.path: not a path template: segment 'a%41' is neither {name} nor plain text "
                "(write it decoded, without '%')"
            ],
        ),
        (
            HEAD + NODES + 'routes: [{name: r, match: {path: "/a/../b"}}]\n',
            ["3:34 routes[0].match.path: not a path template: segment '..' never occurs in a normalised path"],
        ),
        (
            HEAD + "nodes: {a: {url: 'http://a', tls: {verify: true}}}\n",
            ["2:30 nodes.a.tls: tls is set, but http://a:80 is not https"],
        ),
        (
            'listen: [{bind: "127.0.0.1:1", tls: {cert: /c, client_required: true}}]\n' + NODES,
            ["1:65 listen[0].tls.client_required: needs client_ca"],
        ),
        (
            "listen: [" + ", ".join(f"{{bind: 'unix:/s{n}'}}" for n in range(17)) + "]\n" + NODES,
            ["1:1 listen: more than 16 listeners"],
        ),
        (
            HEAD + "nodes: {" + ", ".join(f"n{n}: {{url: 'http://h{n}'}}" for n in range(257)) + "}\n",
            ["2:1 nodes: more than 256 nodes"],
        ),
        (
            HEAD + NODES + f"state: {{dir: /{'x' * 80}}}\n",
            ["3:14 state.dir: the path is too long for Unix sockets: 81 bytes"],
        ),
        (HEAD + NODES + f"state: {{dir: /{'x' * 79}}}\n", []),
        (
            HEAD + f"nodes: {{a: {{url: 'http://a'}}, b: {{url: 'unix:/{'x' * 107}'}}}}\n",
            ["2:40 nodes.b.url: the path is too long for Unix sockets: 108 bytes"],
        ),
        (
            HEAD + NODES + "request_id: {accept: '[a-'}\n",
            ["3:22 request_id.accept: '[a-' is not a regular expression: unterminated character set at position 0"],
        ),
        (
            HEAD + NODES + "request_id: {accept: 'é'}\n",
            ["3:22 request_id.accept: 'é' is not a regular expression over ASCII"],
        ),
        (HEAD + NODES + "log: {redact: [a b]}\n", ["3:16 log.redact[0]: 'a b' is not a parameter name"]),
        (
            HEAD + NODES + "peers: {b2: {token: {}}}\n",
            ["3:14 peers.b2.token: says not where the secret is kept, exactly one is needed"],
        ),
        (
            'listen: [{bind: "unix:/s"}]\nadmin: {socket: /s}\n' + NODES,
            ["2:17 admin.socket: 'unix:/s' is taken by listen[0].bind"],
        ),
    ],
)
def test_what_does_not_fit_is_an_error_at_its_place(text: str, expected: list[str]) -> None:
    assert places(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SMALL, []),
        (HEAD + "nodes: {a: {url: 'http://a'}}\n", ["2:1 only one node: while it is down or drained, requests wait"]),
        (
            HEAD + "nodes: {a: {url: 'http://a'}, b: {url: 'http://b', weight: 0}}\n",
            ["2:60 weight 0: it takes no balanced requests"],
        ),
        (
            'listen: [{bind: "0.0.0.0:80"}]\n' + NODES,
            ["1:17 plain HTTP on a public address: tokens can be read on the way"],
        ),
        (
            HEAD + NODES + "admin: {listen: '[::]:80', tokens: [{name: a, role: viewer, env: T}]}\n",
            ["3:17 plain admin API on a public address: tokens can be read on the way"],
        ),
        (
            HEAD + NODES + "admin: {tokens: [{name: a, role: viewer, env: T}]}\n",
            ["3:9 tokens are not used without admin.listen"],
        ),
        (
            HEAD + NODES + "park: {timeout: 80s}\n",
            ["3:17 park.timeout 80s may end before an upgrade step does: drain.timeout 1m and about 30s for the step"],
        ),
        (
            HEAD + "nodes: {a: {url: 'https://a', tls: {verify: false}}, b: {url: 'http://b'}}\n",
            ["2:45 the node's certificate is not verified"],
        ),
        (
            HEAD + NODES + "trusted_proxies: [0.0.0.0/0]\n",
            ["3:19 everybody is a trusted proxy: clients choose the address that is logged and forwarded"],
        ),
        (
            HEAD + NODES + "balance: {hash: {by: cookie, name: s}}\n",
            ["3:11 hash is not used with policy least_requests"],
        ),
        (
            HEAD + NODES + "routes:\n  - {name: all, match: {}}\n  - {name: b, match: {path: /b}}\n",
            ["5:12 never reached: route 'all' before it matches the same requests"],
        ),
        (
            HEAD + NODES + "preset: arvados\ninternal_networks: [10.0.0.0/8]\nhealth: {interval: 3s}\n",
            ["5:1 no token: an Arvados node answers 401 to its health check"],
        ),
        (
            HEAD + NODES + "preset: arvados\nhealth: {token: null}\n",
            ["3:9 X-External-Client is not sent while internal_networks is empty: every client counts as internal"],
        ),
        (
            HEAD + NODES + "preset: arvados\ninternal_networks: [10.0.0.0/8]\nhealth: {token: null}\n"
            "timeouts: {response: 2m}\n",
            ["6:22 response 2m is below Arvados' API.RequestTimeout 5m"],
        ),
    ],
)
def test_what_has_surprised_operators_is_a_warning(text: str, expected: list[str]) -> None:
    assert warnings(text) == expected


def test_one_mistake_is_not_reported_again_by_the_rules() -> None:
    text = HEAD + NODES + "health: {interval: 1, timeout: 30s}\nbalance: {min_serving: x}\n"
    assert places(text) == [
        "3:20 health.interval: 1 has no unit",
        "4:24 balance.min_serving: expected a whole number, got the text 'x'",
    ]


def test_the_rules_see_the_rest_of_an_item_with_a_mistake() -> None:
    text = """\
        listen: [{bind: "127.0.0.1:8080"}, {bind: 5, tls: {client_required: true, cert: /c}}, 7]
        nodes: {a: {weight: 5, tls: {}}, b: 5, c: {url: "http://c"}}
        routes: [3, {match: {path: "a"}, to: {nodes: [a, d]}}]
        """
    assert places(text) == [
        "1:43 listen[1].bind: the number 5 is not an address to listen on",
        "1:69 listen[1].tls.client_required: needs client_ca",
        "1:87 listen[2]: expected a mapping, got a number",
        "2:9 nodes.a.url: missing key 'url'",
        "2:37 nodes.b: expected a mapping, got a number",
        "3:10 routes[0]: expected a mapping, got a number",
        "3:13 routes[1].name: missing key 'name'",
        "3:28 routes[1].match.path: 'a' is not a path",
        "3:50 routes[1].to.nodes[1]: there is no node 'd'",
    ]


def test_every_required_key_has_something_that_stands_in() -> None:
    required = {key.path.rsplit(".", 1)[-1] for key in keys() if key.default == "**required**"}
    assert required - {"from"} == set(STAND_INS)


def test_a_secret_in_the_file_is_never_repeated() -> None:
    text = (
        HEAD
        + NODES
        + (
            "health: {token: hunter2, tokn: hunter2, interval: x}\n"
            "state: {database: 'postgres://u:hunter2@h/db'}\n"
            "admin:\n  tokens:\n    - {name: a, role: boss, token: hunter2}\n"
            "    - {name: b, role: viewer, file: hunter2}\n"
            "dns: {tsig: {secret: hunter2}}\n"
            "secret: |\n  hunter2\n  hunter2\n"
            "tls: {ca: 'https://u:hunter2@h/'}\n"
        )
    )
    shown = loaded(text)
    assert len(shown.errors) == 9
    for output in (as_text(shown.faults, shown), as_json(shown.faults, shown), as_github(shown.faults, shown)):
        assert "hunter2" not in output.replace("file: hunter2", "").replace("'hunter2' is not an absolute", "")


def test_a_short_value_of_a_variable_does_not_make_a_message_unreadable() -> None:
    (error,) = loaded(HEAD + NODES + "health: {interval: '${T}'}\n", {"T": "s"}).errors
    assert error.message == "'***' is not a duration"


def test_a_secret_in_a_broken_file_is_never_repeated() -> None:
    shown = loaded("health: {token: hunter2, interval: ${X}}\n")
    assert not shown.is_valid
    assert "hunter2" not in as_text(shown.faults, shown)


def test_the_value_of_a_variable_is_not_repeated() -> None:
    shown = loaded(HEAD + NODES + "health:\n  interval: ${T}\n  path: x${T}\n", {"T": "hunter2"})
    assert len(shown.errors) == 2
    assert "hunter2" not in as_text(shown.faults, shown) + as_json(shown.faults, shown)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("listen: 0.0.0.0:80", "put it in brackets: [...]"),
        ("listen: {bind: '0.0.0.0:80'}", "begin each item with a dash"),
        ("listen: ['0.0.0.0:80']", "such as {bind: ...}; keys: bind, tls, proxy_protocol, backlog"),
        ("nodes: [{name: a}]", "give each a name instead of a dash, such as api1: {...}"),
        ("nodes: {a: 'http://a'}", "such as {url: ...}; keys: url, weight, capacity, tls"),
        ("health: []", "keys: path, host, token, expect, interval, fast_interval, timeout, rise, fall"),
        ("min_serving: 2", "it belongs under balance"),
        ("rise: 2", "it belongs under health"),
        ("balance: {policy: least_request}", "did you mean 'least_requests'?"),
        ("balance: {policy: x}", "write round_robin or least_requests or two_choices or hash"),
        ("queue: {maxi: 1}", "did you mean 'max'?"),
        ("queue: {size: 1}", "known keys: max, timeout"),
        ("nodes: {a: {}}", "such as url: http://10.0.0.11:8003"),
        ("listen: [{bind: '::1:80'}]", "write IPv6 addresses in brackets: [::1]:80"),
        ("listen: [{bind: '10.0.0.1'}]", "write 10.0.0.1:443"),
        ("trusted_proxies: [10.0.0.1/8]", "write 10.0.0.0/8"),
        ("queue: {timeout: 30}", "write 30s for seconds, or 30ms for milliseconds"),
        ("limits: {body: 5}", "write 5B for bytes, or use KiB, MiB, GiB"),
        ("queue: {max: '5'}", "remove the quotes"),
        ("queue: {max: five}", "such as 3"),
        ("queue: {timeout: -1}", "write it as text, such as 30s"),
        ("park: {timeout: .nan}", "write it as text, such as 30s"),
        ("nodes: {a: {<<: {url: 'http://a'}}}", "YAML 1.2 merges no mappings: write its keys here"),
        ("cluster: 5", "put quotes around it"),
    ],
)
def test_an_error_says_what_to_write_instead(text: str, hint: str) -> None:
    assert hint in [fault.hint for fault in loaded(text).errors]
