"""A configuration in which every key is set, and another value for each of them."""

import copy
from typing import Any

Values = dict[str, Any]

BASE: Values = {
    "version": 1,
    "cluster": "xarv1",
    "listen": [
        {
            "bind": "127.0.0.1:8443",
            "backlog": 100,
            "proxy_protocol": ["10.0.0.2/32"],
            "tls": {
                "cert": "/etc/ssl/api.pem",
                "key": "/etc/ssl/api.key",
                "certificates": [
                    {"cert": "/etc/ssl/other.pem", "key": "/etc/ssl/other.key", "names": ["api.example.org"]}
                ],
                "client_ca": "/etc/ssl/clients.pem",
                "client_required": False,
                "minimum_version": "TLSv1.2",
            },
        }
    ],
    "trusted_proxies": ["10.0.0.0/24"],
    "internal_networks": ["10.1.0.0/16"],
    "nodes": {
        "api1": {
            "url": "https://10.2.0.1:8003",
            "weight": 100,
            "capacity": 64,
            "tls": {"ca": "/etc/ssl/nodes.pem", "server_name": "api.example.org", "verify": True},
        },
        "api2": {"url": "https://10.2.0.2:8003", "tls": {"ca": "/etc/ssl/nodes.pem", "server_name": "api.example.org"}},
    },
    "balance": {"policy": "hash", "hash": {"by": "header", "name": "X-Session"}, "slow_start": "10s"},
    "designated": {"dns": {"order": ["api1", "api2"], "store": "postgres"}},
    "peers": {"balancer2": {"admin": "http://10.0.0.3:8081", "token": {"env": "PEER"}}},
    "routes": [
        {
            "name": "node-ping",
            "match": {
                "path": "/ping/{uuid}",
                "host": "a.example.org",
                "methods": ["GET"],
                "headers": {"X-Batch": "1"},
            },
            "to": {"designated": "dns"},
            "timeout": "30s",
        },
        {"name": "reports", "match": {"path": "/reports/*"}, "to": {"nodes": ["api2"]}},
    ],
    "health": {
        "path": "/_health/ping",
        "host": "api.example.org",
        "token": {"env": "TOKEN_OF_HEALTH"},
        "expect": {"status": [200], "json": {"health": "OK"}, "body": "health"},
    },
    "state": {"database": {"env": "DSN"}},
    "forwarding": {"external_client": True},
    "admin": {
        "listen": "127.0.0.1:8081",
        "hosts": ["lb.example.org"],
        "tokens": [{"name": "ops", "role": "operator", "env": "OPS"}],
    },
    "versions": {"path": "/version"},
}
# Another value for each key, by its path in docs/config.md; of lists the first item, of mappings the first name.
OTHER: dict[str, Any] = {
    "cluster": "other",
    "preset": "arvados",
    "listen[].bind": "127.0.0.1:8444",
    "listen[].backlog": 200,
    "listen[].proxy_protocol": ["10.0.0.3/32"],
    "listen[].tls.cert": "/etc/ssl/new.pem",
    "listen[].tls.key": "/etc/ssl/new.key",
    "listen[].tls.certificates[].cert": "/etc/ssl/new.pem",
    "listen[].tls.certificates[].key": "/etc/ssl/new.key",
    "listen[].tls.certificates[].names": ["new.example.org"],
    "listen[].tls.client_ca": "/etc/ssl/new.pem",
    "listen[].tls.client_required": True,
    "listen[].tls.minimum_version": "TLSv1.3",
    "trusted_proxies": ["10.0.1.0/24"],
    "internal_networks": ["10.3.0.0/16"],
    "nodes.NAME.url": "https://10.2.0.3:8003",
    "nodes.NAME.weight": 50,
    "nodes.NAME.capacity": 32,
    "nodes.NAME.tls.ca": "/etc/ssl/new.pem",
    "nodes.NAME.tls.server_name": "new.example.org",
    "nodes.NAME.tls.verify": False,
    "balance.policy": "two_choices",
    "balance.hash.by": "cookie",
    "balance.hash.name": "X-New",
    "balance.slow_start": "20s",
    "balance.min_serving": 0,
    "designated.NAME.order": ["api2", "api1"],
    "designated.NAME.failover": "manual",
    "designated.NAME.failback": "automatic",
    "designated.NAME.store": "file",
    "designated.NAME.header": False,
    "routes[].name": "new-name",
    "routes[].match.path": "/new/{uuid}",
    "routes[].match.host": "new.example.org",
    "routes[].match.methods": ["POST"],
    "routes[].match.headers": {"X-Batch": "2"},
    "routes[].to.designated": "other",
    "routes[].to.nodes": ["api1"],
    "routes[].park": False,
    "routes[].retry": False,
    "routes[].timeout": "40s",
    "health.path": "/new",
    "health.host": "new.example.org",
    "health.token.env": "NEW_TOKEN",
    "health.token.file": "/etc/new-token",
    "health.token.credential": "new-token",
    "health.token.arvados": "/etc/arvados/config.yml",
    "health.expect.status": [204],
    "health.expect.json": {"health": "FINE"},
    "health.expect.body": "new",
    "health.interval": "5s",
    "health.fast_interval": "700ms",
    "health.timeout": "900ms",
    "health.rise": 7,
    "health.fall": 8,
    "retry.retries": 1,
    "retry.on": ["connect"],
    "retry.budget.ratio": "33%",
    "retry.budget.window": "20s",
    "retry.budget.min": 5,
    "queue.max": 77,
    "queue.timeout": "41s",
    "park.max": 78,
    "park.max_bytes": "64MiB",
    "park.max_per_client": 79,
    "park.timeout": "90s",
    "park.release": "100/s",
    "park.half_close": "allow",
    "drain.timeout": "50s",
    "drain.tunnel_grace": "31s",
    "request_id.header": "X-New-Id",
    "request_id.format": "hex",
    "request_id.accept": r"\A[a-z]{1,8}\Z",
    "limits.header_bytes": "32KiB",
    "limits.header_field_bytes": "4KiB",
    "limits.header_count": 90,
    "limits.target_bytes": 4000,
    "limits.body": "1MiB",
    "limits.chunk_extensions": "1KiB",
    "limits.trailers": "1KiB",
    "limits.connections": 333,
    "limits.requests_per_connection": 444,
    "limits.min_rate": "300B/s",
    "limits.min_rate_after": "21s",
    "limits.tunnels": 55,
    "limits.buffered_response": "32KiB",
    "timeouts.header": "11s",
    "timeouts.body_idle": "131s",
    "timeouts.connect": "4s",
    "timeouts.response": "301s",
    "timeouts.response_idle": "302s",
    "timeouts.keepalive": "61s",
    "timeouts.tunnel_idle": "2h",
    "timeouts.upstream_idle": "16s",
    "timeouts.send_idle": "132s",
    "forwarding.external_client": False,
    "forwarding.default_host": "new.example.org",
    "forwarding.via": "new",
    "forwarding.drop_underscore": False,
    "forwarding.drop_dotted": False,
    "forwarding.upgrade": ["websocket"],
    "tls.minimum_version": "TLSv1.3",
    "tls.ca": "/etc/ssl/new.pem",
    "versions.allow_mixed": True,
    "versions.path": "/new-version",
    "versions.members": ["new"],
    "workers": 3,
    "peers.NAME.admin": "http://10.0.0.4:8081",
    "peers.NAME.token.file": "/etc/new-token",
    "peers.NAME.token.env": "NEW",
    "peers.NAME.token.credential": "new",
    "admin.socket": "/run/new.sock",
    "admin.listen": "127.0.0.1:8082",
    "admin.hosts": ["new.example.org"],
    "admin.tokens[].name": "new",
    "admin.tokens[].role": "admin",
    "admin.tokens[].file": "/etc/new-token",
    "admin.tokens[].env": "NEW",
    "admin.tokens[].credential": "new",
    "state.dir": "/var/lib/new",
    "state.database.file": "/etc/dsn",
    "state.database.env": "NEW_DSN",
    "state.database.credential": "new-dsn",
    "log.access": "combined",
    "log.path": "/var/log/new.log",
    "log.redact": ["new_secret"],
    "log.level": "debug",
    "dns": {"targets": {}},
}
# What else has to be so, for the value to be valid or to mean anything.
BESIDE: dict[str, dict[str, Any]] = {
    "designated.NAME.store": {"peers": {}},
    "nodes.NAME.tls.ca": {"nodes.api2.tls.ca": "/etc/ssl/new.pem"},
    "nodes.NAME.tls.server_name": {"nodes.api2.tls.server_name": "new.example.org"},
    "nodes.NAME.tls.verify": {"nodes.api2.tls.verify": False},
    "routes[].to.designated": {"designated.other": {"order": ["api2"], "store": "postgres"}},
    "tls.minimum_version": {"listen[].tls.minimum_version": None},
    "tls.ca": {"nodes.api1.tls.ca": None, "nodes.api2.tls.ca": None},
}
# The second route leads to nodes; the names of mappings.
_PLACES = {"routes[].to.nodes": "routes[1].to.nodes"}
_NAMES = {"nodes": "api1", "designated": "dns", "peers": "balancer2"}
_ONE_OF = ("file", "env", "credential", "arvados")


def pair(path: str) -> tuple[Values, Values]:
    """Return the configuration with what the key needs beside it, and the same with the other value."""
    before = copy.deepcopy(BASE)
    for other, value in BESIDE.get(path, {}).items():
        put(before, other, value)
    after = copy.deepcopy(before)
    put(after, _PLACES.get(path, path), OTHER[path])
    return before, after


def put(values: Values, path: str, value: Any) -> None:
    """Set one value; None removes it."""
    place: Any = values
    *sections, key = path.split(".")
    for before, section in zip(["", *sections], sections, strict=False):
        name, bracket, number = (_NAMES[before] if section == "NAME" else section).partition("[")
        place = place.setdefault(name, [] if bracket else {})
        if bracket:
            place = place[int(number.rstrip("]") or 0)]
    if key in _ONE_OF:
        for other in _ONE_OF:
            place.pop(other, None)
    if value is None:
        place.pop(key, None)
    else:
        place[key] = value
