"""nginx.conf: the servers of one service, its upstreams, its locations."""

import re
from collections.abc import Callable
from pathlib import Path

from balancer.config.scalars import NAME, Duration, Size
from balancer.core.routing import template_fault
from balancer.errors import ConfigError
from balancer.importing.draft import Draft, NotCarried, Pool, Server, Settings
from balancer.importing.nginxfile import Directive, tree
from balancer.importing.nginxmaps import routes_of
from balancer.render import spelling

# What arv-balance does anyway, or what has no counterpart because there is no need of one.
_IMPLIED_WORDS = """
worker_processes error_log pid user daemon include default_type sendfile tcp_nopush tcp_nodelay server_tokens
keepalive proxy_http_version proxy_buffering proxy_request_buffering proxy_redirect types types_hash_max_size
proxy_ssl_server_name ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_prefer_server_ciphers zone
server_names_hash_bucket_size root index real_ip_header real_ip_recursive proxy_ssl_session_reuse log_format
ignore_invalid_headers resolver resolver_timeout load_module worker_rlimit_nofile multi_accept use
"""
_IMPLIED = frozenset(_IMPLIED_WORDS.split())
_OUR_FIELDS_WORDS = """
host connection upgrade x-real-ip x-request-id via x-external-client forwarded
"""
_OUR_FIELDS = frozenset(_OUR_FIELDS_WORDS.split())
_TIMEOUTS = {
    "client_header_timeout": ("timeouts.header",),
    "client_body_timeout": ("timeouts.body_idle",),
    "send_timeout": ("timeouts.send_idle",),
    "proxy_connect_timeout": ("timeouts.connect",),
    "proxy_read_timeout": ("timeouts.response", "timeouts.response_idle"),
}
# What nginx does when its file does not say.
_UNSAID = {"balance.policy": "round_robin", "balance.slow_start": "0s", "limits.body": "1MiB"}
_POLICIES = {"least_conn": "least_requests", "random": "two_choices"}
_HASHES = {"http": "header", "cookie": "cookie"}


