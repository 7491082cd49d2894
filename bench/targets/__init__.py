"""The programs that are compared, each set up for the same work.

Two nodes with kept-alive connections, X-Request-Id made or kept and returned, X-Forwarded-For, one access-log line
a request with the fields of `LOG_FIELDS` written to /dev/null, WebSocket passed on, one worker on one core. A module
here says where a program cannot do the same.
"""

from bench.targets.aiohttp import Aiohttp
from bench.targets.balance import ArvBalance, WorkerAlone
from bench.targets.caddy import Caddy
from bench.targets.chp import ConfigurableHttpProxy
from bench.targets.envoy import Envoy
from bench.targets.haproxy import Haproxy
from bench.targets.nginx import Nginx
from bench.targets.setup import Launch, Setup, Target
from bench.targets.traefik import Traefik

__all__ = ["BASE", "ON_REQUEST", "OURS", "TARGETS", "Launch", "Setup", "Target"]

BASE = "haproxy"  # all ratios are to this one
OURS = "arv-balance"
ON_REQUEST = frozenset({"worker"})  # measured only when asked for

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Haproxy(),
        ArvBalance(),
        WorkerAlone(),
        Nginx(),
        Envoy(),
        Traefik(),
        Caddy(),
        ConfigurableHttpProxy(),
        Aiohttp(),
    )
}
