"""Builders for configuration tests."""

from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from balancer.config.file import Loaded, check
from balancer.config.loader import parse

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SMALL = """
listen: [{bind: "127.0.0.1:8080"}]
nodes:
  api1: {url: "http://127.0.0.1:9001"}
  api2: {url: "http://127.0.0.1:9002"}
"""


def loaded(text: str, env: dict[str, str] | None = None, *, look_at_files: bool = False) -> Loaded:
    """Return the checked form of a configuration text."""
    env = env or {}
    return check(parse(dedent(text).lstrip(), "f.yml", env), env=env, look_at_files=look_at_files, now=NOW)


def places(text: str, env: dict[str, str] | None = None) -> list[str]:
    """Return all errors of a text as `line:column path: message`."""
    return [
        f"{fault.span.line}:{fault.span.column} {fault.path}: {fault.message}"
        for fault in loaded(text, env).faults
        if fault.span and fault.severity == "error"
    ]


def written(folder: Path, name: str, text: str, mode: int = 0o600) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_text(dedent(text))
    path.chmod(mode)
    return path
