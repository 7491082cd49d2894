"""The designated node: is there one, and is it the one that writes DNS."""

from balancer.config.schema import Config
from balancer.control.doctor.facts import Facts, methods
from balancer.control.doctor.finding import Found, Result, Severity, Topic, unseen
from balancer.control.doctor.text import listed

topic = Topic("designated node")
_PING = "/arvados/v1/nodes/{uuid}/ping"


@topic.rule(
    "designation-vacant",
    Severity.ERROR,
    looks_at="Whether every designation is held by a node that serves.",
    risk="Pings of compute nodes wait and then fail; new hosts get no DNS name.",
    fix="arv-balance designate NAME NODE",
)
def designation_vacant(facts: Facts) -> Result:
    """Held, and by somebody who can."""
    if not facts.config.designated:
        return
    if facts.status is None:
        yield from unseen("designations", facts.status_fault)
        return
    serving = {node["name"] for node in facts.status["nodes"] if node["serving"]}
    for item in facts.status["designations"]:
        if item["node"] is None:
            yield Found(item["name"], f"nobody holds it: {item['now'] or 'no decision yet'}")
        elif item["node"] not in serving:
            yield Found(
                item["name"], f"{item['node']} holds it and does not serve: {item['now'] or 'failover is manual'}"
            )


@topic.rule(
    "designation-not-writer",
    Severity.ERROR,
    looks_at="Whether the node that writes the files of a DNS target (`dns.targets.*.node`) holds the designation.",
    risk="Pings arrive at one node, and another one writes DNS: names stay as they were.",
    fix="arv-balance designate NAME NODE, or dns: {targets: {TARGET: {node: NODE}}}",
)
def designation_not_writer(facts: Facts) -> Result:
    """The same node."""
    if facts.dns is None or not facts.dns.writers:
        return
    if facts.status is None:
        yield from unseen("the writer of DNS", facts.status_fault)
        return
    holders = {item["name"]: item["node"] for item in facts.status["designations"]}
    for target, writer in facts.dns.writers.items():
        if writer not in holders.values():
            held = listed(f"{name}: {node or 'nobody'}" for name, node in holders.items()) or "no designation"
            yield Found(f"target {target}", f"{writer} writes it; {held}")


@topic.rule(
    "ping-not-designated",
    Severity.ERROR,
    looks_at="Whether pings of compute nodes are routed to a designated node, where the API takes pings.",
    risk="Each ping reaches another node; what the pinged node does on its own host is done everywhere and nowhere.",
    fix='preset: arvados, or routes: [{name: node-ping, match: {path: "/arvados/v1/nodes/{uuid}/ping"}, '
    "to: {designated: dns}}]",
)
def ping_not_designated(facts: Facts) -> Result:
    """The route that the preset brings."""
    if len(facts.nodes) < 2 or _has_route(facts.config):
        return
    takers = [name for name, document in facts.answers("discovery").items() if "ping" in methods(document, "nodes")]
    if takers:
        yield Found(_PING, f"{listed(takers)} take pings, and no route with that path leads to a designated node")


def _has_route(config: Config) -> bool:
    return any(
        route.match.path and "/nodes/" in route.match.path and route.to is not None and route.to.designated
        for route in config.routes
    )


@topic.rule(
    "dns-by-host-files",
    Severity.WARNING,
    looks_at="Whether the nodes write DNS on their own host (`Containers.SLURM.Managed.DNSServer*` in config.yml).",
    risk="Only the node that got the ping writes, before its transaction ends, and nobody repeats what failed.",
    fix="DNSServerUpdateCommand: arv-balance dns hook --hostname %{hostname} --ip %{ip_address}; see docs/dns.md",
)
def dns_by_host_files(facts: Facts) -> Result:
    """The classic strategy on several nodes."""
    cluster = facts.cluster
    if cluster is None or len(cluster.nodes) < 2 or not cluster.host_dns:
        return
    yield Found(cluster.path, f"{listed(cluster.host_dns)} set, for {len(cluster.nodes)} nodes")