def seconds(text: str) -> float:
    """Return a time of nginx (seconds unless a unit says otherwise). Raises NotCarried."""
    parts = re.findall(r"(\d+)(ms|s|m|h|d|)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise NotCarried(f"{text} is no time")
    units = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
    return sum(int(number) * units[unit] for number, unit in parts)


def read(path: Path, server_name: str | None = None) -> Draft:
    """Return what a file says about one service. Raises ConfigError when it has none."""
    return _Reader(tree(path), server_name).draft()


class _Reader:
    def __init__(self, root: Directive, server_name: str | None) -> None:
        self._draft = Draft()
        self._root = root
        self._http = root.first("http") or root
        self._servers = _chosen(self._http, server_name)
        self._upstreams = {item.args[0]: item for item in self._http.each("upstream") if item.args}
        self._seen: set[int] = set()
        self._default: Directive | None = None

    def draft(self) -> Draft:
        """Read settings from the outside to the inside, then where requests go."""
        events = self._root.first("events")
        for path, value in _UNSAID.items():
            self._draft.set(path, value)
        for block in (self._root, *([events] if events else []), self._http, *self._servers):
            self._each(block, self._setting)
        for server in self._servers:
            self._listens(server)
        location = self._location(self._servers[0], "/")
        if location is not None:
            self._each(location, self._setting)
        target = _target(location or self._servers[0])
        variable = target.partition("://")[2]
        if variable.startswith("$"):
            fallback, found = routes_of(self._http, variable)
            self._draft.default(self._pool(fallback, target))
            for name, match, upstream in found:
                self._draft.route(name, [match], self._pool(upstream, target))
        else:
            self._draft.default(self._pool(variable, target))
        self._locations(self._servers[0])
        self._rest(self._root)
        return self._draft

    def _note(self, item: Directive, why: str = "") -> None:
        if why and id(item) not in self._seen:
            self._draft.lose(item.line, item.text, why)
        self._seen.add(id(item))

    def _each(self, block: Directive, read: Callable[[Directive], bool]) -> None:
        for item in block.block or ():
            try:
                if read(item):
                    self._note(item)
            except (NotCarried, ConfigError, ValueError, IndexError) as exc:
                self._note(item, str(exc) or "it is not complete")

    def _setting(self, item: Directive) -> bool:
        name, args, draft = item.name, item.args, self._draft
        if name in _TIMEOUTS:
            for path in _TIMEOUTS[name]:
                draft.set(path, str(Duration(seconds(args[0]))))
            return True
        match name:
            case "keepalive_timeout":
                draft.set("timeouts.keepalive", str(Duration(seconds(args[0]))))
            case "client_max_body_size":
                draft.set("limits.body", str(Size(_size(args[0]))))
            case "worker_connections":
                draft.set("limits.connections", int(args[0]))
            case "keepalive_requests":
                draft.set("limits.requests_per_connection", 0 if int(args[0]) >= 1_000_000 else int(args[0]))
            case "underscores_in_headers":
                draft.set("forwarding.drop_underscore", args[0] != "on")
            case "set_real_ip_from" if args[0] != "unix:":
                draft.set("trusted_proxies", [*(draft.get("trusted_proxies") or []), args[0]])
            case "geo" if args == ("$external",):
                internal = [entry.name for entry in item.block or () if entry.args == ("0",)]
                draft.set("internal_networks", internal)
                draft.set("forwarding.external_client", True)
            case _:
                return self._log(item) or self._retry(item)
        return True

    def _log(self, item: Directive) -> bool:
        if item.name != "access_log":
            return False
        if item.args[0] == "off":
            self._draft.set("log.access", "off")
            return True
        self._draft.set("log.access", "json" if item.args[1:2] == ("arv_balance",) else "combined")
        self._draft.set("log.path", "-" if item.args[0] == "/dev/stdout" else item.args[0])
        return True

    def _retry(self, item: Directive) -> bool:
        if item.name == "proxy_next_upstream_tries":
            if self._draft.get("retry.on") != []:
                self._draft.set("retry.retries", int(item.args[0]) - 1)
            return True
        if item.name != "proxy_next_upstream":
            return False
        self._draft.set("retry.on", ["connect", "reset"] if "error" in item.args else [])
        if unknown := [word for word in item.args if word not in ("error", "off")]:
            raise NotCarried(f"no retry on {', '.join(unknown)}")
        return True

    def _listens(self, server: Directive) -> None:
        def listen(item: Directive) -> bool:
            if item.name != "listen":
                return False
            found = _listen(item.args)
            same = next((one for one in self._draft.listen if one["bind"] == found["bind"]), None)
            if "tls" in found:
                self._tls(server, found, same)
            if same is None:
                self._draft.listen.append(found)
            if "http2" in item.args:
                raise NotCarried("of this line: HTTP/2; it speaks HTTP/1.1")
            return True

        self._each(server, listen)
        for item in server.each("server_name", "ssl_certificate", "ssl_certificate_key", "ssl_protocols"):
            self._note(item)
        for item in server.each("ssl_client_certificate", "ssl_verify_client"):
            self._note(item)

    def _tls(self, server: Directive, found: Settings, same: Settings | None) -> None:
        def value(name: str) -> str | None:
            item = server.first(name) or self._http.first(name)
            return item.args[0] if item is not None else None

        cert, key = value("ssl_certificate"), value("ssl_certificate_key")
        pair = {"cert": cert} | ({"key": key} if key != cert else {})
        if same is not None:
            names = server.first("server_name")
            same["tls"].setdefault("certificates", []).append({**pair, "names": list(names.args if names else ())})
            return
        found["tls"] = pair
        if client_ca := value("ssl_client_certificate"):
            found["tls"] |= {"client_ca": client_ca}
            found["tls"] |= {"client_required": True} if value("ssl_verify_client") == "on" else {}
        if value("ssl_protocols") == "TLSv1.3":
            found["tls"]["minimum_version"] = "TLSv1.3"

    def _pool(self, name: str, target: str) -> Pool:
        """The servers of an upstream, or the one address that stands in its place."""
        tls = self._node_tls() if target.startswith("https:") else None
        upstream = self._upstreams.get(name)
        label = re.sub(r"[^A-Za-z0-9._-]", "-", re.sub(r"^route_\d+_", "", name)).strip("-.")
        if upstream is None:
            return Pool(label, (Server(_named(name, ""), _node(name, tls), (0, name)),))
        servers: list[Server] = []

        def member(item: Directive) -> bool:
            if item.name == "server":
                servers.append(_server(item, tls))
                return True
            if item.name == "keepalive_timeout":
                self._draft.set("timeouts.upstream_idle", str(Duration(seconds(item.args[0]))))
                return True
            return _policy(self._draft, item)

        self._each(upstream, member)
        self._note(upstream)
        return Pool(label, tuple(servers))

    def _node_tls(self) -> Settings:
        tls: Settings = {"verify": False}
        for item in self._everywhere("proxy_ssl_name", "proxy_ssl_verify", "proxy_ssl_trusted_certificate"):
            value = item.args[0]
            if item.name == "proxy_ssl_verify":
                tls["verify"] = value == "on"
            elif item.name == "proxy_ssl_name" and not value.startswith("$"):
                tls["server_name"] = value
            elif value != "/etc/ssl/certs/ca-certificates.crt":
                tls["ca"] = value
            self._note(item)
        return tls

    def _everywhere(self, *names: str) -> list[Directive]:
        server = self._servers[0]
        blocks = [self._http, server, *server.each("location")]
        return [item for block in blocks for item in block.each(*names)]

    def _location(self, server: Directive, path: str) -> Directive | None:
        return next((item for item in server.each("location") if item.args == (path,) and _target(item)), None)

    def _locations(self, server: Directive) -> None:
        """Locations other than `/`, in the order in which nginx prefers them."""

        def location(item: Directive) -> bool:
            if item.args == ("/",) or not _target(item):
                return item.args == ("/",)
            scheme, _, rest = _target(item).partition("://")
            name, slash, _ = rest.partition("/")
            if slash or rest.startswith("$"):
                raise NotCarried("a proxy_pass that changes the path, or goes to a variable")
            pool = self._pool(name, scheme + ":")
            timeout = item.first("proxy_read_timeout")
            own = {"timeout": str(Duration(seconds(timeout.args[0])))} if timeout is not None else {}
            match = {"path": _path(item.args)}
            self._draft.route(pool.name, [match], Pool(pool.name, pool.servers, pool.failback, own))
            for inner in item.block or ():
                if inner.name in ("proxy_pass", "proxy_read_timeout"):
                    self._note(inner)
            return True

        ordered = sorted(server.each("location"), key=_preference)
        self._each(Directive("", (), 0, "", tuple(ordered)), location)

    def _rest(self, block: Directive) -> None:
        """Whatever was not looked at is lost, or done anyway."""
        for item in block.block or ():
            if item.name == "server" and item not in self._servers and block is self._http:
                self._note(item, "another service; read it with --frontend and its server_name")
            elif item.name in ("http", "events", "server", "upstream", "location", "if") and item.block is not None:
                if item.name == "location" and id(item) not in self._seen and not _target(item):
                    self._note(item, "only locations that lead to servers are carried over")
                elif item.name == "if":
                    self._note(item, "it has no conditions inside a location")
                elif item.name != "upstream" or id(item) in self._seen:
                    self._rest(item)
                else:
                    self._note(item, "nothing leads to it")
            elif item.name == "proxy_set_header" and _is_ours(item.args[0]):
                self._note(item)
            elif item.name not in _IMPLIED and item.name != "proxy_pass":
                self._note(item, "it has nothing that corresponds")


def _is_ours(field: str) -> bool:
    return field.lower() in _OUR_FIELDS or field.lower().startswith("x-forwarded-")


def _target(location: Directive) -> str:
    found = location.first("proxy_pass")
    return found.args[0] if found is not None and found.args else ""


def _chosen(http: Directive, name: str | None) -> list[Directive]:
    """The servers of one service: the one that is asked for (or the first that leads anywhere), and its like."""
    leads = {id(item): _leads(item) for item in http.each("server") if _leads(item)}
    servers = [item for item in http.each("server") if id(item) in leads]
    if name is not None:
        servers = [item for item in servers if name in _names(item)]
    if not servers:
        raise ConfigError(f"it has no server{f' named {name}' if name else ''} that leads to other servers")
    first = leads[id(servers[0])]
    return [item for item in http.each("server") if leads.get(id(item)) == first and (name is None or item in servers)]


def _leads(server: Directive) -> tuple[str, ...]:
    return tuple(target for item in server.each("location") if (target := _target(item)))


def _names(server: Directive) -> tuple[str, ...]:
    return tuple(name for item in server.each("server_name") for name in item.args)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kKmMgG]?)", text)
    if found is None:
        raise NotCarried(f"{text} is no size")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]


