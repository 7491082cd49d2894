"""The file that `arv-balance config init` writes: small, commented, valid."""

import re

from balancer.config import flat
from balancer.config.arvados import Cluster

_HEAD = """\
# arv-balance. Every key with its default: arv-balance config show --origin, and docs/config.md.
# Check it with `arv-balance check`; a running balancer takes it over with `arv-balance reload`.
# Editors complete and check keys with the schema: arv-balance config schema > arv-balance.schema.json
# yaml-language-server: $schema=arv-balance.schema.json
version: 1
cluster: {cluster}
"""

_LISTEN = """
# Where clients come in. TLS files are read again at each reload.
listen:
  - bind: "127.0.0.1:8080"
# - bind: "0.0.0.0:443"
#   tls: {cert: /etc/ssl/api.pem, key: /etc/ssl/api.key}
"""

_TAIL = """
# What waits while nodes are paused, upgraded or down. A drain gets its time first, so park longer than that.
drain: {timeout: 60s, tunnel_grace: 30s}
park: {max: 5000, timeout: 120s, release: 200/s}

# Operators use the Unix socket. Over TCP every call needs a token.
admin:
  socket: /run/arv-balance/admin.sock
# listen: "127.0.0.1:8081"
# tokens:
#   - {name: ops, role: operator, file: /etc/arv-balance/ops-token}

# Drains, weights, pauses and the designated node are kept here over restarts.
state: {dir: /var/lib/arv-balance}

# Values of these query parameters never reach the log; Authorization and Cookie never do.
log: {access: json, redact: [api_token, ping_secret, reader_tokens]}
"""


def plain() -> str:
    """Return a file for servers of any kind."""
    nodes = """
# The servers. Requests wait for a node below its capacity; 0 or nothing is no limit.
nodes:
  api1: {url: "http://127.0.0.1:9001", capacity: 64}
  api2: {url: "http://127.0.0.1:9002", capacity: 64}

balance: {policy: least_requests, slow_start: 10s, min_serving: 1}

# A node takes requests only while this succeeds.
health: {path: /, expect: {status: 200}, interval: 2s, timeout: 1s, rise: 2, fall: 3}
"""
    return _HEAD.format(cluster="default") + _LISTEN + nodes + _TAIL


def arvados(cluster: Cluster) -> str:
    """Return a file for an Arvados cluster whose nodes stay in its own `config.yml`."""
    first = cluster.nodes[0].name
    path, service = flat.scalar(cluster.path), flat.scalar(cluster.service)
    nodes = f"""
# The node-ping route, the health check of body and status, limits and timeouts that Arvados needs.
preset: arvados

# Clients of these networks are internal: they reach Keep directly instead of through its proxy.
internal_networks: [10.0.0.0/8]

# No second list of nodes: they are read from here at each start and reload. Now there are
# {", ".join(f"{node.name} ({node.url})" for node in cluster.nodes)}.
# With the preset the token of the health check is taken from the same file.
nodes:
  from: {{arvados: {path}, service: {service}}}
# overrides:
#   {flat.scalar(first)}: {{weight: 50}}

balance: {{policy: least_requests, slow_start: 10s, min_serving: {1 if len(cluster.nodes) > 1 else 0}}}

# One node at a time gets the pings of compute nodes, because it writes their DNS records.
designated:
  dns: {{order: [{", ".join(flat.scalar(node.name) for node in cluster.nodes)}], failover: automatic, failback: manual}}
"""
    text = _HEAD.format(cluster=flat.scalar(cluster.id)) + _LISTEN + nodes + _TAIL
    return re.sub(r"\n{3,}", "\n\n", text)
