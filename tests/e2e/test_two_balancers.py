"""Two balancers in front of the same nodes, each with its own state, aware of each other."""

import signal

from tests.e2e.conftest import Build
from tests.support.site import Site
from tests.support.waiting import until

DNS = {"dns": {"order": ["api1", "api2"], "failover": "manual", "failback": "manual"}}


def pair(build: Build) -> tuple[Site, Site]:
    """Two sites over the nodes of the first."""
    first, second = build(designated=DNS), build(designated=DNS)
    second.nodes = first.nodes
    for site, other in ((first, second), (second, first)):
        site.extra["peers"] = {"other": {"admin": f"unix:{other.folder}/admin.sock"}}
    first.start()
    second.write()
    second.serve()
    second.until_healthy(3)
    return first, second


def differences(site: Site) -> list[str] | None:
    """What the site says of its peer; None while it has not asked, or could not."""
    (peer,) = site.admin("GET", "/v1/status")["peers"] or [None]
    return peer["differences"] if peer and peer["asked_at"] and not peer["fault"] else None


def test_two_balancers_share_nodes_and_say_in_what_they_differ(build: Build) -> None:
    first, second = pair(build)
    until(lambda: differences(first) == differences(second) == [])
    with first.load() as one, second.load() as two:
        first.cli("nodes", "drain", "api2")
        until(lambda: differences(second) == ["api2 is healthy here, drained there"])
        until(lambda: differences(first) == ["api2 is drained here, healthy there"])
        assert "peer other: api2 is healthy here, drained there" in second.cli("status")
        until(lambda: told(second, "peer-differs"))
        second.cli("nodes", "drain", "api2")
        first.nodes["api2"].kill()  # drained at both: nobody is hurt
        first.nodes["api2"].start()
        for site in (first, second):
            site.cli("nodes", "undrain", "api2")
        until(lambda: told(second, "peer-agrees"))
        results = one.stop(5), two.stop()
    for result in results:
        result.assert_clean()
        assert len(result.by_node) == 3
    for site in (first, second):
        site.assert_balanced()


def test_a_node_that_only_one_of_two_balancers_drained_is_not_safe_to_stop(build: Build) -> None:
    """The negative control of the test above: intents are each balancer's own."""
    first, second = pair(build)
    with second.load("--kinds", "later") as load:  # POSTs of 2 s, never re-sent
        first.cli("nodes", "drain", "api2")
        until(lambda: not in_flight(second, "api2"))
        until(lambda: in_flight(second, "api2"))  # one that has just begun, not one that is about to end
        first.nodes["api2"].kill()
        result = load.stop(2)
    assert result.failures


def test_designations_that_differ_and_a_peer_that_is_gone_are_told(build: Build) -> None:
    first, second = pair(build)
    first.cli("designate", "dns", "api2")
    until(lambda: any("dns is at api1 here" in text for text in differences(second) or []))
    second.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    assert second.process.wait(20) == 0  # type: ignore[union-attr]
    until(lambda: any("peer other: cannot be asked" in cause for cause in causes(first)))
    assert first.admin("GET", "/v1/status")["verdict"] == "healthy"


def told(site: Site, kind: str) -> bool:
    return any(event["kind"] == kind for event in site.admin("GET", "/v1/events")["events"])


def causes(site: Site) -> list[str]:
    found: list[str] = site.admin("GET", "/v1/status")["causes"]
    return found


def in_flight(site: Site, name: str) -> int:
    (node,) = (node for node in site.admin("GET", "/v1/nodes")["nodes"] if node["name"] == name)
    found: int = node["in_flight"]
    return found
