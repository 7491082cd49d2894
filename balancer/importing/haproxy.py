"""haproxy.cfg: the front end of one service, its backends and their servers."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from balancer.config.scalars import Duration, Size
from balancer.errors import ConfigError
from balancer.importing import conditions, haproxyhealth
from balancer.importing.draft import Draft, NotCarried, Pool, Settings
from balancer.importing.haproxylines import Line, Part, sections
from balancer.importing.haproxyserver import Defaults, server

# What arv-balance does anyway.
_IMPLIED = (
    *(
        "mode http",
        "log ",
        "option httplog",
        "option http-keep-alive",
        "option http-server-close",
        "option dontlognull",
    ),
    *("option redispatch", "option abortonclose", "option forwardfor", "option httpclose", "http-reuse", "daemon"),
    *("user ", "group ", "chroot ", "pidfile ", "master-worker", "nbthread", "nbproc", "cpu-map", "option log-health"),
    *("http-request set-header X-Forwarded-", "http-request add-header X-Forwarded-", "no log", "hash-type consistent"),
    *("unique-id-format", "option splice", "option clitcpka", "option srvtcpka", "option tcpka", "option contstats"),
)
_TIMEOUTS = {
    "connect": ("timeouts.connect",),
    "client": ("timeouts.body_idle", "timeouts.send_idle"),
    "server": ("timeouts.response", "timeouts.response_idle"),
    "http-request": ("timeouts.header",),
    "http-keep-alive": ("timeouts.keepalive",),
    "tunnel": ("timeouts.tunnel_idle",),
    "queue": ("queue.timeout",),
    "check": ("health.timeout",),
}
_POLICIES = {
    "roundrobin": "round_robin",
    "static-rr": "round_robin",
    "leastconn": "least_requests",
    "random": "two_choices",
    "random(2)": "two_choices",
}
_BIND_TLS = {"ca-file": "client_ca", "verify": "client_required", "ssl-min-ver": "minimum_version"}
_RETRY_ON = {"conn-failure": "connect", "empty-response": "reset", "junk-response": "truncated"}
# What HAProxy does when its file does not say.
_UNSAID = {"balance.policy": "round_robin", "balance.slow_start": "0s", "limits.body": "0B"}
_HINTS = {
    "timeout client-fin": "a client that has half-closed is given timeouts.body_idle, as any other",
    "http-request wait-for-body": "it answers `Expect: 100-continue` itself and waits for timeouts.body_idle",
    "cookie": "it sets no cookie; balance: {policy: hash, hash: {by: cookie, name: ...}} goes by one of the nodes",
    "stick": "balance: {policy: hash} keeps a client on a node",
    "stick-table": "balance: {policy: hash} keeps a client on a node",
    "stats": "arv-balance has a dashboard, metrics and a socket of its own: see admin: in docs/config.md",
    "errorfile": "error pages are JSON with the request id",
    "redirect": "it does not redirect; let a node answer",
    "server-template": "name the servers one by one",
    "compression": "it does not compress; let the nodes do it",
    "http-request": "it has no rules that change requests",
    "http-response": "it has no rules that change answers",
    "log-format": "log.access chooses among json, combined and haproxy",
    "tcp-request": "it has no rules for connections",
}


def seconds(text: str) -> float:
    """Return a time of HAProxy (milliseconds unless a unit says otherwise). Raises NotCarried."""
    found = re.fullmatch(r"(\d+)(us|ms|s|m|h|d)?", text)
    if found is None:
        raise NotCarried(f"{text} is no time")
    units = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return int(found[1]) * units[found[2] or "ms"]


@dataclass
class _Proxy:
    """A frontend, a backend or a listen section with its defaults before its own lines."""

    part: Part
    lines: list[Line]

    def of(self, *keywords: str) -> list[Line]:
        """Its lines that begin with one of these words."""
        return [line for line in self.lines if line.keyword in keywords]

    def last(self, keyword: str) -> Line | None:
        """The line that counts where only one does."""
        return next(reversed(self.of(keyword)), None)


def read(text: str, frontend: str | None = None) -> Draft:
    """Return what the file says about one service. Raises ConfigError when it has none, or not that front end."""
    return _Reader(sections(text), frontend).draft()


class _Reader:
    def __init__(self, parts: list[Part], frontend: str | None) -> None:
        self._draft = Draft()
        self._parts = parts
        self._proxies = _with_defaults(parts)
        self._front = _chosen(self._proxies, frontend)
        self._seen: set[int] = set()  # lines that were carried over or noted

    def draft(self) -> Draft:
        """Read everything in the order in which a person would."""
        front = self._front
        for path, value in _UNSAID.items():
            self._draft.set(path, value)
        self._each(front.of("bind"), self._bind)
        backend = self._default_backend()
        self._each([line for part in self._parts if part.kind == "global" for line in part.lines], self._global)
        for proxy in dict.fromkeys((id(front), id(backend))):
            chosen = front if proxy == id(front) else backend
            self._each(chosen.lines, self._setting)
        haproxyhealth.read(self._draft, backend.lines, self._note)
        self._draft.default(self._pool(backend, backend))
        self._routes(backend)
        self._rest()
        return self._draft

    def _note(self, line: Line, why: str = "") -> None:
        """A line was read; with `why` it was not carried over."""
        if why and line.number not in self._seen:
            self._draft.lose(line.number, line.text, why)
        self._seen.add(line.number)

    def _each(self, lines: list[Line], read: Callable[[Line], bool]) -> None:
        for line in lines:
            try:
                if read(line):
                    self._note(line)
            except (NotCarried, ConfigError, ValueError, IndexError) as exc:
                self._note(line, str(exc) or "it is not complete")

    def _default_backend(self) -> _Proxy:
        line = self._front.last("default_backend")
        if line is None:
            if self._front.part.kind == "listen" or not self._front.of("use_backend"):
                return self._front
            raise ConfigError(f"the front end {self._front.part.name} has no default_backend")
        self._note(line)
        return self._backend(line.words[1])

    def _backend(self, name: str) -> _Proxy:
        found = next((p for p in self._proxies if p.part.name == name and p.part.kind in ("backend", "listen")), None)
        if found is None:
            raise ConfigError(f"there is no backend {name}")
        self._seen.add(found.part.head.number)
        return found

    def _bind(self, line: Line) -> bool:
        self._draft.listen.extend(_listens(line.words))
        if any("h2" in word.split(",") for word in line.words):
            raise NotCarried("of this line: HTTP/2; it speaks HTTP/1.1")
        return True

    def _global(self, line: Line) -> bool:
        if line.keyword == "maxconn":
            self._draft.set("limits.connections", int(line.words[1]))
            return True
        return False

    def _setting(self, line: Line) -> bool:
        if line.keyword == "timeout" and line.words[1] in _TIMEOUTS:
            for path in _TIMEOUTS[line.words[1]]:
                self._draft.set(path, str(Duration(seconds(line.words[2]))))
            return True
        if line.keyword == "maxconn":
            self._draft.set("limits.connections", int(line.words[1]))
            return True
        return self._balance(line) or self._retry(line) or self._rule(line)

    def _balance(self, line: Line) -> bool:
        if line.keyword != "balance":
            return False
        how = line.words[1]
        header, cookie = re.fullmatch(r"hdr\((.+)\)", how), re.fullmatch(r"req\.cook\((.+)\)", line.words[-1])
        if how in _POLICIES:
            self._draft.set("balance.policy", _POLICIES[how])
        elif how == "source":
            self._hash({"by": "client"})
        elif header is not None:
            self._hash({"by": "header", "name": header[1]})
        elif how == "hash" and cookie is not None:
            self._hash({"by": "cookie", "name": cookie[1]})
        else:
            raise NotCarried(f"the policy {how}; balance: offers round_robin, least_requests, two_choices and hash")
        return True

    def _hash(self, by: Settings) -> None:
        self._draft.set("balance.policy", "hash")
        self._draft.set("balance.hash", by)

    def _retry(self, line: Line) -> bool:
        if line.keyword == "retries":
            self._draft.set("retry.retries", int(line.words[1]))
        elif line.keyword == "retry-on":
            unknown = [word for word in line.words[1:] if word not in _RETRY_ON and word != "none"]
            self._draft.set("retry.on", [_RETRY_ON[word] for word in line.words[1:] if word in _RETRY_ON])
            if unknown:
                raise NotCarried(f"no retry on {', '.join(unknown)}; the others are carried over")
        else:
            return False
        return True

    def _rule(self, line: Line) -> bool:
        """Rules that say what a setting of ours says."""
        if line.keyword == "unique-id-header":
            self._draft.set("request_id.header", line.words[1])
            return True
        if line.keyword == "acl" and line.words[1:3] == ("from_trusted_proxy", "src"):
            self._draft.set("trusted_proxies", list(line.words[3:]))
            return True
        proxies = re.search(r"expect-proxy layer4 if \{ so_id (\d+) \} \{ src ([^}]+) \}", line.text)
        if proxies is not None:
            self._draft.listen[int(proxies[1]) - 1]["proxy_protocol"] = proxies[2].split()
            return True
        internal = re.search(r"X-External-Client 0 if \{ (?:var\(txn\.client\) -m ip|src) ([^}]+) \}", line.text)
        if internal is not None:
            self._draft.set("internal_networks", internal[1].split())
            self._draft.set("forwarding.external_client", True)
            return True
        for expression, path, kind in _LIMITS:
            found = re.search(expression, line.text) if line.keyword == "http-request" else None
            if found is not None:
                self._draft.set(path, kind(found[1]))
                return True
        return False

    def _pool(self, proxy: _Proxy, usual: _Proxy) -> Pool:
        """The servers of a backend; `usual`: the one whose settings are those of the whole service."""
        defaults = Defaults()
        servers = []
        for line in proxy.lines:
            try:
                if line.keyword == "default-server":
                    defaults = defaults.with_words(line.words[1:])
                    self._note(line)
                elif line.keyword == "server":
                    found, unknown = server(line.words, defaults, (line.number, line.text))
                    servers.append(found)
                    self._note(line, f"of this line: {', '.join(unknown)}" if unknown else "")
            except (NotCarried, ConfigError, ValueError) as exc:
                self._note(line, str(exc))
        if proxy is usual:
            defaults.apply(self._draft)
        sticks = any(line.words[1:2] == ("on",) and line.words[2:] == ("int(1)",) for line in proxy.of("stick"))
        name = re.sub(r"[^A-Za-z0-9._-]", "-", proxy.part.name.removeprefix("route_"))
        return Pool(name, tuple(servers), "manual" if sticks else "automatic", self._own(proxy, usual))

    def _own(self, proxy: _Proxy, usual: _Proxy) -> Settings:
        """What a route to this backend sets for itself."""
        own: Settings = {}
        if proxy is usual:
            return own
        for line in proxy.lines:
            if line.keyword == "timeout" and line.words[1:2] == ("server",):
                value = str(Duration(seconds(line.words[2])))
                if value != self._draft.get("timeouts.response"):
                    own["timeout"] = value
                self._note(line)
            elif line.keyword == "retries" and line in proxy.part.lines:
                if line.words[1] == "0":
                    own["retry"] = False
                self._note(line)
        return own

    def _routes(self, usual: _Proxy) -> None:
        acls: dict[str, list[tuple[str, ...]]] = {}
        for line in self._front.of("acl"):
            acls.setdefault(line.words[1], []).append(line.words[2:])
        used: set[str] = set()

        def route(line: Line) -> bool:
            name, condition = line.words[1], line.words[3:]
            if line.words[2:3] not in ((), ("if",)):
                raise NotCarried("a route of ours has no `not`")
            found = conditions.matches(condition, acls)
            used.update(condition)
            self._draft.route(name.removeprefix("route_"), found, self._pool(self._backend(name), usual))
            if caution := conditions.caution(condition, acls):
                raise NotCarried(caution)
            return True

        self._each(self._front.of("use_backend"), route)
        for line in self._front.of("acl"):
            if line.words[1] in used:
                self._note(line)

    def _rest(self) -> None:
        """Whatever was not looked at is lost, or done anyway."""
        reached = {id(self._front.part)} | {
            id(proxy.part) for proxy in self._proxies if proxy.part.head.number in self._seen
        }
        for part in self._parts:
            if part.kind in ("frontend", "backend", "listen") and id(part) not in reached:
                why = "another service; read it with --frontend" if part.kind != "backend" else "nothing leads to it"
                self._note(part.head, why)
                continue
            if part.kind not in ("global", "defaults", "frontend", "backend", "listen"):
                self._note(part.head, f"it has no {part.kind} sections")
                continue
            for line in part.lines:
                if not line.text.startswith(_IMPLIED):
                    self._note(line, _hint(line))


def _hint(line: Line) -> str:
    two = " ".join(line.words[:2])
    return _HINTS.get(two) or _HINTS.get(line.keyword, "it has nothing that corresponds")


_LIMITS: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    (r"req\.hdr\(content-length\),sub\((\d+)\) gt 0", "limits.body", lambda text: str(Size(int(text)))),
    (r"req\.body_size gt (\d+)", "limits.body", lambda text: str(Size(int(text)))),
    (r"\{ url,length gt (\d+) \}", "limits.target_bytes", int),
)


def _with_defaults(parts: list[Part]) -> list[_Proxy]:
    """Each proxy with the lines of the defaults that hold for it before its own."""
    proxies, unnamed = [], list[Line]()
    named: dict[str, list[Line]] = {}
    for part in parts:
        source = part.head.words[part.head.words.index("from") + 1] if "from" in part.head.words[:-1] else None
        inherited = named.get(source, []) if source is not None else unnamed
        if part.kind == "defaults":
            unnamed = [*(inherited if source else ()), *part.lines]
            named[part.name] = unnamed
        elif part.kind in ("frontend", "backend", "listen"):
            proxies.append(_Proxy(part, [*inherited, *part.lines]))
    return proxies


def _chosen(proxies: list[_Proxy], name: str | None) -> _Proxy:
    fronts = [proxy for proxy in proxies if proxy.part.kind in ("frontend", "listen")]
    if name is not None:
        found = next((proxy for proxy in fronts if proxy.part.name == name), None)
        if found is None:
            raise ConfigError(f"there is no front end {name}; it has {', '.join(p.part.name for p in fronts)}")
        return found
    for proxy in fronts:
        mode = proxy.last("mode")
        leads = proxy.of("server", "default_backend", "use_backend")
        if leads and (mode is None or mode.words[1] == "http"):
            return proxy
    raise ConfigError("it has no front end for HTTP that leads to servers")


def _listens(words: tuple[str, ...]) -> list[Settings]:
    """The listeners of a `bind` line. Raises NotCarried for an option that would change who is let in."""
    options, certificates, tls, more = list(words[2:]), list[str](), Settings(), Settings()
    while options:
        word = options.pop(0)
        if word == "crt":
            certificates.append(options.pop(0))
        elif word in _BIND_TLS:
            key, value = _BIND_TLS[word], options.pop(0)
            tls[key] = value == "required" if key == "client_required" else value
        elif word == "backlog":
            more["backlog"] = int(options.pop(0))
        elif word == "accept-proxy":
            more["proxy_protocol"] = ["0.0.0.0/0", "::/0"]
        elif word in ("alpn", "mode", "id", "name", "npn", "user", "group"):
            options.pop(0)
        elif word not in ("ssl", "v4v6", "defer-accept", "tfo", "strict-sni", "no-tls-tickets"):
            raise NotCarried(f"the option {word} of a bind")
    if certificates:
        tls["cert"] = certificates[0]
        tls |= {"certificates": [{"cert": path} for path in certificates[1:]]} if certificates[1:] else {}
    if not tls.get("client_required", True):
        del tls["client_required"]
    secure = {"tls": tls} if "ssl" in words else {}
    return [{"bind": _address(item), **secure, **more} for item in words[1].split(",")]


def _address(text: str) -> str:
    if text.startswith(("unix@", "/")):
        return "unix:" + text.removeprefix("unix@")
    text = text.removeprefix("ipv4@").removeprefix("ipv6@")
    host, _, port = text.rpartition(":")
    if "-" in port:
        raise NotCarried("a range of ports: write a listener for each")
    return {"": f"0.0.0.0:{port}", "*": f"0.0.0.0:{port}", "::": f"[::]:{port}"}.get(host, text)
