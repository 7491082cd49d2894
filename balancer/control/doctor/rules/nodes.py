"""Each node by itself: does it answer, does it know our token, does it keep what the balancer relies on."""

import math
from urllib.parse import urlsplit

from balancer.control.doctor.facts import Facts, NodeFacts, Reply
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen
from balancer.control.doctor.text import listed
from balancer.durations import spell

topic = Topic("nodes")


@topic.rule(
    "node-unreachable",
    Severity.ERROR,
    looks_at="Whether every node answers its health check at all.",
    risk="It takes no requests; the others carry its share.",
    fix="start it, or `arv-balance nodes drain NODE --reason ...` while it is away",
)
def node_unreachable(facts: Facts) -> Result:
    """No answer."""
    for node in facts.nodes:
        if node.is_wanted and node.reply("health").fault:
            yield Found(node.name, f"{node.authority}: {node.reply('health').fault}")


@topic.rule(
    "health-token",
    Severity.ERROR,
    looks_at="Whether the nodes accept `health.token`: missing, wrong, or not set on the node.",
    risk="The node is taken for unhealthy and gets no requests, though it could serve.",
    fix="health: {token: {file: /etc/arv-balance/management-token}} holding the ManagementToken of every node",
)
def health_token(facts: Facts) -> Result:
    """401, 403, or 404 with "disabled"."""
    for node in facts.nodes:
        if node.refuses_token:
            yield Found(node.name, node.health)


@topic.rule(
    "node-sick",
    Severity.ERROR,
    looks_at="What the health check of each node says, the body included: a sick Arvados node answers 200, too.",
    risk="It takes no requests; the others carry its share.",
    fix="on the node: arvados-server check, and its log",
)
def node_sick(facts: Facts) -> Result:
    """It answers, but not well."""
    for node in facts.nodes:
        if node.is_wanted and node.health and not node.refuses_token and not node.reply("health").fault:
            yield Found(node.name, node.health)


@topic.rule(
    "request-id-lost",
    Severity.WARNING,
    looks_at="Whether a node's answer carries the request id that it was sent.",
    risk="A failure that a user reports cannot be found in the node's log, and `trace` finds nothing there.",
    fix="let the proxy on the node, if there is one, pass X-Request-Id in both directions",
)
def request_id_lost(facts: Facts) -> Result:
    """The id comes back, or it does not."""
    field = facts.config.request_id.header
    for node in facts.nodes if facts.is_arvados else ():
        reply = node.reply("identified")
        if reply.fault:
            if not node.reply("health").fault:
                yield Unseen(f"request id of {node.name}", reply.fault)
        elif reply.first(field.lower()) != SENT_ID:
            back = reply.first(field.lower())
            yield Found(node.name, f"{field} {SENT_ID} was sent, {back or 'none'} came back")


SENT_ID = "req-doctordoctordoctor00"


@topic.rule(
    "discovery-address",
    Severity.ERROR,
    looks_at="Whether the URLs in the discovery document lead to the balancer and not to a node.",
    risk="Clients take all further requests to one node, past the balancer: no failover, no drain, no upgrade.",
    fix="Services.Controller.ExternalURL (external_url of our API nodes): the balancer's address, on all nodes",
)
def discovery_address(facts: Facts) -> Result:
    """rootUrl, baseUrl and websocketUrl."""
    known = _names(facts)
    authorities = {node.authority for node in facts.nodes}
    for name, document in facts.answers("discovery").items():
        for key in ("rootUrl", "baseUrl", "websocketUrl"):
            url = str(document.get(key) or "")
            host = _host(url)
            if not host:
                continue
            if _authority(url) in authorities:
                yield Found(name, f"{key} is {url}, which is a node")
            elif key == "rootUrl" and known and not any(_covers(one, host) for one in known):
                yield Found(
                    name, f"{key} is {url}; the balancer is known as {listed(known)}", severity=Severity.WARNING
                )


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.port is None or parts.port else ""
    except ValueError:
        return ""


def _authority(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "wss": 443}.get(parts.scheme, 80)
    host = parts.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _names(facts: Facts) -> list[str]:
    """Return what the balancer is called, by its certificates and the cluster; [] when nothing says it."""
    names = {name for item in facts.listener_certificates for name in item.names}
    if facts.cluster is not None and facts.cluster.external_host:
        names.add(facts.cluster.external_host)
    return sorted(names)


def _covers(known: str, host: str) -> bool:
    return known == host or (known.startswith("*.") and host.partition(".")[2] == known[2:])


