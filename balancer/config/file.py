"""Reads a configuration file: text, values, schema, inventory, rules; all faults of all steps at once."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from balancer.config import arvados, masking, presets
from balancer.config.errors import Fault, Severity, as_text, misspelt, ordered, placed, without_echoes
from balancer.config.inventory import Inventory, Node
from balancer.config.loader import Document, parse
from balancer.config.rules import Context, errors, warnings
from balancer.config.schema import Config
from balancer.config.section import ClusterSecret
from balancer.config.validation import Validated, validate
from balancer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was read. `lines` are safe to show; `config` has the inventory's nodes in `nodes`."""

    path: str
    lines: tuple[str, ...]
    document: Document
    faults: tuple[Fault, ...]
    config: Config
    cluster: arvados.Cluster | None = None

    @property
    def is_valid(self) -> bool:
        """True when `config` may be used."""
        return not self.errors

    @property
    def errors(self) -> tuple[Fault, ...]:
        """What refuses the file."""
        return tuple(fault for fault in self.faults if fault.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What does not refuse the file."""
        return tuple(fault for fault in self.faults if fault.severity is Severity.WARNING)

    def also(self, faults: Iterable[Fault]) -> "Loaded":
        """Return the same with more faults, such as what other packages say about their part of the file."""
        shown = (_shown(fault, self.document) for fault in faults)
        return replace(self, faults=ordered([*self.faults, *shown]))

    def require(self) -> Config:
        """Return the configuration. Raises ConfigError with all errors when it cannot be used."""
        if not self.is_valid:
            raise ConfigError(as_text(self.errors, self))
        return self.config


def load(
    path: str | Path,
    *,
    env: Mapping[str, str] | None = None,
    look_at_files: bool = True,
    now: datetime | None = None,
    stdin: BinaryIO | None = None,
) -> Loaded:
    """Read and check a configuration file; never raises for what it holds.

    `look_at_files` False skips the certificates and secrets that it names, for a check on another machine.
    `stdin`: what the path `-` stands for; without it that is a file of this name.
    Reads files: call it from a thread in asyncio code.
    """
    env = os.environ if env is None else env
    is_piped = stdin is not None and str(path) == "-"
    name = "<stdin>" if is_piped else str(path)
    try:
        data = stdin.read() if stdin is not None and is_piped else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as exc:
        return _unread(name, f"cannot read the file: {exc.strerror}")
    except UnicodeDecodeError as exc:
        return _unread(name, f"the file is not UTF-8 (byte {exc.start})")
    return check(parse(text, name, env), env=env, look_at_files=look_at_files, now=now or datetime.now(UTC))


def check(document: Document, *, env: Mapping[str, str], look_at_files: bool, now: datetime) -> Loaded:
    """Return the checked form of a parsed document."""
    if document.data is None or not isinstance(document.data, dict):
        faults = document.faults or (Fault((), "the file has to be a mapping", "begin with version: 1"),)
        return _loaded(document, faults, Config(), None)
    validated = validate(presets.apply(document.data))
    found = [*document.faults, *_empty(document), *validated.faults]
    meant = misspelt(found, document.spans)
    found = [fault for fault in found if fault.loc not in meant]
    cluster, unusable = _cluster(validated)
    found += unusable
    config = _with_nodes(validated.config, cluster)
    context = Context(
        config=config,
        document=document,
        validated=validated,
        broken=meant | {fault.loc for fault in found if fault.loc},
        cluster=cluster,
        env=env,
        look_at_files=look_at_files,
        now=now,
    )
    found += errors(context)
    found = without_echoes(found)
    found += warnings(replace(context, broken=meant | {fault.loc for fault in found if fault.loc}))
    return _loaded(document, found, config, cluster)


def _loaded(document: Document, faults: Iterable[Fault], config: Config, cluster: arvados.Cluster | None) -> Loaded:
    lines = masking.masked_lines(document, Config.model_fields)
    return Loaded(document.path, lines, document, ordered(_shown(fault, document) for fault in faults), config, cluster)


def _shown(fault: Fault, document: Document) -> Fault:
    """Return the fault with its place, and without the value when that may be a secret or came from a variable."""
    span = fault.span or document.place(fault.loc, at_key=fault.at_key)
    value = document.value(fault.loc)
    fault = replace(fault, message=masking.without_credentials(fault.message))
    if fault.at_key or not isinstance(value, str | int | float):
        return placed(fault, span)
    if fault.loc in document.variables or masking.is_secret(fault.loc):
        fault = replace(fault, message=masking.masked(fault.message, value), hint=masking.masked(fault.hint, value))
    return placed(fault, span)


def _empty(document: Document) -> list[Fault]:
    """Return a fault for each key without a value, where that has no meaning of its own."""
    return [
        Fault(loc, "is empty", "give it a value, or remove the line", at_key=True)
        for loc in document.empties
        if loc and loc[0] != "dns" and not (loc[0] == "routes" and "headers" in loc[:-1])
    ]


def _unread(path: str, message: str) -> Loaded:
    document = Document(path, (), None, {}, {}, faults=(Fault((), message),))
    return Loaded(path, (), document, document.faults, Config())


def _cluster(validated: Validated) -> tuple[arvados.Cluster | None, list[Fault]]:
    nodes = validated.config.nodes
    if not isinstance(nodes, Inventory):
        return None, []
    source, config = nodes.source, validated.config
    named = config.cluster if "cluster" in config.model_fields_set else None
    try:
        return arvados.read(source.arvados, service=source.service, cluster=source.cluster, among=named), []
    except arvados.ArvadosError as exc:
        return None, [Fault(("nodes", "from", exc.key), str(exc), exc.hint)]


def _with_nodes(config: Config, cluster: arvados.Cluster | None) -> Config:
    """Return the configuration with the inventory's nodes, and the Arvados file as the place of the health token."""
    if not isinstance(config.nodes, Inventory) or cluster is None:
        return config
    overrides = config.nodes.overrides
    nodes: dict[str, Node] = {}
    for found in cluster.nodes:
        node = Node(url=found.url, capacity=found.capacity)
        override = overrides.get(found.name)
        nodes[found.name] = node.model_copy(update=override.model_dump(exclude_none=True)) if override else node
        if override and override.tls:
            nodes[found.name] = nodes[found.name].model_copy(update={"tls": override.tls})
    update: dict[str, object] = {"nodes": nodes}
    if "cluster" not in config.model_fields_set:
        update["cluster"] = cluster.id
    if config.preset == "arvados" and "token" not in config.health.model_fields_set:
        update["health"] = config.health.model_copy(update={"token": ClusterSecret(arvados=cluster.path)})
    return config.model_copy(update=update)
