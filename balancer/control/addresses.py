"""Names of nodes to addresses: workers never ask a name server, so control does and tells them what changed."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address

LOOKUP_S = 3.0
REFRESH_S = 30.0  # system resolvers do not tell a TTL; a lookup is one packet to the local stub


class Addresses:
    """The address that each name stands for now."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self.faults: dict[str, str] = {}  # name -> why it has no address

    def of(self, host: str) -> str:
        """Return the address for `host`: itself when it is one, "" while the name does not resolve."""
        return host if is_literal(host) else self._known.get(host, "")

    async def look_up(self, hosts: Iterable[str]) -> list[str]:
        """Resolve the names among `hosts`; returns those with another address. A failed lookup keeps the last one."""
        names = sorted({host for host in hosts if host and not is_literal(host)})
        answers = await asyncio.gather(*(_resolve(name) for name in names))
        changed = []
        for name, (found, fault) in zip(names, answers, strict=True):
            self.faults.pop(name, None)
            if fault:
                self.faults[name] = fault
            elif self._known.get(name) not in found:
                self._known[name] = found[0]
                changed.append(name)
        return changed

    async def run(self, hosts: Callable[[], Iterable[str]], changed: Callable[[list[str]], None]) -> None:
        """Look all names up again and again until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            found = await self.look_up(hosts())
            if found:
                changed(found)


async def _resolve(name: str) -> tuple[list[str], str]:
    try:
        async with asyncio.timeout(LOOKUP_S):
            loop = asyncio.get_running_loop()
            infos = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        return [], f"the name {name} was not resolved within {LOOKUP_S:g} s"
    except OSError as exc:
        return [], f"the name {name} does not resolve: {exc.strerror or exc}"
    return [str(info[4][0]) for info in infos], ""


def is_literal(host: str) -> bool:
    """Return whether `host` is an address and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
