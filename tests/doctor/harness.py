"""A healthy site of two Arvados-like nodes to spoil, and what `arv-balance doctor` says of it."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typer import Typer
from typer.testing import CliRunner

from balancer.cli.tree import tree
from tests.support.site import NodeProcess, Site

NODE = Path(__file__).with_name("arvados_like_node.py")
TOKEN = "managementtokenmanagementtoken1234"


class LikeArvados(NodeProcess):
    """`options`: of the program; `wrapper`: words before it; `environment`: beside ours."""

    wrapper: tuple[str, ...] = ()

    def launch(self) -> None:
        command = [*self.wrapper, sys.executable, "-P", str(NODE), "--port", str(self.port), *self.options]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    @contextmanager
    def spoilt(self, **changes: Any) -> Iterator[None]:
        """Let the node answer otherwise meanwhile."""
        self._put(changes)
        try:
            yield
        finally:
            self._put({})

    def _put(self, changes: Mapping[str, Any]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("PUT", "/_state", json.dumps(changes))
            assert connection.getresponse().read() == b"{}"
        finally:
            connection.close()


class SpoilSite(Site):
    """A site without any hazard; its state directory is its own, the token in a file."""

    def __init__(self, *, nodes: int = 2, **config: Any) -> None:
        super().__init__(nodes=nodes, workers=1)
        self.nodes = {name: LikeArvados(name, node.port, self.folder) for name, node in self.nodes.items()}
        self.token = self.folder / "management-token"
        self.token.touch(0o600)
        self.token.write_text(TOKEN)
        (self.folder / "state").mkdir(0o700)
        self.extra = {
            "preset": "arvados",
            "nodes": {
                name: {"url": f"http://127.0.0.1:{node.port}", "capacity": 64} for name, node in self.nodes.items()
            },
            "health": {"token": {"file": str(self.token)}, "fall": 100, "rise": 1},  # short illnesses change nothing
            "internal_networks": ["127.0.0.0/8"],
            "limits": {"connections": 200, "tunnels": 100},
            "timeouts": {"upstream_idle": "250ms"},
            **config,
        }

    def node(self, name: str) -> LikeArvados:
        """A node, with what only these can."""
        found = self.nodes[name]
        assert isinstance(found, LikeArvados)
        return found

    def variant(self, **changes: Any) -> Path:
        """Write another configuration beside the one that runs: sections are merged, `None` removes a key."""
        document = merged(self.config(), changes)
        path = self.folder / "variant.yml"
        path.write_text(json.dumps(document, indent=1))
        return path


def merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


@dataclass(frozen=True)
class Seen:
    """What the command said."""

    code: int
    findings: list[dict[str, str]]
    unseen: dict[str, str]

    @property
    def rules(self) -> set[str]:
        return {finding["rule"] for finding in self.findings}

    def only(self, rule: str) -> dict[str, str]:
        """The one finding; AssertionError when there is another or none."""
        assert [finding["rule"] for finding in self.findings] == [rule], self.findings
        return self.findings[0]


@cache
def commands() -> Typer:
    """The command tree, made once."""
    return tree()


def doctor(config: Path, *words: str) -> Seen:
    """Run the command in this process."""
    result = CliRunner().invoke(commands(), ["doctor", "-c", str(config), "--json", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1), result.output
    found = json.loads(result.stdout)
    assert found["schema"] == "arv-balance/doctor/v1"
    unseen = {item["subject"]: item["why"] for item in found["not_looked_at"]}
    return Seen(result.exit_code, found["findings"], unseen)
