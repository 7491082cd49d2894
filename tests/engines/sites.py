"""Configurations that all engines are rendered from; each is one process of each engine."""

import json
from typing import Any

SECRET = "s3cr3t-value"


def _base(port: int, ports: dict[str, int], folder: str) -> dict[str, Any]:
    return {
        "version": 1,
        "cluster": "xtest",
        "preset": "arvados",
        "listen": [{"bind": f"127.0.0.1:{port}"}],
        "trusted_proxies": ["127.0.0.2/32", "127.0.0.3/32"],
        "internal_networks": ["127.0.0.8/29"],
        "nodes": {name: {"url": f"http://127.0.0.1:{number}"} for name, number in ports.items()},
        "balance": {"policy": "round_robin", "slow_start": "0s"},
        "designated": {"dns": {"order": ["b", "c", "a"]}},
        "health": {"interval": "300ms", "fast_interval": "300ms", "timeout": "250ms", "rise": 1, "fall": 2},
        "timeouts": {"response": "1500ms", "response_idle": "1500ms", "header": "1s"},
        "limits": {"connections": 500},
        "park": {"timeout": "1s"},
        "drain": {"timeout": "1s", "tunnel_grace": "1s"},
        "workers": 1,
        "versions": {"allow_mixed": True},
        "admin": {"socket": f"{folder}/admin.sock"},
        "state": {"dir": f"{folder}/state"},
        "log": {"access": "json", "path": "-"},
    }


def usual(port: int, ports: dict[str, int], folder: str) -> dict[str, Any]:
    """Three nodes of weights 2:1:1, all of them healthy."""
    config = _base(port, ports, folder)
    config["nodes"]["a"]["weight"] = 200
    return config


def drained(port: int, ports: dict[str, int], folder: str) -> dict[str, Any]:
    """Node `c` drained by an operator; small bodies only; nodes fall sick here."""
    config = _base(port, ports, folder)
    config["limits"]["body"] = "64KiB"
    return config


def dying(port: int, ports: dict[str, int], folder: str) -> dict[str, Any]:
    """Checks so rare that only the traffic itself finds out that node `c` refuses connections."""
    config = _base(port, ports, folder)
    config["health"]["interval"] = config["health"]["fast_interval"] = "1h"
    return config


SITES = {"usual": usual, "drained": drained, "dying": dying}


def text(site: str, port: int, ports: dict[str, int], folder: str) -> str:
    """Return the file of a site; JSON is YAML."""
    return json.dumps(SITES[site](port, ports, folder), indent=1)
