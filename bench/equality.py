"""Proof, before anything is measured, that a target does the work that is compared."""

import http.client

from bench.machine import BenchError
from bench.stage import Instance
from bench.targets.setup import BALANCES, FORWARDS_FOR, KEEPS_ID, MAKES_ID, WORK

_KEPT = "req-0123456789abcdefghij"


def prove(instance: Instance, nodes: int) -> None:
    """Raise BenchError when a target does less, or more, than its module says."""
    does = observed(instance, nodes)
    says = WORK - instance.target.cannot
    if does != says:
        less, more = sorted(says - does), sorted(does - says)
        raise BenchError(f"{instance.target.name} is not set up for equal work: lacks {less}, does besides {more}")


def observed(instance: Instance, nodes: int) -> frozenset[str]:
    """Return which parts of the work a target does. Its nodes answer /seen with what reached them."""
    does = set()
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=5)
    try:
        made, seen = _seen(connection, {})
        if made and seen[0] == made:
            does.add(MAKES_ID)
        kept, seen = _seen(connection, {"X-Request-Id": _KEPT})
        if kept == seen[0] == _KEPT:
            does.add(KEEPS_ID)
        if seen[1]:  # Envoy writes the machine's own address for a client on loopback
            does.add(FORWARDS_FOR)
        if len({_seen(connection, {})[1][2] for _ in range(nodes * 8)}) == nodes:
            does.add(BALANCES)
    finally:
        connection.close()
    return frozenset(does)


def _seen(connection: http.client.HTTPConnection, headers: dict[str, str]) -> tuple[str, list[str]]:
    connection.request("GET", "/seen", headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    if answer.status != 200:
        raise BenchError(f"/seen was answered {answer.status}")
    ids = answer.headers.get_all("X-Request-Id", [])
    return (ids[0] if len(ids) == 1 else ""), body.split("|")
