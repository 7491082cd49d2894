"""Other balancers in front of the same nodes."""

from balancer.control.doctor.facts import Facts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen, unseen

topic = Topic("peers", lambda facts: bool(facts.config.peers))


@topic.rule(
    "peers-disagree",
    Severity.ERROR,
    looks_at="In what the balancers of `peers:` differ from this one: version, nodes, drains, pause, designations.",
    risk="A node that is drained here still gets requests there; pings go to two nodes.",
    fix="do the same on both: arv-balance nodes ..., pause, designate; the same configuration file",
)
def peers_disagree(facts: Facts) -> Result:
    """What the running balancer sees of them."""
    if facts.status is None:
        yield from unseen("peers", facts.status_fault)
        return
    for peer in facts.status["peers"]:
        if not peer["admin"]:
            yield Unseen(f"peer {peer['name']}", f"peers: {{{peer['name']}: {{admin: ...}}}} is not set")
        elif peer["fault"]:
            yield Found(peer["name"], peer["fault"], severity=Severity.WARNING)
        for difference in peer["differences"]:
            yield Found(peer["name"], difference)
