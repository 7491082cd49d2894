"""Writes the configurations of other engines in examples/engines from site.yml beside them."""

import subprocess
import sys
from pathlib import Path

ENGINES = Path(__file__).parents[1] / "examples" / "engines"
FILES = {
    "haproxy": "haproxy.cfg",
    "nginx": "nginx.conf",
    "envoy": "envoy.yaml",
    "traefik": "traefik.yml",
    "caddy": "Caddyfile",
}

if __name__ == "__main__":
    for engine, name in FILES.items():
        command = [sys.executable, "-m", "balancer", "render", engine, "-c", "site.yml", "--report", "json"]
        done = subprocess.run(command, cwd=ENGINES, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        (ENGINES / name).write_bytes(done.stdout)
