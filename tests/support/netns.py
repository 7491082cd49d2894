"""A network of its own for one process, which can be cut: packets vanish, connections stay, nobody is told.

Run as a program (`python netns.py PORT SOCKET`) it is the only host of that network: it passes connections to
127.0.0.1:PORT on to a Unix socket, which has no network. Its ends of the TCP connections notice a silent peer by
keepalive, as PostgreSQL's own ends do with the settings that nodes ask for, only sooner.
"""

import asyncio
import contextlib
import socket as sockets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 5432
KEEPALIVE = {
    sockets.TCP_KEEPIDLE: 3, sockets.TCP_KEEPINTVL: 1, sockets.TCP_KEEPCNT: 2, sockets.TCP_USER_TIMEOUT: 4000,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A running network; `inside` goes before a command to run it there."""

    holder: "subprocess.Popen[str]"

    @property
    def inside(self) -> Sequence[str]:
        return ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net")

    def _link(self, state: str) -> None:
        subprocess.run([*self.inside, "ip", "link", "set", "lo", state], check=True)

    def cut(self) -> None:
        self._link("down")

    def heal(self) -> None:
        self._link("up")


@contextmanager
def network(socket: Path) -> Iterator[Network]:
    """Make a network in which 127.0.0.1:5432 leads to a Unix socket."""
    script = f'ip link set lo up && exec "{sys.executable}" -P "{__file__}" {PORT} "{socket}"'
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        holder.stdout.close()
        yield Network(holder)
    finally:
        holder.kill()
        holder.wait()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _relay(port: int, socket: str) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own: sockets.socket = writer.get_extra_info("socket")
        own.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            own.setsockopt(sockets.IPPROTO_TCP, option, value)
        there, back = await asyncio.open_unix_connection(socket)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_relay(int(sys.argv[1]), sys.argv[2]))
