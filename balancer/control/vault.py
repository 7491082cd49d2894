"""Secrets and TLS settings that checks and the admin API use; read again at each reload and twice a minute."""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from balancer.config.inventory import Inventory
from balancer.config.schema import Config
from balancer.config.secrets import reveal
from balancer.control import plans
from balancer.control.admin.access import Role, Token
from balancer.errors import ConfigError
from balancer.model import Node

REFRESH_S = 30.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What was read. `faults` are sentences about what could not be."""

    secrets: plans.Secrets
    tokens: tuple[Token, ...] = ()
    database: str = field(default="", repr=False)
    peers: Mapping[str, str] = field(default_factory=dict, repr=False)  # tokens for other balancers, by their names
    faults: tuple[str, ...] = ()


NOTHING = Opened(plans.Secrets("", {}))


class Vault:
    """Keeps the newest reading; an unreadable secret keeps its last value and is reported once."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._reported: frozenset[str] = frozenset()
        self.opened = NOTHING

    async def open(self, config: Config, nodes: Sequence[Node]) -> bool:
        """Read everything; returns whether something that checks use has changed."""
        before = self.opened
        self.opened = await asyncio.to_thread(_open, config, nodes, before)
        for fault in self.opened.faults:
            if fault not in self._reported:
                self._report(fault)
        self._reported = frozenset(self.opened.faults)
        return before.secrets != self.opened.secrets


def _open(config: Config, nodes: Sequence[Node], before: Opened) -> Opened:
    faults: list[str] = []
    token = before.secrets.token if config.health.token else ""
    if config.health.token is not None:
        try:
            token = reveal(config.health.token, cluster=_cluster(config))
        except ConfigError as exc:
            faults.append(f"health.token: {exc}")
    names = {node.name for node in nodes}
    contexts = {name: found for name, found in before.secrets.contexts.items() if name in names}
    try:
        fresh = plans.contexts(config, nodes)
    except (OSError, ssl.SSLError) as exc:
        faults.append(f"tls towards nodes: {exc}")
    else:
        contexts = {name: _same_or(contexts.get(name), context) for name, context in fresh.items()}
    tokens, bad = _tokens(config, before)
    database, unusable = _database(config, before)
    peers, unknown = _peers(config, before)
    return Opened(plans.Secrets(token, contexts), tokens, database, peers, (*faults, *bad, *unusable, *unknown))


def _database(config: Config, before: Opened) -> tuple[str, list[str]]:
    if config.state.database is None:
        return "", []
    try:
        return reveal(config.state.database), []
    except ConfigError as exc:
        return before.database, [f"state.database: {exc}"]


def _peers(config: Config, before: Opened) -> tuple[dict[str, str], list[str]]:
    tokens, faults = {}, []
    for name, peer in config.peers.items():
        if peer.token is None:
            continue
        try:
            tokens[name] = reveal(peer.token)
        except ConfigError as exc:
            faults.append(f"peers.{name}.token: {exc}")
            tokens[name] = before.peers.get(name, "")
    return tokens, faults


def _tokens(config: Config, before: Opened) -> tuple[tuple[Token, ...], list[str]]:
    known = {token.name: token for token in before.tokens}
    tokens, faults = [], []
    for item in config.admin.tokens:
        try:
            tokens.append(Token(item.name, Role[item.role.upper()], reveal(item.secret).encode()))
        except ConfigError as exc:
            faults.append(f"admin token {item.name}: {exc}")
            if item.name in known:
                tokens.append(known[item.name])
    return tuple(tokens), faults


def _same_or(old: ssl.SSLContext | None, new: ssl.SSLContext) -> ssl.SSLContext:
    """Keep the old object when it says the same, so that a check's plan does not look changed."""
    if old is None or old.verify_mode != new.verify_mode:
        return new
    return old if old.get_ca_certs(binary_form=True) == new.get_ca_certs(binary_form=True) else new


def _cluster(config: Config) -> str | None:
    return config.nodes.source.cluster if isinstance(config.nodes, Inventory) else None
