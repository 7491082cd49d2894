"""The name server of a demo, and how its records are looked at."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from balancer.demo.files import DNS_KEY, REVERSE_ZONE
from balancer.demo.layout import DOMAIN, Layout
from dnsupdate.authority import Authority
from dnsupdate.exchange import Channel, Peer
from dnsupdate.keys import Key
from dnsupdate.service import wall_clock
from dnsupdate.zone import Zone


@asynccontextmanager
async def authority(layout: Layout, secret: bytes) -> AsyncIterator[Authority]:
    """Serve the zones of the demo, empty at first."""
    key = Key(f"{DNS_KEY}.", "hmac-sha256", secret)
    server = Authority([Zone(f"{DOMAIN}."), Zone(f"{REVERSE_ZONE}.")], [key], clock=wall_clock)
    async with server.serve("127.0.0.1", layout.dns):
        yield server


async def addresses(layout: Layout, name: str) -> list[str]:
    """Ask the name server for a host's addresses; empty when it does not answer."""
    async with Channel(Peer(address="127.0.0.1", port=layout.dns, timeout_s=2.0), wall_clock) as channel:
        reply = (await channel.query((f"{name}.{DOMAIN}.", "A")))[0]
    return list(reply.answer.data("A")) if reply.answer is not None else []


def dig_words(layout: Layout, name: str) -> list[str]:
    """Return the command line by which people ask for a host."""
    return ["dig", "@127.0.0.1", "-p", str(layout.dns), f"{name}.{DOMAIN}", "+noall", "+answer"]


async def dig(layout: Layout, name: str) -> tuple[str, str]:
    """Return a command that shows a host's records, and what it prints. Without `dig` we ask, and that is said."""
    words = dig_words(layout, name)
    if shutil.which("dig") is None:
        found = await addresses(layout, name)
        lines = "\n".join(f"{name}.{DOMAIN}. A {address}" for address in found)
        return f"{' '.join(words)}   (dig is not installed; asked by dnspython)", lines
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return " ".join(words), output.decode().strip()
