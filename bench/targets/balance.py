"""Ourselves: `arv-balance serve` with all its processes, and one worker alone."""

import sys
from importlib.util import find_spec

from balancer import __version__
from bench.machine import ROOT
from bench.targets.setup import Launch, Setup, write_json


class ArvBalance:
    """The whole balancer: parent, control and workers, with active health checks."""

    name = "arv-balance"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Say what is not there."""
        modules = ("balancer.supervisor", "balancer.control.__main__", "balancer.worker")
        return "" if all(map(find_spec, modules)) else "arv-balance: this checkout has no `serve`"

    def version(self) -> str:
        """Return its version."""
        return f"arv-balance {__version__}"

    def prepare(self, setup: Setup) -> Launch:
        """Write its configuration; JSON is YAML."""
        config = {
            "version": 1,
            "cluster": "bench",
            "listen": [
                {"bind": f"127.0.0.1:{setup.port}"},
                {"bind": f"127.0.0.1:{setup.tls_port}", "tls": {"cert": str(setup.certificate), "key": str(setup.key)}},
            ],
            "nodes": {f"n{port}": {"url": f"http://127.0.0.1:{port}"} for port in setup.nodes},
            "balance": {"slow_start": "0s"},  # no peer has one here, and a run begins just after the start
            "health": {"path": "/small", "expect": {"status": 200}},
            "timeouts": {"keepalive": "1h", "upstream_idle": "1h"},
            "workers": setup.workers,
            "admin": {"socket": str(setup.folder / "admin.sock")},
            "state": {"dir": str(setup.folder / "state")},
            "log": {"access": "json", "path": "/dev/null"},
        }
        path = write_json(setup.folder / "balance.yml", config)
        argv = [sys.executable, "-P", "-m", "balancer", "serve", "--config", path]
        return Launch(argv, {"PYTHONPATH": str(ROOT)})


class WorkerAlone:
    """One worker process without the others (`bench/alone.py`)."""

    name = "worker"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Say what is not there."""
        return "" if find_spec("balancer.worker") else "worker: this checkout has no byte path"

    def version(self) -> str:
        """Return its version."""
        return f"one worker of arv-balance {__version__}"

    def prepare(self, setup: Setup) -> Launch:
        """Write its settings."""
        settings = {"port": setup.port, "tls_port": setup.tls_port, "nodes": setup.nodes, "pem": str(setup.pem)}
        path = write_json(setup.folder / "worker.json", settings)
        return Launch([sys.executable, "-P", "-m", "bench.alone", path], {"PYTHONPATH": str(ROOT)})
