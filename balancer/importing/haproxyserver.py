"""A `server` line of haproxy.cfg as a node, and what `default-server` says for all of them."""

from dataclasses import dataclass, field, replace

from balancer.config.scalars import Duration
from balancer.importing.draft import Draft, NotCarried, Server, Settings
from balancer.render.haproxy import SYSTEM_CA

_WITH_VALUE_WORDS = """
weight maxconn inter fastinter downinter rise fall slowstart maxqueue pool-purge-delay sni check-sni verify
ca-file verifyhost init-addr resolvers cookie port addr observe error-limit on-error on-marked-down
pool-max-conn id pool-low-conn log-proto alpn proto ssl-min-ver resolve-prefer crt
"""
_WITH_VALUE = frozenset(_WITH_VALUE_WORDS.split())
_DONE_ANYWAY_WORDS = """
check init-addr resolvers id check-ssl proto alpn
"""
_DONE_ANYWAY = frozenset(_DONE_ANYWAY_WORDS.split())
_TIMES = {"inter": "health.interval", "fastinter": "health.fast_interval", "slowstart": "balance.slow_start"}
_TIMES["pool-purge-delay"] = "timeouts.upstream_idle"
_COUNTS = {"rise": "health.rise", "fall": "health.fall", "maxqueue": "queue.max"}
_KNOWN_WORDS = """
weight maxconn ssl verify ca-file verifyhost sni check-sni backup disabled
"""
_KNOWN = frozenset(_KNOWN_WORDS.split())


@dataclass(frozen=True, slots=True)
class Defaults:
    """Words that hold for the servers below them."""

    words: dict[str, str] = field(default_factory=dict)

    def with_words(self, words: tuple[str, ...]) -> "Defaults":
        """Return them with these on top."""
        return replace(self, words={**self.words, **_options(words)})

    def apply(self, draft: Draft) -> None:
        """Set what is a setting of the whole service with us."""
        from balancer.importing.haproxy import seconds

        for word, value in self.words.items():
            if word in _TIMES:
                draft.set(_TIMES[word], str(Duration(seconds(value))))
            elif word in _COUNTS:
                draft.set(_COUNTS[word], int(value))


def server(words: tuple[str, ...], defaults: Defaults, where: tuple[int, str]) -> tuple[Server, list[str]]:
    """Return the node of a `server` line, and its words that were not carried over. Raises NotCarried."""
    name, address = words[1], words[2]
    own = _options(words[3:])
    options = {**defaults.words, **own}
    settings: Settings = {"url": _url(address, is_tls="ssl" in options)}
    if "weight" in options:
        settings["weight"] = int(options["weight"])
    if "disabled" in options:
        settings["weight"] = 0
    if int(options.get("maxconn", 0)):
        settings["capacity"] = int(options["maxconn"])
    if tls := _tls(options, settings["url"]):
        settings["tls"] = tls
    known = _KNOWN | _DONE_ANYWAY | set(_TIMES) | set(_COUNTS)
    # What one server has of its own where we have one setting for all.
    several = [word for word in own if word in {*_TIMES, *_COUNTS} and defaults.words.get(word) != own[word]]
    return Server(name, settings, where, backup="backup" in options), [
        *(word for word in options if word not in known),
        *several,
    ]


def _options(words: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        options[word] = rest.pop(0) if word in _WITH_VALUE and rest else ""
    return options


def _url(address: str, *, is_tls: bool) -> str:
    if address.startswith(("unix@", "/")):
        return "unix:" + address.removeprefix("unix@")
    address = address.removeprefix("ipv4@").removeprefix("ipv6@")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise NotCarried("a server needs an address and a port")
    host = host if ":" not in host or host.startswith("[") else f"[{host}]"
    return f"{'https' if is_tls else 'http'}://{host}:{port}"


def _tls(options: dict[str, str], url: str) -> Settings:
    if "ssl" not in options:
        return {}
    tls: Settings = {}
    name = options.get("verifyhost") or options.get("check-sni") or options.get("sni", "")
    name = name.removeprefix("str(").removesuffix(")")
    if name and f"//{name}:" not in url and "(" not in name:
        tls["server_name"] = name
    if options.get("verify") == "none":
        tls["verify"] = False
    if options.get("ca-file", SYSTEM_CA) not in (SYSTEM_CA, "@system-ca"):
        tls["ca"] = options["ca-file"]
    return tls