def _listen(args: tuple[str, ...]) -> Settings:
    address = args[0]
    if address.isdigit():
        address = f"0.0.0.0:{address}"
    elif address.startswith("*:"):
        address = f"0.0.0.0:{address[2:]}"
    elif not address.startswith("unix:") and ":" not in address.rpartition("]")[2]:
        address += ":80"
    found: Settings = {"bind": address}
    for word in args[1:]:
        if word == "ssl":
            found["tls"] = {}
        elif word == "proxy_protocol":
            found["proxy_protocol"] = ["0.0.0.0/0", "::/0"]
        elif word.startswith("backlog="):
            found["backlog"] = int(word[8:])
    return found


def _server(item: Directive, tls: Settings | None) -> Server:
    settings = _node(item.args[0], tls)
    backup = False
    for word in item.args[1:]:
        key, _, value = word.partition("=")
        match key:
            case "weight":
                settings.setdefault("weight", int(value))
            case "max_conns":
                settings["capacity"] = int(value)
            case "down":
                settings["weight"] = 0
            case "backup":
                backup = True
            case "max_fails" | "fail_timeout" | "resolve":
                continue
            case _:
                raise NotCarried(f"the option {key} of a server")
    return Server(_named(item.args[0], item.comment), settings, (item.line, item.text), backup=backup)


