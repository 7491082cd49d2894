"""configurable-http-proxy, when npm has installed it: `npm install -g configurable-http-proxy`.

Not equal: one target only, no request id, and no access log below its debug level.
"""

from bench.machine import binary
from bench.targets.setup import BALANCES, MAKES_ID, Launch, Setup, first_line


class ConfigurableHttpProxy:
    """See the module."""

    name = "chp"
    cannot = frozenset({MAKES_ID, BALANCES})
    without_tls = True

    def missing(self) -> str:
        """Say what to install."""
        found = binary("configurable-http-proxy")
        return "" if found else "chp (optional): npm install -g configurable-http-proxy"

    def version(self) -> str:
        """Return its version."""
        return "configurable-http-proxy " + first_line([binary("configurable-http-proxy") or "chp", "--version"])

    def prepare(self, setup: Setup) -> Launch:
        """Return its command line; it takes no file. It serves one port, so there is no TLS row."""
        argv = [binary("configurable-http-proxy") or "configurable-http-proxy", "--ip", "127.0.0.1"]
        argv += ["--port", str(setup.port), "--default-target", f"http://127.0.0.1:{setup.nodes[0]}"]
        return Launch([*argv, "--api-ip", "127.0.0.1", "--api-port", str(setup.tls_port), "--log-level", "error"])
