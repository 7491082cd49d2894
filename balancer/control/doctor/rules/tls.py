"""Certificates: of our listeners, and those that nodes show."""

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from balancer.control.doctor.facts import Certificate, Facts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen
from balancer.control.doctor.text import listed

topic = Topic(
    "tls", lambda facts: bool(facts.listener_certificates) or any(node.certificate is not None for node in facts.nodes)
)


def _expiry(facts: Facts, item: Certificate) -> Iterator[Found]:
    if item.not_after is None:
        return
    left_s = (item.not_after - facts.now).total_seconds()
    if left_s <= 0:
        yield Found(item.subject, f"expired on {item.not_after:%Y-%m-%d %H:%M} UTC", severity=Severity.ERROR)
    elif left_s < facts.limits.expires_s:
        yield Found(item.subject, f"expires in {left_s / 86400:.0f} days, on {item.not_after:%Y-%m-%d}")


@topic.rule(
    "certificate-expires",
    Severity.WARNING,
    looks_at="The end of every certificate of a listener.",
    risk="From that moment no client connects any more.",
    fix="renew it, then arv-balance reload",
)
def certificate_expires(facts: Facts) -> Result:
    """Ours."""
    for item in facts.listener_certificates:
        yield from _expiry(facts, item)


@topic.rule(
    "certificate-name",
    Severity.ERROR,
    looks_at="Whether the listeners' certificates are for the name that clients are sent to: `rootUrl`, ExternalURL, "
    "hosts of routes.",
    risk="Clients refuse the connection, or are told to stop verifying.",
    fix="a certificate with that name, or the right ExternalURL on the nodes",
)
def certificate_name(facts: Facts) -> Result:
    """The names that clients use."""
    names = {name for item in facts.listener_certificates for name in item.names}
    if not names:
        return
    for host, source in sorted(_wanted(facts).items()):
        if not any(_covers(name, host) for name in names):
            yield Found(host, f"{source} says {host}; the certificates are for {listed(sorted(names))}")


def _wanted(facts: Facts) -> dict[str, str]:
    wanted = {}
    for name, document in facts.answers("discovery").items():
        with suppress(ValueError):  # what is no URL at all is told by another rule: the documents differ
            url = urlsplit(str(document.get("rootUrl") or ""))
            if url.scheme == "https" and url.hostname:
                wanted[url.hostname] = f"rootUrl of {name}"
    if facts.cluster is not None and facts.cluster.external_host:
        wanted[facts.cluster.external_host] = "Services.Controller.ExternalURL"
    for route in facts.config.routes:
        if route.match.host:
            wanted[str(route.match.host)] = f"route {route.name}"
    return wanted


def _covers(name: str, host: str) -> bool:
    if name.startswith("*.") and not host.startswith("*."):  # one label (RFC 9525 section 6.3)
        return host.partition(".")[2] == name[2:]
    return name == host


@topic.rule(
    "node-certificate",
    Severity.WARNING,
    looks_at="The certificate of every `https` node: accepted by our settings, and its end.",
    risk="The balancer refuses the node as soon as it is not accepted.",
    fix="renew it on the node; nodes: {NAME: {tls: {ca: ..., server_name: ...}}}",
)
def node_certificate(facts: Facts) -> Result:
    """The nodes'."""
    for node in facts.nodes:
        item = node.certificate
        if item is None:
            continue
        if item.fault and item.not_after is None:
            yield Unseen(f"certificate of {node.name}", item.fault)
            continue
        if item.fault:
            named = f"; it is for {listed(item.names)}" if item.names else ""
            yield Found(node.name, f"not accepted: {item.fault}{named}", severity=Severity.ERROR)
        yield from _expiry(facts, item)
