"""The files of a demo: configurations, secrets of its own, a certificate, and what another terminal sources."""

import base64
import json
import secrets
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import trustme

from balancer.demo.layout import CLUSTER, DOMAIN, Layout, Node

DNS_KEY = "demo-key"
DNS_TARGET = "main"
NODE_CAPACITY = 64  # what an API node takes at once
COMPUTE_NETWORK, REVERSE_ZONE = "10.0.1.0/24", "1.0.10.in-addr.arpa"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made anew for each demo."""

    admin: str = field(default_factory=lambda: secrets.token_hex(25), repr=False)
    root: str = field(default_factory=lambda: secrets.token_hex(25), repr=False)
    management: str = field(default_factory=lambda: secrets.token_hex(25), repr=False)
    dns: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)


def write(layout: Layout, made: Secrets, database_url: str) -> None:
    """Write everything but what `write_node` does. The folder is private to its owner."""
    _put(layout.secrets / "admin-token", made.admin)
    _put(layout.secrets / "management-token", made.management)
    _put(layout.secrets / "root-token", made.root)
    _put(layout.secrets / "database", database_url)
    _put(layout.secrets / "curl-headers", f"Authorization: Bearer {made.root}\n")
    key = base64.b64encode(made.dns).decode()
    _put(layout.secrets / "dns.key", f'key "{DNS_KEY}" {{ algorithm hmac-sha256; secret "{key}"; }};\n')
    _certificate(layout)
    _put(layout.config, _balancer(layout))
    _put(layout.folder / "env", _environment(layout, made))
    _put(layout.folder / "remote", str(layout.remote))


def write_node(layout: Layout, node: Node) -> None:
    """Write the file of an API node."""
    token = {name: {"file": str(layout.secrets / f"{name}-token")} for name in ("root", "management")}
    _put_json(layout.node_file(node.name), {
        "cluster": CLUSTER,
        "listen": [f"127.0.0.1:{node.port}"],
        "external_url": f"{layout.secure_url}/",
        "database_url": (layout.secrets / "database").read_text(),
        "database_pool": 4,
        "system_root_token": token["root"],
        "management_token": token["management"],
        "stop_delay_s": 0.2,
        "stop_timeout_s": 10.0,
        "nodes": {"compute_node_domain": DOMAIN},
        "dns": {"file": str(layout.config)},
    })  # fmt: skip


def example_node() -> Path:
    """The example node's program: beside the package when installed, in `examples/` of a checkout."""
    packaged = Path(str(files("balancer") / "_examples" / "echo_node.py"))
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "examples" / "echo_node.py"


def _put(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def _put_json(path: Path, document: dict[str, Any]) -> None:
    _put(path, json.dumps(document, indent=1) + "\n")  # JSON is YAML


def _certificate(layout: Layout) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(layout.certificate))
    made = authority.issue_cert("127.0.0.1", "localhost")
    _put(layout.folder / "cert.pem", "".join(pem.bytes().decode() for pem in made.cert_chain_pems))
    _put(layout.secrets / "cert.key", made.private_key_pem.bytes().decode())


def _environment(layout: Layout, made: Secrets) -> str:
    return (
        f'export ARV_BALANCE_ADMIN="unix:{layout.admin_socket}"\n'
        f'export ARV_BALANCE_CONFIG="{layout.config}"\n'
        f'export ARVADOS_API_HOST="127.0.0.1:{layout.https}" ARVADOS_API_HOST_INSECURE=1\n'
        f'export ARVADOS_API_TOKEN="{made.root}"\n'
        f'export PATH="{Path(sys.executable).parent}:$PATH"\n'
    )


def _balancer(layout: Layout) -> str:
    token = "null" if layout.echo else f"{{file: {layout.secrets}/management-token}}"
    tokens = f"[{{name: demo, role: admin, file: {layout.secrets}/admin-token}}]"
    capacity = 0 if layout.echo else NODE_CAPACITY
    nodes = "\n".join(f'  {node.name}: {{url: "{node.url}", capacity: {capacity}}}' for node in layout.nodes.values())
    return f"""\
version: 1
cluster: {CLUSTER}
preset: arvados
listen:
  - {{bind: "127.0.0.1:{layout.http}"}}
  - {{bind: "127.0.0.1:{layout.https}", tls: {{cert: {layout.folder}/cert.pem, key: {layout.secrets}/cert.key}}}}
internal_networks: [127.0.0.0/8]
nodes:
{nodes}
designated:
  dns: {{order: [{", ".join(layout.nodes)}], failover: automatic, failback: manual}}
health: {{token: {token}, interval: 1s, fast_interval: 300ms, timeout: 900ms}}
balance: {{policy: least_requests, slow_start: 3s}}
park: {{max_per_client: 0}}            # all clients of the demo come from this machine
drain: {{timeout: 30s, tunnel_grace: 1s}}
versions: {{members: [packageVersion]}}
limits: {{connections: 200}}           # for as many open files as any machine allows
admin: {{socket: {layout.admin_socket}, listen: "127.0.0.1:{layout.admin}", tokens: {tokens}}}
state: {{dir: {layout.scratch}/state}}
log: {{access: json, path: {layout.access_log}}}
{"" if layout.echo else _dns(layout)}"""


def _dns(layout: Layout) -> str:
    return f"""\
dns:
  database_file: {layout.secrets}/database
  domain: {DOMAIN}
  spool: {{dir: {layout.scratch}/dns-spool}}
  targets:
    {DNS_TARGET}: {{kind: builtin, servers: [127.0.0.1], port: {layout.dns}, key_file: {layout.secrets}/dns.key}}
  zones:
    - {{name: {DOMAIN}, target: {DNS_TARGET}}}
    - {{name: {REVERSE_ZONE}, target: {DNS_TARGET}, networks: [{COMPUTE_NETWORK}]}}
  templates:
    compute:
      records:
        - {{name: "{{{{ fqdn }}}}.", each: ipv4, type: A, data: "{{{{ item }}}}"}}
        - {{name: "{{{{ ptr(item) }}}}", each: ipv4, type: PTR, data: "{{{{ fqdn }}}}."}}
"""
