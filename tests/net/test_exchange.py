"""Plain exchanges through a real worker."""

import http.client

from balancer.scoreboard import W_ACCEPTED, W_OUT_NODE
from tests.support.upstream import Upstream
from tests.support.worker import running, snapshot_of, wait_until


def test_requests_on_one_connection_go_round_the_nodes() -> None:
    with Upstream(name="a") as a, Upstream(name="b") as b, running(snapshot_of(a.port, b.port)) as worker:
        client = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=5)
        bodies = []
        for _ in range(10):
            client.request("GET", "/x?y=1", headers={"Accept": "*/*"})
            response = client.getresponse()
            assert response.status == 200
            bodies.append(response.read())
        client.close()
        assert sorted(bodies) == [b"a\n"] * 5 + [b"b\n"] * 5
        assert (a.connections, b.connections) == (1, 1)
        assert len(worker.log_lines(10)) == 10
        wait_until(lambda: worker.board.cell(W_OUT_NODE) == 10)
        assert worker.board.cell(W_ACCEPTED) == 10
