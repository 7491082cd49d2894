"""The upstream nodes: nginx with answers whose heads are all different, and a WebSocket echo."""

import os
import sys
from pathlib import Path

from bench.machine import BenchError, Ports, binary
from bench.process import Process
from bench.ready import until_answered

SMALL_BYTES = 1 << 10
MEDIUM_BYTES = 64 << 10
LARGE_BYTES = 10 << 20

# `$request_id` is new in every answer, so no two response heads are equal. `collections` carries what an API server
# behind a browser application sends: 850 bytes of head.
_NGINX = """\
daemon off;
master_process off;
error_log stderr crit;
pid {folder}/nodes.pid;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 3600s;
  keepalive_requests 100000000;
  open_file_cache max=16;
  client_max_body_size 0;
  default_type application/octet-stream;
  client_body_temp_path {folder}/nb; proxy_temp_path {folder}/np; fastcgi_temp_path {folder}/nf;
  uwsgi_temp_path {folder}/nu; scgi_temp_path {folder}/ns;
  server {{
{listen}
    add_header X-Answer $request_id;
    add_header X-Request-Id $http_x_request_id;
    root {folder}/files;
    location = /small {{ return 200 "{small}"; }}
    location = /seen {{
      add_header X-Request-Id $http_x_request_id;
      return 200 "$http_x_request_id|$http_x_forwarded_for|$server_port";
    }}
    location = /post {{ return 200 "ok"; }}
    location = /arvados/v1/collections {{
      default_type application/json;
      add_header X-Request-Id $http_x_request_id;
      add_header ETag 'W/"$request_id"';
      add_header X-Runtime "0.0$msec";
      add_header Cache-Control "max-age=0, private, must-revalidate";
      add_header Strict-Transport-Security "max-age=63072000; includeSubDomains";
      add_header X-Frame-Options SAMEORIGIN;
      add_header X-Content-Type-Options nosniff;
      add_header X-Permitted-Cross-Domain-Policies none;
      add_header Referrer-Policy strict-origin-when-cross-origin;
      add_header Access-Control-Allow-Origin "*";
      add_header Access-Control-Allow-Methods "GET, HEAD, PUT, POST, PATCH, DELETE";
      add_header Access-Control-Allow-Headers "Authorization, Content-Type, X-Requested-With";
      add_header Access-Control-Max-Age 86486400;
      add_header Vary "Accept, Accept-Encoding, Origin";
      add_header X-XSS-Protection 0;
      add_header Content-Security-Policy "frame-ancestors 'self'";
      return 200 "{small}";
    }}
  }}
}}
"""


class Nodes:
    """Upstream nodes on the load's core: one nginx process listening on as many ports as there are nodes."""

    def __init__(self, *, folder: Path, core: int, ports: Ports, count: int) -> None:
        self.folder = folder
        self.ports = ports.take_many(count)
        nginx = binary("nginx")
        if nginx is None:
            raise BenchError("nginx is needed for the upstream nodes: run `make system-packages`")
        self._process = Process([nginx, "-p", str(folder), "-c", str(folder / "nodes.conf")], core=core, folder=folder)

    def __enter__(self) -> "Nodes":
        files = self.folder / "files"
        files.mkdir()
        (files / "medium").write_bytes(os.urandom(MEDIUM_BYTES))
        (files / "large").write_bytes(os.urandom(LARGE_BYTES))
        listen = "\n".join(f"    listen 127.0.0.1:{port} backlog=4096;" for port in self.ports)
        text = _NGINX.format(folder=self.folder, listen=listen, small="x" * SMALL_BYTES)
        (self.folder / "nodes.conf").write_text(text)
        self._process.start()
        until_answered(self._process, self.ports[0], "/small")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.stop()


class EchoNodes:
    """WebSocket echo nodes (`bench.echo`) on the load's core."""

    def __init__(self, *, folder: Path, core: int, ports: Ports, count: int) -> None:
        self.ports = ports.take_many(count)
        argv = [sys.executable, "-P", "-m", "bench.echo", *map(str, self.ports)]
        self._process = Process(argv, core=core, folder=folder)

    def __enter__(self) -> "EchoNodes":
        self._process.start()
        until_answered(self._process, self.ports[0], "/")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.stop()
