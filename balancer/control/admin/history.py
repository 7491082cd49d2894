"""The history over HTTP: once, or as it goes on."""

import asyncio
import json
from typing import Any

from aiohttp import web

from balancer.control.admin.app import Call
from balancer.control.admin.services import Services, number
from balancer.control.events import Event, event_document

EVENTS = "arv-balance/events/v1"
HEARTBEAT_S = 15.0


class EventRoutes:
    """The history, once or as it goes on."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def events(self, call: Call) -> Any:
        """Return the newest events, or follow them as lines or as server-sent events."""
        query = call.request.query
        last_seen = {"after": call.request.headers.get("Last-Event-ID") or "0"}  # of a browser that comes back
        found = self._services.events.recent(
            limit=number(query, "limit", 200),
            after=number({**last_seen, **query}, "after", 0),
            node=query.get("node", ""),
            kind=query.get("kind", ""),
        )
        if "follow" not in query:
            return {"schema": EVENTS, "events": [event_document(event) for event in found]}
        return await self._follow(call, found)

    async def _follow(self, call: Call, found: list[Event]) -> web.StreamResponse:
        """Send events until the other side leaves; an empty line every few seconds keeps the way open."""
        as_sse = "text/event-stream" in call.request.headers.get("Accept", "")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        response.content_type = "text/event-stream" if as_sse else "application/jsonl"
        form = _as_sse if as_sse else _as_line
        async with self._services.events.follow() as queue:
            await response.prepare(call.request)
            for event in found:
                await response.write(form(event))
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        event = await queue.get()
                except TimeoutError:
                    await response.write(b": \n\n" if as_sse else b"\n")
                    continue
                await response.write(form(event))


def _as_line(event: Event) -> bytes:
    return json.dumps(event_document(event), separators=(",", ":")).encode() + b"\n"


def _as_sse(event: Event) -> bytes:
    return f"id: {event.number}\nevent: {event.kind}\ndata: ".encode() + _as_line(event) + b"\n"