@topic.rule(
    "session-not-shared",
    Severity.ERROR,
    looks_at="Whether a session cookie that one node sets at `/login` is accepted by another.",
    risk="A login begins on one node and ends on another, which does not know it: logins fail now and then.",
    fix="the same session secret on all nodes (SystemRootToken, secret_token), or balance: {policy: hash, "
    "hash: {by: cookie, name: NAME}}",
)
def session_not_shared(facts: Facts) -> Result:
    """A node that keeps its own cookie and replaces another node's does not know that one."""
    if facts.config.balance.policy == "hash":
        return
    for node in facts.nodes:
        own, foreign = node.reply("login-own"), node.reply("login-foreign")
        again = _cookies(foreign) - _cookies(own)
        if again and not own.fault:
            yield Found(node.name, f"does not know the cookie {listed(sorted(again))} of another node, sets a new one")


def _cookies(reply: Reply) -> set[str]:
    return {value.partition("=")[0].strip() for value in reply.fields.get("set-cookie", ()) if "=" in value}


@topic.rule(
    "keepalive-too-short",
    Severity.WARNING,
    looks_at="How long a node keeps an idle connection open, beside `timeouts.upstream_idle`.",
    risk="Now and then a request meets a connection that the node is just closing, and has to be sent again. A POST "
    "goes over one used within the last second or a new one: it fails only where a node waits less than that.",
    fix="timeouts: {upstream_idle: ...} below what the nodes wait, or let them wait longer",
)
def keepalive_too_short(facts: Facts) -> Result:
    """The node has to be the one that waits longer."""
    ours_s, short = float(facts.config.timeouts.upstream_idle), []
    for node in facts.nodes:
        idle = node.idle
        if idle is None or idle.fault:
            if idle is not None and not node.reply("health").fault:
                yield Unseen(f"idle connections of {node.name}", idle.fault)
        elif idle.closed_s is not None and idle.closed_s < ours_s:
            evidence = f"closed an idle connection after {spell(idle.closed_s)}; upstream_idle is {spell(ours_s)}"
            yield Found(node.name, evidence, _shorter(idle.closed_s))
        elif idle.promised_s is not None:
            if idle.promised_s < ours_s:
                evidence = f"says Keep-Alive: timeout={idle.promised_s:g}; upstream_idle is {spell(ours_s)}"
                yield Found(node.name, evidence, _shorter(idle.promised_s))
        elif idle.closed_s is None and idle.watched_s < ours_s:
            short.append((idle.watched_s, node.name))
    if short:  # one line for all: they were watched side by side
        wanted = f"--timeout {spell(math.ceil(ours_s) + 2)}"
        seen = f"open for the {spell(min(short)[0])} that they were watched, upstream_idle is {spell(ours_s)}"
        yield Unseen(f"idle connections of {listed(name for _, name in short)}", f"{seen}; to the end: {wanted}")


def _shorter(closed_s: float) -> str:
    """Return what to write: a second below what the node waits, half of it where that is less than two seconds."""
    return f"timeouts: {{upstream_idle: {spell(max(closed_s - 1, closed_s / 2, 0.05))}}}"


@topic.rule(
    "capacity-above-limit",
    Severity.WARNING,
    looks_at="A node's own limit of requests at once (`arvados_max_concurrent_requests`), beside its `capacity`.",
    risk="What is above the limit waits or is refused inside one node, while others are free.",
    fix="nodes: {NAME: {capacity: ...}} at most the node's limit",
)
def capacity_above_limit(facts: Facts) -> Result:
    """Waiting belongs to the balancer's queue."""
    for node in facts.nodes:
        limit = _limit(facts, node)
        if limit and (node.capacity == 0 or node.capacity > limit):
            ours = f"capacity is {node.capacity}" if node.capacity else "it has no capacity"
            yield Found(
                node.name, f"takes {limit} requests at once; {ours}", f"nodes: {{{node.name}: {{capacity: {limit}}}}}"
            )
        elif not limit and facts.is_arvados and node.reply("metrics").fault and not node.reply("health").fault:
            yield Unseen(f"limits of {node.name}", f"/metrics: {node.reply('metrics').fault}")


def _limit(facts: Facts, node: NodeFacts) -> int:
    said = int(sum(value for _, value in node.series("arvados_max_concurrent_requests")))
    listed_limit = (
        next((item.capacity for item in facts.cluster.nodes if item.name == node.name), 0) if facts.cluster else 0
    )
    return min((limit for limit in (said, listed_limit) if limit), default=0)
