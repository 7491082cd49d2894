"""nginx, Debian's: one worker. Buffers are raised so that 64 KiB bodies stay in memory; its log is buffered."""

from bench.machine import binary
from bench.targets.setup import Launch, Setup, first_line, log_line

_CONFIG = """\
daemon off;
worker_processes {workers};
worker_rlimit_nofile 16384;
error_log stderr crit;
pid {folder}/nginx.pid;
user root;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  map $http_x_request_id $rid {{ default $http_x_request_id; "" $request_id; }}
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  log_format lines escape=json '{log}';
  access_log /dev/null lines buffer=64k flush=1s;
  keepalive_timeout 3600s;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_buffer_size 128k;
  client_body_temp_path {folder}/nb; proxy_temp_path {folder}/np; fastcgi_temp_path {folder}/nf;
  uwsgi_temp_path {folder}/nu; scgi_temp_path {folder}/ns;
  proxy_buffer_size 16k;
  proxy_buffers 16 64k;
  proxy_busy_buffers_size 128k;
  proxy_max_temp_file_size 0;
  upstream nodes {{
{servers}
    keepalive 256;
    keepalive_requests 100000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{tls_port} ssl backlog=4096;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Request-Id $rid;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_hide_header X-Request-Id;
      add_header X-Request-Id $rid always;
    }}
  }}
}}
"""
_LOG = log_line(
    {
        "timestamp": "$msec",
        "client": "$remote_addr",
        "method": "$request_method",
        "target": "$request_uri",
        "protocol": "$server_protocol",
        "status": "$status",
        "bytes_in": "$request_length",
        "bytes_out": "$bytes_sent",
        "duration": "$request_time",
        "ttfb": "$upstream_header_time",
        "user_agent": "$http_user_agent",
        "request_id": "$rid",
        "node": "$upstream_addr",
    },
    numbers=frozenset({"status", "bytes_in", "bytes_out", "duration"}),
)


class Nginx:
    """See the module."""

    name = "nginx"
    cannot = frozenset[str]()
    without_tls = False

    def missing(self) -> str:
        """Say what to install."""
        return "" if binary("nginx") else "nginx: run `make system-packages`"

    def version(self) -> str:
        """Return its version line."""
        return first_line([binary("nginx") or "nginx", "-v"], "nginx version").removeprefix("nginx version: ")

    def prepare(self, setup: Setup) -> Launch:
        """Write nginx.conf."""
        text = _CONFIG.format(
            workers=setup.workers,
            folder=setup.folder,
            log=_LOG,
            servers="\n".join(f"    server 127.0.0.1:{port};" for port in setup.nodes),
            port=setup.port,
            tls_port=setup.tls_port,
            pem=setup.pem,
        )
        path = setup.folder / "nginx.conf"
        path.write_text(text)
        return Launch([binary("nginx") or "nginx", "-p", str(setup.folder), "-c", str(path)])
