"""A plain reverse proxy on aiohttp, as a yardstick: `python -P -m bench.aiohttp_proxy SETTINGS.json`."""

import asyncio
import itertools
import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import aiohttp
from aiohttp import web

_NOT_COPIED = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "x-request-id"}
)
_CHUNK_BYTES = 64 << 10


class Proxy:
    """Forwards each request to the next node."""

    def __init__(self, session: aiohttp.ClientSession, nodes: list[str], log: TextIO) -> None:
        self._session, self._log = session, log
        self._nodes: Iterator[str] = itertools.cycle(nodes)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer one request from a node."""
        started = time.monotonic()
        request_id = request.headers.get("X-Request-Id") or str(uuid.uuid4())
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_COPIED}
        headers |= {
            "X-Request-Id": request_id,
            "X-Forwarded-For": request.remote or "",
            "X-Forwarded-Proto": request.scheme,
        }
        node = next(self._nodes)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._tunnel(request, node)
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, node + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            ttfb = time.monotonic() - started
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_COPIED}
            response = web.StreamResponse(status=answer.status, headers=kept | {"X-Request-Id": request_id})
            await response.prepare(request)
            size = 0
            async for data in answer.content.iter_chunked(_CHUNK_BYTES):
                size += len(data)
                await response.write(data)
            await response.write_eof()
        self._write_line(request, answer.status, size, request_id, node, (time.monotonic() - started, ttfb))
        return response

    async def _tunnel(self, request: web.Request, node: str) -> web.StreamResponse:
        downstream = web.WebSocketResponse(max_msg_size=0, compress=False)
        await downstream.prepare(request)
        async with (
            self._session.ws_connect(node + request.raw_path, max_msg_size=0, compress=0) as upstream,
            asyncio.TaskGroup() as pumps,
        ):
            pumps.create_task(_pump(downstream, upstream))
            pumps.create_task(_pump(upstream, downstream))
        return downstream

    def _write_line(
        self, request: web.Request, status: int, size: int, request_id: str, node: str, times: tuple[float, float]
    ) -> None:
        line = {
            "timestamp": time.time(),
            "client": request.remote,
            "method": request.method,
            "target": request.raw_path,
            "protocol": f"HTTP/{request.version.major}.{request.version.minor}",
            "status": status,
            "bytes_in": request.content_length or 0,
            "bytes_out": size,
            "duration": times[0],
            "ttfb": times[1],
            "user_agent": request.headers.get("User-Agent", ""),
            "request_id": request_id,
            "node": node,
        }
        self._log.write(json.dumps(line) + "\n")


_Side = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Side, sink: _Side) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
    await sink.close()


async def main(settings_path: str) -> None:
    """Serve until killed."""
    settings = json.loads(await asyncio.to_thread(Path(settings_path).read_text))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings["pem"])
    log = await asyncio.to_thread(open, os.devnull, "w", 64 << 10)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{rest:.*}", Proxy(session, settings["nodes"], log).forward)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, keepalive_timeout=3600)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", settings["port"], backlog=4096).start()
        await web.TCPSite(runner, "127.0.0.1", settings["tls_port"], ssl_context=context, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
