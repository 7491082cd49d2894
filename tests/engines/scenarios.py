"""The scenario table: what is sent, and what is seen of it at the client and at the nodes, as one short text.

A row's text must not hold what differs from run to run (ports, generated ids), so that two balancers can be compared
by comparing texts.
"""

import contextlib
import http.client
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.engines.behaviour import MEBIBYTE
from tests.engines.fronts import Front
from tests.engines.sites import HEALTH_TOKEN, SECRET
from tests.support.client import Answer, Client, request
from tests.support.upstream import Request

ARVADOS_ID = re.compile(r"req-[0-9a-z]{20}\Z")
PING = "/arvados/v1/nodes/{word}/ping"

See = Callable[[Front], str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row. `feature` is its name in the capability matrix."""

    name: str
    site: str
    feature: str
    see: See


def scenario(name: str, feature: str, site: str = "usual") -> Callable[[See], See]:
    """Put a function into the table."""

    def put(see: See) -> See:
        SCENARIOS.append(Scenario(name, site, feature, see))
        return see

    return put


SCENARIOS: list[Scenario] = []


def observe(row: Scenario, front: Front) -> str:
    """Return what is seen; a broken exchange is an observation, too."""
    try:
        return row.see(front)
    except (ConnectionError, http.client.IncompleteRead, AssertionError, TimeoutError) as exc:
        # Without the exception's own text: it holds addresses.
        return "no whole answer" if not isinstance(exc, TimeoutError) else "no answer in time"


def _get(front: Front, target: str, *lines: str, source: str | None = None, method: str = "GET") -> Answer:
    with front.connect(source) as client:
        return client.get(target, *lines, method=method)


def _status_of(front: Front, data: bytes) -> str:
    """The status of the answer to raw bytes, `closed` when there is none."""
    with front.connect() as client:
        with contextlib.suppress(ConnectionError):  # an answer may come before all was sent
            client.send(data)
        try:
            return str(client.read_head()[0])
        except (AssertionError, ConnectionError):
            return "closed"


def _arrived(front: Front, word: str) -> Request:
    found = front.nodes.received(word)
    assert len(found) == 1, found
    return found[0][1]


def _fields(found: Request, *names: str) -> str:
    return ", ".join(f"{name}: {' | '.join(found.all(name)) or '-'}" for name in names)


def _mark(title: str) -> str:
    """A word for a row, for its targets."""
    return f"{zlib.crc32(title.encode()):010}"


def _shape(value: str | None) -> str:
    """An id without what differs from run to run."""
    if value is None:
        return "none"
    return "req-20" if ARVADOS_ID.match(value) else value if len(value) < 40 else f"{len(value)} characters"


# --- distribution -------------------------------------------------------------------------------------------------


SHARES = (("a", 20), ("b", 10), ("c", 10))


@scenario("40 requests over weights 200, 100, 100", "weights")
def weights(front: Front) -> str:
    _settled(front, "ready", {"a", "b", "c"})
    with front.connect() as client:
        for number in range(40):
            client.get(f"/spread/{number}")
    found = Counter(name for name, _ in front.nodes.received("/spread/"))
    # Where a rotation stands when the row begins differs: one more or less is no difference.
    return " ".join(f"{name}={share if abs(found[name] - share) <= 2 else found[name]}" for name, share in SHARES)


def _ping_row(title: str, feature: str, spelling: str, method: str = "GET") -> None:
    @scenario(title, feature)
    def ping(front: Front) -> str:
        word = f"zzzzz-7ekkf-{_mark(title)}"
        for _ in range(4):
            with front.connect() as client:
                client.get(spelling.replace("{word}", word), method=method)
        return front.nodes.counts(word)


_ping_row("node ping", "ping route", PING)
_ping_row("node ping with a slash at its end", "ping route", PING + "/")
_ping_row("node ping as ping.json with a query", "ping route", PING + ".json?x=1")
_ping_row("node ping with percent-encoded letters", "ping route", "/%61rvados/v1/node%73/{word}/%70ing")
_ping_row("node ping with doubled slashes", "ping route", "//arvados//v1/nodes/{word}//ping")
_ping_row("node ping with a segment `.`", "ping route", "/arvados/./v1/nodes/{word}/ping")
_ping_row("node ping with a segment `..`", "ping route with ..", "/arvados/v1/x/../nodes/{word}/ping")
_ping_row("node ping in the absolute form", "ping route", "http://a.test" + PING)
_ping_row("node ping by POST", "ping route", PING, method="POST")
_ping_row("a path that only looks like a node ping", "no other path", "/arvados/v1/nodes/{word}/pings")


# --- request id ---------------------------------------------------------------------------------------------------


def _id_row(title: str, feature: str, *lines: str) -> None:
    @scenario(title, feature)
    def request_id(front: Front) -> str:
        word = f"id{_mark(title)}"
        found = _get(front, f"/{word}", *lines)
        sent = _arrived(front, word).all("X-Request-Id")
        came = found.all("X-Request-Id")
        same = "the same back" if sent == came else f"back: {', '.join(map(_shape, came)) or 'none'}"
        return f"to the node: {', '.join(map(_shape, sent)) or 'none'}; {same}"


_id_row("request id: none", "request id made")
_id_row("request id: a valid one", "request id kept", "X-Request-Id: req-client.1")
_id_row("request id: one with a space", "request id replaced", "X-Request-Id: not an id")
_id_row("request id: 2000 characters", "request id replaced", "X-Request-Id: " + "x" * 2000)
_id_row("request id: two lines", "request id twice", "X-Request-Id: one-1", "X-Request-Id: two-2")


@scenario("request id: the node answers with others", "request id of the node")
def id_of_the_node(front: Front) -> str:
    found = _get(front, "/hop/id", "X-Request-Id: mine-1")
    return ", ".join(found.all("X-Request-Id"))


@scenario("request id on an answer of our own", "request id on own answers")
def id_on_own(front: Front) -> str:
    found = _get(front, "/slow/own", "X-Request-Id: mine-2")
    return f"{found.status}, {', '.join(found.all('X-Request-Id')) or 'no id'}"


@scenario("request id in the body of an answer of our own", "error pages")
def id_in_body(front: Front) -> str:
    found = _get(front, "/slow/body", "X-Request-Id: mine-3")
    return f"{found.status}, {'JSON' if found.body[:1] == b'{' else 'no JSON'}, {b'mine-3' in found.body}"


# --- who the client is --------------------------------------------------------------------------------------------

FORGED = ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test", "X-Real-IP: 9.9.9.9")


@scenario("X-Forwarded-For of a stranger", "forwarded fields")
def forged_for(front: Front) -> str:
    _get(front, "/forged1", *FORGED)
    return _fields(_arrived(front, "forged1"), "X-Forwarded-For", "X-Real-IP")


@scenario("X-Forwarded-Proto and -Host of a stranger", "forwarded fields")
def forged_proto(front: Front) -> str:
    _get(front, "/forged2", *FORGED)
    return _fields(_arrived(front, "forged2"), "X-Forwarded-Proto", "X-Forwarded-Host")


@scenario("Forwarded and X-Forwarded-Port of a stranger", "forwarded fields, others")
def forged_others(front: Front) -> str:
    _get(front, "/forged3", "Forwarded: for=9.9.9.9", "X-Forwarded-Port: 1", "X-Forwarded-Unheard-Of: 1")
    found = _arrived(front, "forged3")
    return _fields(found, "Forwarded", "X-Forwarded-Unheard-Of")


@scenario("X-Forwarded-For of a trusted proxy", "forwarded fields")
def trusted_for(front: Front) -> str:
    _get(front, "/trusted1", "X-Forwarded-For: 192.0.2.7", source="127.0.0.2")
    return _fields(_arrived(front, "trusted1"), "X-Forwarded-For")


@scenario("X-Forwarded-Proto and -Host of a trusted proxy", "forwarded fields")
def trusted_proto(front: Front) -> str:
    _get(front, "/trusted2", *FORGED, source="127.0.0.2")
    return _fields(_arrived(front, "trusted2"), "X-Forwarded-Proto", "X-Forwarded-Host")


@scenario("X-Real-IP through one trusted proxy", "real address")
def real_ip(front: Front) -> str:
    _get(front, "/real1", "X-Forwarded-For: 192.0.2.7", source="127.0.0.2")
    return _fields(_arrived(front, "real1"), "X-Real-IP")


@scenario("X-Real-IP through two trusted proxies", "real address through several")
def real_ip_two(front: Front) -> str:
    _get(front, "/real2", "X-Forwarded-For: 203.0.113.1, 192.0.2.7, 127.0.0.3", source="127.0.0.2")
    return _fields(_arrived(front, "real2"), "X-Real-IP")


@scenario("X-External-Client forged by an outer client", "external client")
def external(front: Front) -> str:
    _get(front, "/external1", "X-External-Client: 0")
    return _fields(_arrived(front, "external1"), "X-External-Client")


@scenario("X-External-Client of an inner client", "external client")
def internal(front: Front) -> str:
    _get(front, "/external2", source="127.0.0.9")
    return _fields(_arrived(front, "external2"), "X-External-Client")


@scenario("X-External-Client of an inner client behind a trusted proxy", "external client behind a proxy")
def behind(front: Front) -> str:
    _get(front, "/external3", "X-Forwarded-For: 127.0.0.9", source="127.0.0.2")
    return _fields(_arrived(front, "external3"), "X-External-Client")


@scenario("Via to the node", "via")
def via(front: Front) -> str:
    _get(front, "/via1")
    return _fields(_arrived(front, "via1"), "Via")


# --- hop by hop ---------------------------------------------------------------------------------------------------


@scenario("hop-by-hop fields of a request", "hop-by-hop")
def hop_by_hop(front: Front) -> str:
    _get(front, "/hbh1", "Keep-Alive: timeout=9", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==")
    return _fields(_arrived(front, "hbh1"), "Keep-Alive", "Proxy-Connection", "Proxy-Authorization")


@scenario("fields that Connection names", "fields named in Connection")
def nominated(front: Front) -> str:
    status = _get(front, "/hbh2", "Connection: X-Private, keep-alive", "X-Private: 1").status
    return f"{status}, {_fields(_arrived(front, 'hbh2'), 'X-Private')}"


@scenario("an upgrade to h2c with HTTP2-Settings", "hop-by-hop")
def h2c(front: Front) -> str:
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    status = _get(front, "/hbh3", *lines).status
    return f"{status}, {_fields(_arrived(front, 'hbh3'), 'Upgrade', 'HTTP2-Settings')}"


@scenario("TE: gzip", "hop-by-hop")
def te(front: Front) -> str:
    _get(front, "/hbh4", "TE: gzip")
    return _fields(_arrived(front, "hbh4"), "TE")


@scenario("hop-by-hop fields of an answer", "hop-by-hop of answers")
def hop_by_hop_back(front: Front) -> str:
    found = _get(front, "/hop/back")
    return ", ".join(f"{name}: {found.one(name)}" for name in ("Keep-Alive", "Proxy-Authenticate"))


@scenario("fields that Connection of an answer names", "fields named in Connection of answers")
def nominated_back(front: Front) -> str:
    return f"X-Private: {_get(front, '/hop/back2').one('X-Private')}"


@scenario("a field name with an underscore", "underscore")
def underscore(front: Front) -> str:
    _get(front, "/under1", "X_Real_Ip: 9.9.9.9")
    return _fields(_arrived(front, "under1"), "X_Real_Ip")


@scenario("a field name with a dot", "dotted")
def dotted(front: Front) -> str:
    _get(front, "/under2", "X.Real.Ip: 9.9.9.9")
    return _fields(_arrived(front, "under2"), "X.Real.Ip")


@scenario("X-Arv-Designation of a client", "designation forged")
def designation(front: Front) -> str:
    _get(front, "/desig1", "X-Arv-Designation: dns;epoch=99")
    return _fields(_arrived(front, "desig1"), "X-Arv-Designation")


@scenario("X-Arv-Designation on a node ping", "designation sent")
def designation_sent(front: Front) -> str:
    _get(front, PING.replace("{word}", "desig2"))
    return re.sub(r"\d+", "N", _fields(_arrived(front, "desig2"), "X-Arv-Designation"))


# --- what arrives as it was sent ----------------------------------------------------------------------------------


def _raw_row(title: str, feature: str, target: str, word: str) -> None:
    @scenario(title, feature)
    def raw(front: Front) -> str:
        _get(front, target)
        return _arrived(front, word).target


_raw_row("a query byte for byte", "target unchanged", "/raw1?a=1;b=%2F&&c=[]", "raw1")
_raw_row("a path byte for byte", "path unchanged", "/raw2%2Fx/%7Ey", "raw2")


@scenario("Host is what the client said", "host kept")
def host(front: Front) -> str:
    _get(front, "/host1")
    return _fields(_arrived(front, "host1"), "Host")


@scenario("1 MiB down", "bodies")
def big(front: Front) -> str:
    return f"{_get(front, '/big').body == MEBIBYTE}"


@scenario("1 MiB up", "bodies")
def up(front: Front) -> str:
    with front.connect() as client:
        status = client.post(MEBIBYTE, "/up1").status
    return f"{status}, {_arrived(front, 'up1').body == MEBIBYTE}"


@scenario("a chunked body up", "bodies")
def chunked(front: Front) -> str:
    with front.connect() as client:
        client.send(request("/up2", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n")
        status = client.read().status
    return f"{status}, {_arrived(front, 'up2').body!r}"


@scenario("HEAD, then GET on the same connection", "bodies")
def head(front: Front) -> str:
    with front.connect() as client:
        return f"{client.get('/head', method='HEAD').status}, {client.get('/head2').status}"


@scenario("errors of the API pass unchanged", "bodies")
def errors(front: Front) -> str:
    return f"{_get(front, '/missing').status} {_get(front, '/broken').status} {len(front.nodes.received('broken'))}"


@scenario("Expect: 100-continue", "expect")
def expect(front: Front) -> str:
    with front.connect() as client:
        client.send(request("/expect1", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        status, _ = client.read_head()
        client.send(b"hello")
        return f"{status}, {client.read().status}, {_arrived(front, 'expect1').body!r}"


@scenario("HTTP/1.0 without Host", "http 1.0")
def old(front: Front) -> str:
    with front.connect() as client:
        client.send(b"GET /old1 HTTP/1.0\r\n\r\n")
        status = client.line().split()[1].decode()  # HTTP/1.0 or 1.1, both are right
    host = _fields(_arrived(front, "old1"), "Host")
    return f"{status}, {re.sub(r':[0-9]+$', ':PORT', host)}"


# --- tunnels ------------------------------------------------------------------------------------------------------


def _tunnel_row(title: str, feature: str, method: str, token: str, *lines: str) -> None:
    @scenario(title, feature)
    def tunnel(front: Front) -> str:
        with front.connect() as client:
            empty = ("Content-Length: 0",) if method == "POST" else ()
            client.send(request("/tunnel", "Connection: upgrade", f"Upgrade: {token}", *empty, *lines, method=method))
            found = client.read()
            if found.status != 101:
                return f"{found.status} {found.body!r}"
            client.send(b"\x00hello")
            return f"101 {client.read_raw(6)!r}"


WEBSOCKET = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
_tunnel_row("tunnel: GET, websocket", "websocket", "GET", "websocket", *WEBSOCKET)
_tunnel_row("tunnel: POST, ssh", "tunnels", "POST", "ssh")
_tunnel_row("tunnel: POST, tunnel", "tunnels", "POST", "tunnel")
_tunnel_row("tunnel: a protocol that is not allowed", "other upgrades", "GET", "gopher")


# --- what is refused ----------------------------------------------------------------------------------------------


def _refused_row(title: str, feature: str, data: bytes) -> None:
    @scenario(title, feature)
    def refused(front: Front) -> str:
        return _status_of(front, data)


def _raw(*lines: str, body: bytes = b"", target: str = "/bad", method: str = "POST") -> bytes:
    return request(target, *lines, method=method) + body


_refused_row("a body of 128 MiB and a byte is announced", "body limit", _raw("Content-Length: 134217729"))
_refused_row("two different Content-Length", "malformed", _raw("Content-Length: 1", "Content-Length: 2", body=b"ab"))
_refused_row(
    "Content-Length with Transfer-Encoding",
    "two framings",
    _raw("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
)
_refused_row("a space before the colon", "malformed", _raw("X-Bad : 1", method="GET"))
_refused_row("a line break inside a field", "folded line", _raw("X-Bad: 1\r\n folded", method="GET"))
_refused_row("no Host", "no host", b"GET /bad HTTP/1.1\r\n\r\n")
_refused_row("two Host", "two hosts", _raw("Host: b.test", method="GET"))
_refused_row("TRACE", "trace", _raw(method="TRACE"))
_refused_row("CONNECT", "connect method", b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
_refused_row("a target of 9000 bytes", "target limit", _raw(method="GET", target="/" + "t" * 9000))
_refused_row("150 fields", "field count", _raw(*(f"X-{n}: 1" for n in range(150)), method="GET"))
_refused_row("fields of 40 KiB", "head size", _raw(*(f"X-{n}: {'v' * 4000}" for n in range(10)), method="GET"))
_refused_row("a NUL in a field", "control characters", _raw("X-Bad: a\x00b", method="GET"))
_refused_row("Transfer-Encoding: gzip", "unknown coding", _raw("Transfer-Encoding: gzip", body=b"x"))


@scenario("a chunked body over the limit", "body limit, chunked", "drained")
def chunked_limit(front: Front) -> str:
    piece = b"%x\r\n%b\r\n" % (1 << 15, b"x" * (1 << 15))
    data = _raw("Transfer-Encoding: chunked", target="/chunks") + piece * 8 + b"0\r\n\r\n"
    return _status_of(front, data)


# --- time ---------------------------------------------------------------------------------------------------------


@scenario("a node that takes too long", "response timeout")
def slow(front: Front) -> str:
    return f"{_get(front, '/slow/alone').status}, sent {len(front.nodes.received('/slow/alone'))} times"


@scenario("a head that does not end", "header timeout")
def slow_head(front: Front) -> str:
    with front.connect() as client:
        client.send(b"GET /never HTTP/1.1\r\nHost: a.test\r\n")
        try:
            return str(client.read_head()[0])
        except AssertionError:
            return "closed"


# --- the log ------------------------------------------------------------------------------------------------------


def _log_row(title: str, feature: str, target: str, *lines: str) -> None:
    @scenario(title, feature)
    def log(front: Front) -> str:
        mark = f"logged-{_mark(title)}"
        fields = (line.replace("SECRET", SECRET) for line in lines)
        _get(front, target.replace("SECRET", SECRET), f"X-Request-Id: {mark}", *fields)
        said = _logged(front, mark)
        return f"{'a line' if said else 'no line'}, {'with' if SECRET in front.said() else 'without'} the secret"


def _logged(front: Front, mark: str) -> list[str]:
    """The log's lines that hold `mark`, once there are any."""
    deadline = time.monotonic() + 10
    while mark not in front.said() and time.monotonic() < deadline:
        time.sleep(0.02)
    return [line for line in front.said().splitlines() if mark in line]


_log_row("log: api_token in a query", "redaction", "/log1?api_token=SECRET&x=1")
_log_row("log: ping_secret between others", "redaction", "/log2?a=1&ping_secret=SECRET&b=2")
_log_row("log: a percent-encoded name", "redaction", "/log3?api%5Ftoken=SECRET")
_log_row("log: a name in capitals", "redaction", "/log4?API_TOKEN=SECRET")
_log_row(
    "log: five secrets in one query",
    "redaction",
    "/log9?api_token=SECRET&x=1&ping_secret=SECRET&api_token=SECRET&y=2&reader_tokens=SECRET&api_token=SECRET",
)
_log_row("log: Authorization and Cookie", "redaction", "/log5", "Authorization: Bearer SECRET", "Cookie: s=SECRET")
_log_row("log: a secret inside another value", "redaction, nested", "/log6?to=%2Fx%3Fapi_token%3DSECRET")


@scenario("log: a parameter that is no secret is kept", "log detail")
def log_detail(front: Front) -> str:
    _get(front, f"/log7?keep=visible7&api_token={SECRET}", "X-Request-Id: logged-7")
    return "kept" if any("visible7" in line for line in _logged(front, "logged-7")) else "gone"


@scenario("log: the path is there", "log path")
def log_path(front: Front) -> str:
    _get(front, "/log8/path8?x=1", "X-Request-Id: logged-8")
    return "there" if any("path8" in line for line in _logged(front, "logged-8")) else "gone"


# --- other ways in, other policies --------------------------------------------------------------------------------


def _tls_row(title: str, server_name: str) -> None:
    @scenario(title, "tls", "doors")
    def tls(front: Front) -> str:
        client, secured = front.connect_tls(server_name)
        with client:
            word = f"tls{_mark(title)}"
            status = client.get(f"/{word}").status
            shown = secured.getpeercert(binary_form=True) or b""
            names = [name for name in ("a.example.org", "b.example.org") if name.encode() in shown]
        return f"{status}, certificate of {' '.join(names)}, {_fields(_arrived(front, word), 'X-Forwarded-Proto')}"


_tls_row("TLS: the first name", "a.example.org")
_tls_row("TLS: the other name", "b.example.org")


@scenario("plain HTTP beside TLS", "tls", "doors")
def plain(front: Front) -> str:
    status = _get(front, "/plain1").status
    return f"{status}, {_fields(_arrived(front, 'plain1'), 'X-Forwarded-Proto')}"


@scenario("over a Unix socket", "unix socket", "doors")
def over_unix(front: Front) -> str:
    try:
        with front.connect_unix() as client:
            return str(client.get("/unix1").status)
    except FileNotFoundError:
        return "not there"


@scenario("30 requests of three sessions from 30 addresses", "hash", "doors")
def sessions(front: Front) -> str:
    """In the best of five rounds: a node that is found healthy or sick in between takes sessions or gives them."""
    for turn in range(5):
        for number in range(30):
            session = f"s{number % 3}"
            _get(front, f"/turn{turn}/{session}/", f"X-Session: {session}", source=f"127.0.1.{number}")
        if all(len({name for name, _ in front.nodes.received(f"/turn{turn}/s{n}/")}) == 1 for n in range(3)):
            return "each on one node"
    return "spread"


@scenario("the token of health checks", "health token sent", "doors")
def health_token(front: Front) -> str:
    _until(lambda: front.nodes.received("/_health"))
    fields = {tuple(found.all("Authorization")) for _, found in front.nodes.received("/_health")}
    if fields == {(f"Bearer {HEALTH_TOKEN}",)}:
        return f"on every check, {'in' if HEALTH_TOKEN in front.said() + front.rendered() else 'not in'} log and file"
    return "on some checks" if fields - {()} else "on none"


@scenario("statistics", "statistics", "doors")
def statistics(front: Front) -> str:
    path = {"nginx": "/", "envoy": "/stats/prometheus"}.get(front.name, "/metrics")
    with Client(socket.create_connection(("127.0.0.1", front.statistics_port), 10.0)) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{front.statistics_port}\r\n\r\n".encode())
        found = client.read()
    return f"{found.status}, {'for Prometheus' if b'# TYPE ' in found.body else 'in another form'}"


@scenario("12 requests while one is slow", "busy node", "drained")
def busy(front: Front) -> str:
    _settled(front, "idle", {"a", "b"})
    with front.connect() as waiting:
        waiting.send(request("/slow/busy"))
        _until(lambda: front.nodes.received("/slow/busy"))
        taken = front.nodes.received("/slow/busy")[0][0]
        for number in range(12):
            _get(front, f"/quick/{number}")
    return "none on its node" if taken not in _shares(front, "/quick/") else "some on its node"


def _until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 6
    while not met() and time.monotonic() < deadline:
        time.sleep(0.01)


# --- nodes that fail ----------------------------------------------------------------------------------------------


def _dies_row(title: str, feature: str, method: str, path: str) -> None:
    """Eight times, on kept connections to the nodes and on new ones: the statuses, and the most often sent."""

    @scenario(title, feature)
    def dies(front: Front) -> str:
        statuses, sent = set(), 0
        for number in range(8):
            word = f"/{path}/{method.lower()}/{number}"
            with front.connect() as client:
                try:
                    found = client.post(b"x=1", word, method=method) if method != "GET" else client.get(word)
                    statuses.add(str(found.status))
                except (AssertionError, ConnectionError, http.client.IncompleteRead):
                    statuses.add("cut")
            sent = max(sent, len(front.nodes.received(word)))
        return f"{', '.join(sorted(statuses))}; sent {sent} times at most"


_dies_row("POST on a node that dies", "POST is sent once", "POST", "dies")
_dies_row("PATCH on a node that dies", "POST is sent once", "PATCH", "dies")
_dies_row("GET on a node that dies", "GET is retried", "GET", "dies")
_dies_row("PUT on a node that dies", "PUT is retried", "PUT", "dies")
_dies_row("GET on a node that dies inside its answer", "cut answer", "GET", "cut")


@scenario("20 GET while a node refuses connections", "refused", "dying")
def refused_get(front: Front) -> str:
    statuses = set()
    for number in range(20):
        statuses.add(_get(front, f"/refused/{number}").status)
    return ", ".join(map(str, sorted(statuses)))


@scenario("20 POST while a node refuses connections", "refused, POST", "dying")
def refused_post(front: Front) -> str:
    statuses = set()
    for number in range(20):
        with front.connect() as client:
            statuses.add(client.post(b"x=1", f"/postref/{number}").status)
    return f"{', '.join(map(str, sorted(statuses)))}, sent {len(front.nodes.received('/postref/'))} times"


@scenario("30 requests with a drained node", "drained node", "drained")
def drained(front: Front) -> str:
    _settled(front, "ready", {"a", "b"})
    with front.connect() as client:
        for number in range(30):
            client.get(f"/drain/{number}")
    return _shares(front, "/drain/")


def _shares(front: Front, word: str) -> str:
    """Which nodes got requests; without counts, because where a rotation stands differs."""
    return " ".join(sorted({name for name, _ in front.nodes.received(word)})) or "none"


def _settled(front: Front, word: str, wanted: set[str], path: str = "/{word}") -> str:
    """Ask until only the `wanted` nodes get requests (or it takes too long), then 20 times more; who got those."""
    deadline, turn = time.monotonic() + 5, 0
    while time.monotonic() < deadline or turn < 25:  # a busy machine has fewer turns in 5 s
        turn += 1
        for number in range(12):  # some choose at random
            with contextlib.suppress(AssertionError, OSError):
                _get(front, path.format(word=f"{word}{turn}x{number}"))
        if {name for name, _ in front.nodes.received(f"{word}{turn}x")} == wanted:
            break
        time.sleep(0.05)
    for number in range(20):  # some choose at random
        _get(front, path.format(word=f"{word}-then-{number}"))
    return _shares(front, f"{word}-then-")


@scenario("a sick node that answers 200 with ERROR", "sick node", "drained")
def sick(front: Front) -> str:
    front.nodes.sick.add("a")
    try:
        return _settled(front, "sick", {"b"})
    finally:
        front.nodes.sick.discard("a")


@scenario("fail-over of the designated node, the drained one left out", "fail-over", "drained")
def fail_over(front: Front) -> str:
    _settled(front, "calm", {"a", "b"})
    front.nodes.sick.add("b")
    try:
        return _settled(front, "over", {"a"}, "/arvados/v1/nodes/{word}/ping")
    finally:
        front.nodes.sick.discard("b")


@scenario("no return to the better designated node by itself", "fail-back", "drained")
def fail_back(front: Front) -> str:
    _settled(front, "well", {"a", "b"})
    time.sleep(0.5)
    for count in range(8):
        _get(front, f"/arvados/v1/nodes/back{count}/ping")
    return _shares(front, "/back")


@scenario("no node can serve", "no node", "drained")
def no_node(front: Front) -> str:
    front.nodes.sick.update("abc")
    try:
        found = _while_all_are_sick(front)
    finally:
        front.nodes.sick.clear()
    if found is None:
        return "still answered by a node"
    return f"{found.status}, {'with' if found.one('Retry-After') else 'without'} Retry-After"


def _while_all_are_sick(front: Front) -> Answer | None:
    """The answer once the nodes are known to be sick; None when that takes too long."""
    deadline, turn = time.monotonic() + 4, 0
    while time.monotonic() < deadline or turn < 25:
        turn += 1
        if (found := _get(front, "/nobody")).status >= 500:
            return found
        time.sleep(0.1)
    return None


@scenario("a short outage of all nodes", "park", "drained")
def park(front: Front) -> str:
    """A request comes while all nodes are known to be sick, and soon afterwards they are well again."""
    front.nodes.sick.update("abc")
    try:
        _while_all_are_sick(front)
        with front.connect() as client:
            client.send(request("/outage"))
            time.sleep(0.2)  # who answers at once has done so
            front.nodes.sick.clear()
            return str(client.read().status)
    finally:
        front.nodes.sick.clear()
