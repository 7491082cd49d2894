"""A TLS front for one address, for clients that speak https only: bytes in, bytes out."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trustme


class TlsFront:
    """Listens on a loopback port and passes what it decrypts to `target`, which may be set later."""

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.target is not None
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_copy(reader, up_writer))
            tasks.create_task(_copy(up_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError, ssl.SSLError):
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def tls_front() -> AsyncIterator[TlsFront]:
    """Yield a front that listens; set its `target` before anyone connects."""
    front = TlsFront()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert, context)
    server = await asyncio.start_server(front._serve, "127.0.0.1", 0, ssl=context)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
