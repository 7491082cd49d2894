"""`/websocket`: subscriptions of one client, events out, replay of what it missed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from apiserver.auth import Authenticator, Credentials, Viewer
from apiserver.errors import ApiError, InvalidError
from apiserver.events import Pump, Subscriber, horizon, replay, shown, wanted
from apiserver.settings import Settings
from apiserver.store.pool import Row, Store

MAX_FRAME = 2 << 20
MAX_SUBSCRIPTION = 1 << 16  # they are kept, also for those without a token
MAX_SUBSCRIPTIONS = 100
MAX_LOG_ID = 2**63 - 1


class Websockets:
    """Serves all websocket clients of a node."""

    def __init__(
        self, settings: Settings, store: Store, authenticator: Authenticator, pump: Pump, *, sent: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._store = store
        self._authenticator = authenticator
        self._pump = pump
        self._sent = sent
        self._open: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it or we leave; a bad token may connect and gets nothing."""
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, heartbeat=None)
        await socket.prepare(request)
        viewer = await self._viewer(request)
        queue: asyncio.Queue[Row] = asyncio.Queue(self._settings.api.websocket_client_event_queue)
        subscriber = Subscriber(viewer, queue)
        self._open.add(socket)
        try:
            await _Connection(self, socket, subscriber).run()
        finally:
            self._open.discard(socket)
            self._pump.remove(subscriber)
        return socket

    async def _viewer(self, request: web.Request) -> Viewer | None:
        token = request.query.get("api_token", "")
        if not token:
            return None
        try:
            async with self._store.session() as session:
                path = "/websocket"
                return await self._authenticator.viewer(session, Credentials((token,)), "GET", path)
        except ApiError:
            return None

    async def close(self) -> None:
        """Tell all clients that this node goes away; they reconnect elsewhere and ask for what they missed."""
        for socket in list(self._open):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"node is stopping")

    @property
    def count(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    @property
    def pump(self) -> Pump:
        """Where events come from."""
        return self._pump

    @property
    def store(self) -> Store:
        """Where replays are read."""
        return self._store

    @property
    def idle_s(self) -> float:
        """After how much silence `{}` is sent."""
        return self._settings.api.send_timeout_s

    def note_sent(self) -> None:
        """Count an event."""
        self._sent()


class _Connection:
    """One client: a reader of requests and a writer of answers and events."""

    def __init__(self, server: Websockets, socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
        self._server = server
        self._socket = socket
        self._subscriber = subscriber
        self._numbers = 0
        self._replaying = asyncio.Lock()

    async def run(self) -> None:
        """Serve until the socket closes."""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(), name="websocket-writer")
            watcher = tasks.create_task(self._watch(), name="websocket-watcher")
            try:
                async for message in self._socket:
                    if message.type is WSMsgType.TEXT:
                        await self._request(message.data)
                    elif message.type is WSMsgType.BINARY:
                        await self._answer(400)
            finally:
                writer.cancel()
                watcher.cancel()

    async def _watch(self) -> None:
        """Close the connection of a client that cannot keep up."""
        await self._subscriber.overflowed.wait()
        await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")

    async def _request(self, text: str) -> None:
        try:
            request = json.loads(text) if len(text) <= MAX_SUBSCRIPTION else None
            if not isinstance(request, dict):
                raise InvalidError("a request must be a small object")
            await self._do(request)
        except (ValueError, RecursionError, ApiError):
            await self._answer(400)

    async def _do(self, request: dict[str, Any]) -> None:
        filters = request.get("filters") or []
        match request.get("method"):
            case "subscribe":
                await self._subscribe(filters, request.get("last_log_id"))
            case "unsubscribe":
                before = len(self._subscriber.subscriptions)
                kept = [pair for pair in self._subscriber.subscriptions if pair[0] != filters]
                self._subscriber.subscriptions[:] = kept
                await self._answer(200 if len(kept) < before else 400)
            case _:
                await self._answer(400)

    async def _subscribe(self, filters: Any, last_log_id: Any) -> None:
        test = wanted(filters)
        if len(self._subscriber.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise InvalidError("too many subscriptions")
        async with self._replaying:
            self._subscriber.subscriptions.append((filters, test))
            # From here on the pump delivers; what lies before this position is replayed, so nothing comes twice.
            async with self._server.store.session() as session:
                since = await horizon(session)
            upto = await self._server.pump.add(self._subscriber, since)
            await self._answer(200)
            if isinstance(last_log_id, int) and not isinstance(last_log_id, bool) and 0 < last_log_id <= MAX_LOG_ID:
                alone = Subscriber(self._subscriber.viewer, asyncio.Queue(), [(filters, test)])
                async with self._server.store.session() as session:
                    missed = await replay(session, alone, last_log_id, upto)
                for row in missed:
                    await self._send(row)

    async def _write(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._server.idle_s):
                    row = await self._subscriber.queue.get()
            except TimeoutError:
                await self._text("{}")
                continue
            async with self._replaying:
                await self._send(row)

    async def _send(self, row: Row) -> None:
        self._numbers += 1
        await self._text(json.dumps({"msgID": self._numbers, **shown(row)}))
        self._server.note_sent()

    async def _answer(self, status: int) -> None:
        await self._text(json.dumps({"status": status}))

    async def _text(self, text: str) -> None:
        if not self._socket.closed:
            try:
                await self._socket.send_str(text)
            except ConnectionError:
                await self._socket.close()
