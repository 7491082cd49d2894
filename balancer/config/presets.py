"""Defaults for a kind of API server; whatever the file says itself wins."""

from collections.abc import Mapping

from balancer.config.errors import Loc

Values = Mapping[str, object]

ARVADOS: Values = {
    "designated": {"dns": {}},
    "routes": ({"name": "node-ping", "match": {"path": "/arvados/v1/nodes/{uuid}/ping"}, "to": {"designated": "dns"}},),
    # A sick Arvados node answers 200 too; only the body tells.
    "health": {"path": "/_health/ping", "expect": {"status": (200,), "json": {"health": "OK"}}},
    "request_id": {"header": "X-Request-Id", "format": "arvados"},
    # MaxRequestSize of Arvados is enforced by the proxy; RequestTimeout is 5 minutes and ours has to be longer.
    "limits": {"body": "128MiB", "tunnels": 1000},
    "timeouts": {"response": "310s", "response_idle": "310s", "tunnel_idle": "1h"},
    "forwarding": {"external_client": True, "upgrade": ("websocket", "ssh", "tunnel")},
    "versions": {"path": "/discovery/v1/apis/arvados/v1/rest"},
    "log": {"redact": ("api_token", "ping_secret", "reader_tokens")},
}
_PRESETS: Mapping[str, Values] = {"arvados": ARVADOS}


def apply(data: Values) -> dict[str, object]:
    """Return `data` with the defaults of its preset below it. Preset routes follow the file's own."""
    name = data.get("preset")
    preset = _PRESETS.get(name, {}) if isinstance(name, str) else {}
    merged = _below(preset, data)
    merged["routes"] = _routes(preset.get("routes", ()), data.get("routes", ()))
    if not merged["routes"] and "routes" not in data:
        del merged["routes"]
    return merged


def _below(preset: Values, data: Values) -> dict[str, object]:
    merged = dict(data)
    for key, value in preset.items():
        own = data.get(key)
        if key not in data:
            merged[key] = value
        elif isinstance(own, dict) and isinstance(value, dict):
            merged[key] = _below(value, own)
    return merged


def _routes(preset: object, own: object) -> object:
    if not isinstance(preset, tuple) or not isinstance(own, tuple):
        return own
    names = {route.get("name") for route in own if isinstance(route, dict)}
    return (*own, *(route for route in preset if route["name"] not in names))


def leaves(data: object, loc: Loc = ()) -> dict[Loc, object]:
    """Return all values that are not mappings, by location; lists of mappings are entered too."""
    if isinstance(data, dict) and data:
        items = list(data.items())
    elif isinstance(data, tuple) and any(isinstance(item, dict) for item in data):
        items = list(enumerate(data))
    else:
        return {loc: data}
    found: dict[Loc, object] = {}
    for key, value in items:
        found |= leaves(value, (*loc, key))
    return found
