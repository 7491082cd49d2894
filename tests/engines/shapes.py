"""The shape of a rendered file as its engine reads it: what there is, without what the values say."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crossplane
import yaml

from balancer.importing.haproxylines import words
from balancer.render import programs
from balancer.render.engine import ENGINES
from balancer.render.output import SEPARATOR

Shape = Any


def shape(engine: str, text: str) -> Shape:
    """Return it. Equal shapes mean that a value stayed in its place."""
    return _READERS[engine](text)


def _haproxy(text: str) -> Shape:
    return [(line.split()[0], len(found)) for line in text.splitlines() if (found := words(line))]


def _nginx(text: str) -> Shape:
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        found = crossplane.parse(file.name, check_ctx=False, check_args=False)
    assert found["status"] == "ok", found["errors"]
    return _directives(found["config"][0]["parsed"])


def _directives(items: list[dict[str, Any]]) -> Shape:
    # Inside `map` and `geo` the name of a directive is a value.
    return [(len(item["args"]), _directives(item.get("block", []))) for item in items]


def _yaml(text: str) -> Shape:
    return [_values(yaml.load(part, yaml.CSafeLoader)) for part in text.split(SEPARATOR)]


def _caddy(text: str) -> Shape:
    program = programs.find(ENGINES["caddy"])
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Caddyfile"
        path.write_text(text)
        done = subprocess.run(
            [program, "adapt", "--config", str(path)], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr
    return _values(json.loads(done.stdout))


def _values(value: Any) -> Shape:
    if isinstance(value, dict):
        return [_values(item) for item in value.values()]
    return [_values(item) for item in value] if isinstance(value, list) else type(value).__name__


_READERS: dict[str, Callable[[str], Shape]] = {
    "haproxy": _haproxy,
    "nginx": _nginx,
    "envoy": _yaml,
    "traefik": _yaml,
    "caddy": _caddy,
}
