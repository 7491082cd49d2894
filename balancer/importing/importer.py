"""A file of another balancer, the configuration that says the same, and what it cannot say."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from balancer.config import flat
from balancer.config.file import Loaded, check
from balancer.config.loader import parse
from balancer.errors import ConfigError
from balancer.importing import haproxy, nginx
from balancer.importing.draft import Draft, Lost
from balancer.render.description import describe
from balancer.render.engine import ENGINES, render
from balancer.render.quoting import comment

KINDS = ("haproxy", "nginx")


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a file. `text`: our configuration, to be read by people first; `loaded`: the same, checked."""

    text: str
    loaded: Loaded
    lost: tuple[Lost, ...]

    def summary(self) -> str:
        """Return one line of counts."""
        config = self.loaded.config
        nodes, routes = len(config.node_map), len(config.routes)
        return (
            f"{len(config.listen)} listeners, {nodes} nodes, {routes} routes; {len(self.lost)} lines not carried over"
        )

    def report(self) -> dict[str, Any]:
        """Return the JSON form of what was lost, and of what is still wrong."""
        return {
            "schema": "arv-balance/import/v1",
            "valid": self.loaded.is_valid,
            "errors": [fault.message for fault in self.loaded.errors],
            "lost": [{"line": item.line, "text": item.text, "why": item.why} for item in self.lost],
        }


def kind_of(path: Path, text: str) -> str:
    """Return `haproxy` or `nginx`, by the file's name or else by what it holds."""
    if path.suffix == ".cfg" or "haproxy" in path.name:
        return "haproxy"
    return "nginx" if path.suffix == ".conf" or "nginx" in path.name or "{" in text else "haproxy"


def read(path: Path, kind: str | None = None, service: str | None = None) -> Imported:
    """Return what a file says. `service`: the front end (HAProxy) or server name (nginx) of the service to read.

    Raises ConfigError for a file that is not of that kind, and OSError.
    """
    text = path.read_text("utf-8", "surrogateescape")
    kind = kind or kind_of(path, text)
    try:
        draft = haproxy.read(text, service) if kind == "haproxy" else nginx.read(path, service)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    return _imported(draft, kind, path.name)


def _imported(draft: Draft, kind: str, source: str) -> Imported:
    written = flat.as_yaml(draft.document())
    loaded = check(parse(written, "arv-balance.yml", {}), env={}, look_at_files=False, now=datetime.now(UTC))
    lost = tuple(draft.lost)
    if loaded.is_valid:
        lost = _without_our_own(lost, loaded, kind)
    return Imported(_head(source, lost) + written, loaded, lost)


def _without_our_own(lost: tuple[Lost, ...], loaded: Loaded, kind: str) -> tuple[Lost, ...]:
    """Without the lines that we ourselves would write for this configuration: those it does say."""
    options = {"target-version": "2.6"} if kind == "haproxy" else {}
    try:
        text = render(ENGINES[kind], describe(loaded.config, loaded.path), options)
    except ConfigError:
        return lost
    ours = {line.strip() for line in text.splitlines()}
    return tuple(item for item in lost if item.text not in ours)


def _head(source: str, lost: tuple[Lost, ...]) -> str:
    lines = [f"# Imported from {source}. Read it, then: arv-balance check"]
    if lost:
        lines.append("# What could not be carried over:")
        lines += [f"#   line {item.line}: {item.text}: {item.why}" for item in lost]
    return "\n".join(comment(line) for line in lines) + "\n"
