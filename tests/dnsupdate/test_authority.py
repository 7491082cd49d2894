"""The embedded name server as resolvers see it."""

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from dnsupdate.authority import Authority
from dnsupdate.service import wall_clock
from dnsupdate.zone import Zone


@pytest.mark.parametrize("ask", [dns.asyncquery.udp, dns.asyncquery.tcp])
async def test_queries_are_answered_over_udp_and_tcp(ask: object) -> None:
    assert callable(ask)
    async with Authority([Zone("cluster.example.")], [], clock=wall_clock).serve() as port:
        for name, rcode in (("cluster.example.", dns.rcode.NOERROR), ("none.cluster.example.", dns.rcode.NXDOMAIN)):
            answer = await ask(dns.message.make_query(name, "SOA"), "127.0.0.1", port=port, timeout=5)
            assert answer.rcode() == rcode
            assert answer.flags & dns.flags.AA