def _node(address: str, tls: Settings | None) -> Settings:
    if address.startswith("unix:"):
        return {"url": address}
    scheme = "http" if tls is None else "https"
    host, _, port = address.rpartition(":") if re.search(r":\d+\Z", address) else (address, "", "")
    settings: Settings = {"url": f"{scheme}://{host}:{port or (80 if tls is None else 443)}"}
    own = {key: value for key, value in (tls or {}).items() if key != "server_name" or value != host.strip("[]")}
    own = {key: value for key, value in own.items() if key != "verify" or value is False}
    return settings | ({"tls": own} if own else {})


def _named(address: str, comment: str) -> str:
    """A name for a server: a comment that is one, or its address."""
    if re.fullmatch(NAME, comment):
        return comment
    return re.sub(r"[^A-Za-z0-9._-]+", "-", address.removeprefix("unix:")).strip("-.") or "node"


def _policy(draft: Draft, item: Directive) -> bool:
    found = re.fullmatch(r"\$(http|cookie)_(\w+)", item.args[0]) if item.args else None
    if item.name in _POLICIES:
        draft.set("balance.policy", _POLICIES[item.name])
    elif item.name == "ip_hash" or (item.name == "hash" and item.args[0] in ("$remote_addr", "$binary_remote_addr")):
        _hash(draft, {"by": "client"})
    elif item.name == "hash" and found is not None:
        name = found[2].replace("_", "-") if found[1] == "http" else found[2]
        _hash(draft, {"by": _HASHES[found[1]], "name": name})
    else:
        return False
    return True


def _hash(draft: Draft, by: Settings) -> None:
    draft.set("balance.policy", "hash")
    draft.set("balance.hash", by)


def _path(args: tuple[str, ...]) -> str:
    how, value = ("", args[0]) if len(args) == 1 else (args[0], args[1])
    if how in ("~", "~*"):
        template = spelling.template_of(value)
        if template is None:
            raise NotCarried("paths by regular expression: write a template such as /a/{name}/* instead")
        return template
    template = value if how == "=" else value.rstrip("/") + "/*"
    if fault := template_fault(template):
        raise NotCarried(f"{template} is no path template: {fault}")
    return template


def _preference(item: Directive) -> tuple[int, int]:
    how = item.args[0] if len(item.args) > 1 else ""
    rank = {"=": 0, "^~": 1, "~": 2, "~*": 2}.get(how, 3)
    return rank, 0 if rank == 2 else -len(item.args[-1] if item.args else "")
