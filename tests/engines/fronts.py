"""Starting the balancers: `serve` itself, and each engine with the configuration rendered for it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from balancer.control.intents import Intent, Intents, Kind, to_document
from balancer.control.statefile import encode
from balancer.render import programs
from balancer.render.engine import ENGINES, Engine
from tests.engines import sites
from tests.engines.behaviour import Nodes
from tests.support.client import Client
from tests.support.ports import free_port
from tests.support.site import ROOT
from tests.support.waiting import until

SERVE = "serve"
NEWER = "haproxy 2.8"  # the wheel's, beside Debian's 2.6
RUNS = (*ENGINES, NEWER)
START_S = 30.0
PATIENCE_S = 10.0  # what takes longer is "no answer in time"


@dataclass
class Front:
    """A running balancer of one site with nodes of its own."""

    name: str
    site: str
    nodes: Nodes = field(default_factory=Nodes)
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    statistics_port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="arv-engine-")))
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Front":
        """Render, start, and wait until it answers."""
        config = self.folder / "arv-balance.yml"
        config.write_text(sites.text(self.site, self._place()))
        (self.folder / "state").mkdir()
        self.folder.chmod(0o711)  # nginx' workers are of another user
        if self.site == "drained":
            drain = Intent(Kind.DRAIN, "ops", datetime(2026, 11, 1, tzinfo=UTC), node="c")
            (self.folder / "state/intents.json").write_bytes(encode(to_document(Intents((drain,)))))
        with (self.folder / "out").open("wb") as out:
            self.process = subprocess.Popen(
                self._command(config), stdout=out, stderr=out, cwd=self.folder, env=self._environment()
            )
        until(self._answers, START_S, f"{self.name} on {self.site}")
        if self.site == "dying":
            self.nodes.stop("c")
        return self

    def connect(self, source: str | None = None, timeout_s: float = PATIENCE_S) -> Client:
        """Return a connection of a client at `source`."""
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout_s, (source or "127.0.0.1", 0)))

    def connect_tls(self, server_name: str) -> "tuple[Client, ssl.SSLSocket]":
        """Return a TLS connection of a client that asks for a name; it takes any certificate."""
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self.tls_port), PATIENCE_S)
        secured = trust.wrap_socket(plain, server_hostname=server_name)
        return Client(secured), secured

    def connect_unix(self) -> Client:
        """Return a connection over the Unix socket."""
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(PATIENCE_S)
        try:
            end.connect(str(self.folder / "http.sock"))
        except OSError:
            end.close()
            raise
        return Client(end)

    def _place(self) -> sites.Place:
        return sites.Place(self.port, self.tls_port, self.statistics_port, self.nodes.ports, str(self.folder))

    def said(self) -> str:
        """Its log and whatever else it wrote."""
        return (self.folder / "out").read_text("utf-8", "replace")

    def rendered(self) -> str:
        """All that was written for it."""
        files = [path for path in self.folder.iterdir() if path.is_file() and path.suffix not in (".pem", "")]
        return "".join(path.read_text("utf-8", "replace") for path in files)

    def close(self) -> None:
        """End it and remove what it wrote."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0 if self.name != SERVE else 8.0)
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
        self.nodes.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self, config: Path) -> list[str]:
        if self.name == SERVE:
            return [sys.executable, "-P", "-m", "balancer", "serve", "-c", str(config)]
        engine = engine_of(self.name)
        target = self.folder / engine.file_name
        options = [f"--option={key}={value}" for key, value in self._options().items()]
        rendered = subprocess.run(
            [sys.executable, "-P", "-m", "balancer", "render", engine.name, "-c", str(config), "-o", str(target),
             "--with-intents", *self._check(), *options],
            # Caddy's checker sends health checks, too.
            cwd=ROOT, capture_output=True, text=True, check=False, env=self._environment(),
        )  # fmt: skip
        assert rendered.returncode == 0, rendered.stdout + rendered.stderr
        found = program(self.name)
        assert found is not None
        if self.name == NEWER:
            verdict = programs.check(engine, found, target)
            assert verdict.passed, verdict
            assert not verdict.warnings, verdict
        return programs.command(engine.run, found, target)

    def _check(self) -> list[str]:
        """The command's own --check runs the program that it finds first, which is the older one."""
        return ["--target-version", "2.8"] if self.name == NEWER else ["--check"]

    def _options(self) -> dict[str, str]:
        options = {"statistics-port": str(self.statistics_port), "folder": str(self.folder)}
        if self.name in ("haproxy", NEWER):
            options["socket"] = str(self.folder / "admin.sock")
        return options

    def _environment(self) -> dict[str, str]:
        home = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        home["ARV_TEST_HEALTH_TOKEN"] = sites.HEALTH_TOKEN
        return {**os.environ, **home, "PYTHONPATH": str(ROOT), "GOMAXPROCS": "1"}

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(OSError, AssertionError), self.connect(timeout_s=2.0) as client:
            return client.get("/warm-up").status == 200
        return False


def engine_of(name: str) -> Engine:
    """The engine of a run."""
    return ENGINES[name.partition(" ")[0]]


def program(name: str) -> str | None:
    """The program of a run."""
    engine = engine_of(name)
    return programs.bundled(engine) if name == NEWER else programs.on_path(engine) or programs.bundled(engine)


def missing(name: str) -> str:
    """Say what to install, or "" when it can run."""
    return "" if name == SERVE or program(name) else f"{name}: {programs.advice(engine_of(name))}"


def log_lines(said: str) -> list[dict[str, object]]:
    """The JSON lines of an output."""
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]
