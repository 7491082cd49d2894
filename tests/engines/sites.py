"""Configurations that all engines are rendered from; each is one process of each engine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

SECRET = "s3cr3t-value"
HEALTH_TOKEN = "h34lth-t0ken"


@dataclass(frozen=True)
class Place:
    """Where a site is: ports of its listeners, of its statistics and of its nodes; a folder for sockets and files."""

    port: int
    tls_port: int
    statistics_port: int
    nodes: dict[str, int]
    folder: str


def _base(at: Place) -> dict[str, Any]:
    return {
        "version": 1,
        "cluster": "xtest",
        "preset": "arvados",
        "listen": [{"bind": f"127.0.0.1:{at.port}"}],
        "trusted_proxies": ["127.0.0.2/32", "127.0.0.3/32"],
        "internal_networks": ["127.0.0.8/29"],
        "nodes": {name: {"url": f"http://127.0.0.1:{number}"} for name, number in at.nodes.items()},
        "balance": {"policy": "round_robin", "slow_start": "0s"},
        "designated": {"dns": {"order": ["b", "c", "a"]}},
        "health": {"interval": "2s", "fast_interval": "300ms", "timeout": "2s", "rise": 1, "fall": 2},
        "timeouts": {"response": "3s", "response_idle": "3s", "header": "1s"},
        "limits": {"connections": 500},
        "park": {"timeout": "3s"},
        "drain": {"timeout": "1s", "tunnel_grace": "1s"},
        "workers": 1,
        "versions": {"allow_mixed": True},
        "admin": {"socket": f"{at.folder}/admin.sock", "listen": f"127.0.0.1:{at.statistics_port}"},
        "state": {"dir": f"{at.folder}/state"},
        "log": {"access": "json", "path": "-"},
    }


def usual(at: Place) -> dict[str, Any]:
    """Three nodes of weights 2:1:1, all of them healthy."""
    config = _base(at)
    config["nodes"]["a"]["weight"] = 200
    return config


def drained(at: Place) -> dict[str, Any]:
    """Node `c` drained by an operator; small bodies only; idle nodes first; nodes fall sick here."""
    config = _base(at)
    config["limits"]["body"] = "64KiB"
    config["health"] |= {"interval": "300ms", "timeout": "250ms"}
    config["balance"]["policy"] = "least_requests"
    return config


def dying(at: Place) -> dict[str, Any]:
    """Checks so rare that only the traffic itself finds out that node `c` refuses connections."""
    config = _base(at)
    config["health"]["interval"] = config["health"]["fast_interval"] = "1h"
    config["health"]["timeout"] = "20s"  # the first check is the only one, on however busy a machine
    return config


def doors(at: Place) -> dict[str, Any]:
    """Other ways in: TLS with two certificates, a Unix socket; the same session goes to the same node."""
    config = _base(at)
    first, second = certificates(at.folder)
    tls = {"cert": first, "certificates": [{"cert": second, "names": ["b.example.org"]}]}
    config["listen"] += [{"bind": f"127.0.0.1:{at.tls_port}", "tls": tls}, {"bind": f"unix:{at.folder}/http.sock"}]
    config["health"]["token"] = {"env": "ARV_TEST_HEALTH_TOKEN"}
    config["balance"] = {"policy": "hash", "hash": {"by": "header", "name": "X-Session"}, "slow_start": "0s"}
    return config


def certificates(folder: str) -> list[str]:
    """Write one for a.example.org and one for b.example.org, each with its key in the same file."""
    authority = trustme.CA()
    found = []
    for name in ("a.example.org", "b.example.org"):
        made = authority.issue_cert(name)
        path = Path(folder) / f"{name}.pem"
        path.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems) + made.private_key_pem.bytes())
        found.append(str(path))
    return found


SITES = {"usual": usual, "drained": drained, "dying": dying, "doors": doors}


def text(site: str, at: Place) -> str:
    """Return the file of a site; JSON is YAML."""
    return json.dumps(SITES[site](at), indent=1)
