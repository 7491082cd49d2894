"""A plain proxy as one writes it with aiohttp in an hour: `bench/aiohttp_proxy.py`."""

import sys
from importlib.metadata import version

from bench.machine import ROOT
from bench.targets.setup import Launch, Setup, write_json


class Aiohttp:
    """See the module."""

    name = "aiohttp"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Nothing: aiohttp is a dependency of ours."""
        return ""

    def version(self) -> str:
        """Return the library's version."""
        return f"aiohttp {version('aiohttp')} (bench/aiohttp_proxy.py)"

    def prepare(self, setup: Setup) -> Launch:
        """Write its settings."""
        settings = {
            "port": setup.port,
            "tls_port": setup.tls_port,
            "pem": str(setup.pem),
            "nodes": [f"http://127.0.0.1:{port}" for port in setup.nodes],
        }
        path = write_json(setup.folder / "aiohttp.json", settings)
        argv = [sys.executable, "-P", "-m", "bench.aiohttp_proxy", path]
        return Launch(argv, {"PYTHONPATH": str(ROOT)})
