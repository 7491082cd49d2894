"""One way to use the embedded authority, BIND and Knot in tests."""

import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from dnsupdate.authority import Authority, Faults
from dnsupdate.exchange import Peer
from dnsupdate.keys import Key
from dnsupdate.zone import Zone
from tests.support import nameservers
from tests.support.nameservers import KEY, OTHER_KEY, NameServer
from tests.support.programs import need

FORWARD, REVERSE = "cluster.example.", "2.0.192.in-addr.arpa."
REVERSE6 = "8.b.d.0.1.0.0.2.ip6.arpa."
CLASSLESS = "0-63.113.0.203.in-addr.arpa."
ZONES = (FORWARD, REVERSE, REVERSE6, CLASSLESS)


def wall() -> float:
    return datetime.now(UTC).timestamp()


@dataclass
class Target:
    """A server under test."""

    kind: str
    port: int
    authority: Authority | None = None
    process: NameServer | None = None

    @cached_property
    def version(self) -> tuple[int, ...]:
        """Major and minor number of the program."""
        command = {"knot": ("knotd", "--version"), "powerdns": ("pdns_server", "--version")}[self.kind]
        # PowerDNS 4.7 ends with 99 after it has told its version.
        said = subprocess.run([need(command[0]), command[1]], capture_output=True, text=True, check=False, timeout=30)
        found = re.search(r"(\d+)\.(\d+)\.", said.stdout + said.stderr)
        assert found is not None
        return tuple(map(int, found.groups()))

    def peer(self, key: Key | None = KEY, **more: object) -> Peer:
        return Peer(address="127.0.0.1", port=self.port, key=key, **{"timeout_s": 10.0, **more})  # type: ignore[arg-type]

    def records(self, zone: str) -> set[str]:
        """Everything in a zone but the apex."""
        if self.authority is not None:
            return next(one for one in self.authority.zones.values() if str(one.origin) == zone).texts()
        assert self.process is not None
        return self.process.transfer(zone)

    def hosts(self, zone: str) -> set[str]:
        """Everything in a zone that is not one of our marks."""
        return {line for line in self.records(zone) if "_dnsupdate" not in line}


@asynccontextmanager
async def builtin(faults: Faults | None = None, skew_s: float = 0.0, port: int = 0) -> AsyncIterator[Target]:
    zones = [Zone(zone) for zone in ZONES]
    authority = Authority(zones, [KEY, OTHER_KEY], clock=lambda: wall() + skew_s, faults=faults)
    async with authority.serve(port=port) as found:
        yield Target("builtin", found, authority=authority)


@contextmanager
def real(kind: str) -> Iterator[Target]:
    folder = Path(tempfile.mkdtemp(prefix=f"arv-test-{kind}-"))
    makes = {"bind": nameservers.bind, "knot": nameservers.knot, "powerdns": nameservers.powerdns}
    with nameservers.running(makes[kind](folder, ZONES)) as process:
        yield Target(kind, process.port, process=process)
