"""What an importer gathers: settings in the form of our file, nodes, routes, and the lines it could not carry over."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = dict[str, Any]
# `stats auth user:password`, `Authorization "Basic ..."`: the list of lost lines goes to logs and tickets.
_SECRET = re.compile(r"(?i)\b(auth|(?:insecure-)?password|basic|bearer)[ \t]+(?!\$\{)[^\s\"']+")


class NotCarried(Exception):  # noqa: N818  it is no error, it is an answer
    """A line that our configuration cannot say; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A line that was not carried over. `line`: its number in the file, from 1."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Server:
    """A server as the other file names it. `settings`: `url` and what else a node can have; `where`: line and text."""

    name: str
    settings: Settings
    where: tuple[int, str]
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """A group of servers (a backend, an upstream). `failback`: a better one that comes back takes over again."""

    name: str
    servers: tuple[Server, ...]
    failback: str = "automatic"
    route: Mapping[str, Any] = field(default_factory=dict)  # what a route to it sets: timeout, retry


@dataclass
class Draft:
    """A configuration in the making."""

    listen: list[Settings] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    nodes: dict[str, Settings] = field(default_factory=dict)
    routes: list[Settings] = field(default_factory=list)
    designated: dict[str, Settings] = field(default_factory=dict)
    _settings: Settings = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)  # URL -> node

    def set(self, path: str, value: object) -> None:
        """Set a value by its path: `timeouts.connect`."""
        *sections, key = path.split(".")
        place = self._settings
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value

    def get(self, path: str) -> Any:
        """Return a value that was set, or None."""
        place: Any = self._settings
        for key in path.split("."):
            place = place.get(key) if isinstance(place, dict) else None
        return place

    def lose(self, line: int, text: str, why: str) -> None:
        """Note a line that is not carried over."""
        found = Lost(line, _SECRET.sub(r"\1 ***", text), why)
        if found not in self.lost:
            self.lost.append(found)
            self.lost.sort(key=lambda lost: lost.line)

    def default(self, pool: Pool) -> None:
        """Take the servers that get what no route matches; to be called before any `route`."""
        target = self._target(pool)
        self._catch_all = {"name": pool.name, "match": {}, "to": target, **pool.route}

    def route(self, name: str, matches: Iterable[Settings], pool: Pool) -> None:
        """Add a route, one for each alternative of its conditions."""
        target, taken = self._target(pool), {route["name"] for route in self.routes}
        for match in matches:
            number = 1
            while (unique := name if number == 1 else f"{name}-{number}") in taken:
                number += 1
            taken.add(unique)
            self.routes.append({"name": unique, "match": match, "to": target, **pool.route})

    def document(self) -> Settings:
        """Return the configuration as it stands in a file."""
        document: Settings = {"version": 1, "listen": self.listen, "nodes": self._weighed()}
        routes = [*self.routes, *self._last_route()]
        everything = list(self.nodes)
        for route in routes:
            if route.get("to") == {"nodes": everything}:
                del route["to"]
        document |= {"designated": self.designated} if self.designated else {}
        document |= {"routes": routes} if routes else {}
        return document | self._settings

    def _weighed(self) -> dict[str, Settings]:
        """A server without a weight has 1, which matters only beside others that have one."""
        if not any(node.get("weight") for node in self.nodes.values()):
            return self.nodes
        return {name: {"url": node["url"], "weight": 1, **node} for name, node in self.nodes.items()}

    _catch_all: Settings | None = None

    def _last_route(self) -> list[Settings]:
        """One for all the rest, when the rest does not go to all nodes."""
        if self._catch_all is None or self._catch_all["to"] == {"nodes": list(self.nodes)}:
            return []
        return [dict(self._catch_all)]

    def _target(self, pool: Pool) -> Settings:
        """Where a route to this pool leads. One server with backups is a designated node."""
        first = [server for server in pool.servers if not server.backup]
        backups = [server for server in pool.servers if server.backup]
        if len(first) != 1 or not backups:
            for server in backups if first else ():
                self.lose(*server.where, "a spare for several servers; ours are all in use, or one at a time")
            return {"nodes": [self._node(pool, server) for server in first or backups]}
        order = [self._node(pool, server) for server in (*first, *backups)]
        self.designated[pool.name] = {"order": order, "failback": pool.failback}
        return {"designated": pool.name}

    def _node(self, pool: Pool, server: Server) -> str:
        """Return the name of the node, a new one unless another pool has a server at that address."""
        url = server.settings["url"]
        if url in self._names:
            return self._names[url]
        name = server.name
        if name in self.nodes:
            name = f"{pool.name}-{server.name}"
        while name in self.nodes:
            name += "-2"
        self._names[url] = name
        self.nodes[name] = server.settings
        return name
