"""Trace and whatif on the log of a real balancer."""

import json
import threading
import time
from datetime import UTC, datetime

import pytest

from tests.e2e.conftest import Build
from tests.support.site import Site
from tests.support.waiting import until


def test_a_parked_request_is_traced_with_the_lines_of_its_node(build: Build) -> None:
    site = build(nodes=1, workers=1)
    site.start()
    site.admin("POST", "/v1/pause", {"for": 30})
    asking = threading.Thread(target=site.ask, args=("GET", "/a"), kwargs={"headers": {"X-Request-Id": "req-traced"}})
    asking.start()
    until(lambda: site.admin("GET", "/v1/pause")["parked"] == 1)
    site.admin("POST", "/v1/resume", {})
    asking.join()
    begun = time.clock_gettime(time.CLOCK_REALTIME)
    until(lambda: [line for line in site.log_lines() if line["request_id"] == "req-traced"])
    said = {"time": datetime.fromtimestamp(begun - 3600, UTC).isoformat(), "msg": "seen", "RequestID": "req-traced"}
    node_log = site.folder / "api1.json"
    node_log.write_text(json.dumps(said) + "\n" + json.dumps(said | {"RequestID": "other"}) + "\n")
    log = str(site.folder / "access.log")
    output = site.cli("trace", "req-traced", "--log", log, "--node-log", f"api1={node_log}")
    lines = [line.split(" ms  ")[1] for line in output.splitlines()[1:-1]]
    assert [line.split()[0] for line in lines] == ["balancer", "balancer", "api1", "balancer", "balancer"]
    assert "for the end of a pause" in lines[1]
    assert "clock of api1: 3600" in output.splitlines()[-1] or "clock of api1: 3599" in output.splitlines()[-1]
    collected = json.loads(
        site.cli("trace", "req-traced", "--log", log, "--collect", f"grep {{id}} {site.folder}/{{node}}.json", "--json")
    )
    assert (collected["node_lines"], collected["exchanges"][0]["nodes"]) == (1, ["api1"])
    assert "in none of these logs" in site.cli("trace", "req-nobody", "--log", log, code=1)
    predicted = json.loads(site.cli("whatif", "--log", log, "--nodes", "2", "--json"))
    assert predicted["predicted"]["requests"] == predicted["logged"]["requests"] >= 1


@pytest.mark.slow
def test_the_p99_of_a_smaller_cluster_is_predicted_within_a_quarter(build: Build) -> None:
    """Three nodes' log predicts what one of them makes of the same arrivals."""
    big, small = build(nodes=3, workers=1), build(nodes=1, workers=1)
    for site in (big, small):
        nodes = site.nodes.items()
        site.extra["nodes"] = {name: {"url": f"http://127.0.0.1:{node.port}", "capacity": 2} for name, node in nodes}
        site.start()
        run_open_loop(site)
    predicted = json.loads(
        big.cli("whatif", "--log", str(big.folder / "access.log"), "--nodes", "1", "--capacity", "2", "--json")
    )["predicted"]
    times = sorted(line["http.server.request.duration"] for line in small.log_lines())
    real_p99 = times[int(len(times) * 0.99)]
    assert real_p99 > 1.0  # it did queue
    assert predicted["p99_s"] == pytest.approx(real_p99, rel=0.25)


def run_open_loop(site: Site) -> None:
    """180 requests in 6 s that take 100 ms each, whatever becomes of those before."""
    threads = []
    began = time.monotonic()
    for number in range(180):
        time.sleep(max(0.0, began + number / 30 - time.monotonic()))
        threads.append(threading.Thread(target=site.ask, args=("GET", "/x?delay=0.1")))
        threads[-1].start()
    for thread in threads:
        thread.join()
