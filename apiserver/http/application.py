"""The web application of a node: health, numbers and discovery at once; all else through limiter and dispatcher."""

import asyncio
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import hdrs, web

from apiserver.discovery import MAX_AGE_S, Document
from apiserver.dispatch import Answer, Dispatcher, Request
from apiserver.errors import ApiError, NotFoundError, StoreError, UnavailableError
from apiserver.http.limiter import INTERACTIVE_PRIORITY, LOCK_PRIORITY, Limiter, TurnedAwayError
from apiserver.http.metrics import Metrics
from apiserver.http.request import Network, Parsed, facts, parameters, parse, request_id
from apiserver.http.routing import Match, Router
from apiserver.monitor import Monitor
from apiserver.settings import Settings

logger = logging.getLogger("apiserver.access")
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, X-Http-Method-Override, Idempotency-Key",
    "Access-Control-Expose-Headers": "Content-Range, X-Request-Id",
    "Access-Control-Max-Age": "86486400",
}
_JSON = "application/json"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Page = Callable[[web.Request, str], Awaitable[web.Response]]  # the request and its id


@dataclass(frozen=True, slots=True)
class Parts:
    """What an application is put together of."""

    settings: Settings
    router: Router
    dispatcher: Dispatcher
    monitor: Monitor
    metrics: Metrics
    limiter: Limiter
    documents: Mapping[str, Document]  # by path: discovery, config, vocabulary
    trusted: tuple[Network, ...]
    wrappers: frozenset[str]
    websocket: Handler | None = None
    pages: Mapping[str, Page] = field(default_factory=dict)  # by path


@dataclass(slots=True)
class _Trace:
    """What the access log says about one request."""

    identity: str
    started: float
    operation: str = ""
    queries: int = 0
    queue_s: float = 0.0
    user: str = ""
    error: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Application:
    """Answers requests; holds no state that another node would need."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._fixed: dict[str, Handler] = {
            "/_health/ping": self._health,
            "/metrics": self._metrics,
            "/_inspect/requests": self._inspect,
        }
        self._open: dict[str, _Trace] = {}

    def build(self) -> web.Application:
        """Return the application for a runner."""
        application = web.Application(client_max_size=self._parts.settings.api.max_request_size)
        application.router.add_route("*", "/{tail:.*}", self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request: id, deadline, access log and error envelope are the same for all."""
        loop = asyncio.get_running_loop()
        trace = _Trace(request_id(request), loop.time())
        self._open[trace.identity] = trace
        try:
            endless = request.rel_url.path == "/websocket"
            async with asyncio.timeout(None if endless else self._parts.settings.api.request_timeout_s):
                response = await self._route(request, trace)
        except ApiError as exc:
            response = self._failed(exc, trace)
        except TimeoutError:
            response = self._failed(StoreError("the request took too long"), trace)
        except web.HTTPException as exc:
            response = self._failed(_as_ours(exc), trace)
        except Exception as exc:
            logger.exception("request failed", extra={"request_id": trace.identity})
            response = self._failed(StoreError(f"internal error: {type(exc).__name__}"), trace)
        finally:
            self._open.pop(trace.identity, None)
        if not isinstance(response, web.WebSocketResponse):
            self._finish(request, response, trace)
        self._log(request, response, trace, loop.time() - trace.started)
        return response

    def _finish(self, request: web.Request, response: web.StreamResponse, trace: _Trace) -> None:
        response.headers["X-Request-Id"] = trace.identity
        if not request.rel_url.path.startswith(("/login", "/logout", "/auth")):
            response.headers.update(CORS)
        if self._parts.monitor.stopping:
            response.force_close()

    async def _route(self, request: web.Request, trace: _Trace) -> web.StreamResponse:
        path = request.rel_url.path
        if fixed := self._fixed.get(path):
            trace.operation = path
            return await fixed(request)
        if request.method == "OPTIONS":
            return web.Response(status=200)
        if document := self._parts.documents.get(path):
            trace.operation = path
            return _document(request, document)
        if path.startswith("/discovery/"):
            raise NotFoundError("Path not found: unknown API name or version")
        if page := self._parts.pages.get(path):
            trace.operation = path
            self._require_healthy()
            return await page(request, trace.identity)
        if path == "/websocket" and self._parts.websocket is not None:
            trace.operation = path
            return await self._parts.websocket(request)
        return await self._operate(request, trace)

    def _require_healthy(self) -> None:
        if error := self._parts.monitor.error():
            raise UnavailableError(error)

    async def _operate(self, request: web.Request, trace: _Trace) -> web.Response:
        self._require_healthy()
        settings = self._parts.settings
        lock = request.rel_url.path.endswith("/lock")
        priority = LOCK_PRIORITY if lock else INTERACTIVE_PRIORITY if "Origin" in request.headers else 0
        parsed = await parse(request, settings.api.max_request_size)
        queued_at = asyncio.get_running_loop().time()
        try:
            async with self._parts.limiter.slot(
                priority,
                timeout_s=settings.api.max_queue_time_for_lock_requests_s if lock else None,
                is_gone=lambda: request.transport is None or request.transport.is_closing(),
            ):
                trace.queue_s = asyncio.get_running_loop().time() - queued_at
                answer = await self._run(request, parsed, trace)
        except TurnedAwayError as exc:
            self._parts.metrics.queue_timeouts.inc()
            trace.error = exc.message
            return web.Response(status=503, headers={"Retry-After": "1"})
        if not answer.body:
            return web.Response(status=answer.status)
        return web.Response(status=answer.status, body=answer.body, content_type=_JSON, charset="utf-8")

    async def _run(self, request: web.Request, parsed: Parsed, trace: _Trace) -> Answer:
        parts = self._parts
        match = parts.router.find(parsed.method, request.rel_url.raw_path)
        name = f"{match.operation.resource}.{match.operation.name}"
        trace.operation = name
        if name in parts.settings.api.disabled_apis:
            raise NotFoundError("Disabled")
        try:
            answer = await parts.dispatcher.run(self._request(request, parsed, match, trace))
        except (StoreError, UnavailableError) as exc:
            parts.metrics.database_errors.labels(type(exc).__name__).inc()
            raise
        trace.queries, trace.user = answer.queries, answer.user_uuid
        parts.metrics.retries.inc(answer.retries)
        if answer.replayed:
            parts.metrics.replays.inc()
            trace.extra["replayed"] = True
        return answer

    def _request(self, request: web.Request, parsed: Parsed, match: Match, trace: _Trace) -> Request:
        return Request(
            match.operation,
            match.uuid,
            parameters(parsed, self._parts.wrappers),
            parsed.credentials,
            facts(request, parsed, trace.identity, self._parts.trusted),
            request.headers.get("Idempotency-Key", "")[:256],
        )

    def _failed(self, exc: ApiError, trace: _Trace) -> web.Response:
        trace.error = exc.message
        body = {
            "errors": [f"{exc.message} ({trace.identity})"],
            "error_token": f"{int(datetime.now(UTC).timestamp())}+{secrets.token_hex(4)}",
        }
        headers = {"Retry-After": "1"} if exc.status == 503 else {}
        text = json.dumps(body, ensure_ascii=True)
        return web.Response(status=exc.status, text=text, content_type=_JSON, headers=headers)

    def _log(self, request: web.Request, response: web.StreamResponse, trace: _Trace, took: float) -> None:
        operation = trace.operation or "none"
        self._parts.metrics.requests.labels(operation, str(response.status)).inc()
        self._parts.metrics.duration.labels(operation).observe(took)
        logger.info(
            "request",
            extra={
                "request_id": trace.identity,
                "method": request.method,
                "path": request.rel_url.raw_path,
                "operation": trace.operation,
                "status": response.status,
                "took_s": round(took, 6),
                "queue_s": round(trace.queue_s, 6),
                "queries": trace.queries,
                "user": trace.user,
                **({"error": trace.error} if trace.error else {}),
                **trace.extra,
            },
        )

    # -- health and numbers

    async def _health(self, request: web.Request) -> web.Response:
        """Answer 200 with OK or ERROR; a balancer has to read the body."""
        token = self._parts.settings.management_token
        if not token:
            return web.Response(status=404, text="disabled\n")
        given = request.headers.get(hdrs.AUTHORIZATION)
        if given is None:
            return web.Response(status=401, text="authorization required\n")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {token}".encode()):
            return web.Response(status=403, text="authorization error\n")
        error = self._parts.monitor.error()
        body = {"health": "ERROR", "error": error} if error else {"health": "OK"}
        return web.Response(text=json.dumps(body, separators=(",", ":")) + "\n", content_type=_JSON)

    async def _metrics(self, request: web.Request) -> web.Response:
        self._require_management(request)
        return web.Response(body=self._parts.metrics.text(), content_type="text/plain", charset="utf-8")

    async def _inspect(self, request: web.Request) -> web.Response:
        self._require_management(request)
        now = asyncio.get_running_loop().time()
        found = [
            {"RequestID": trace.identity, "Operation": trace.operation, "Elapsed": round(now - trace.started, 3)}
            for trace in self._open.values()
        ]
        return web.json_response(found)

    def _require_management(self, request: web.Request) -> None:
        token = self._parts.settings.management_token
        if not token:
            raise NotFoundError("disabled: no management token is configured")
        given = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
            raise web.HTTPForbidden if given else web.HTTPUnauthorized


def _as_ours(exc: web.HTTPException) -> ApiError:
    error = ApiError(exc.reason)
    error.status = exc.status
    return error


def _document(request: web.Request, document: Document) -> web.Response:
    headers = {"ETag": document.etag, "Cache-Control": f"max-age={MAX_AGE_S}, public"}
    with suppress(ValueError):
        if any(f'"{tag.value}"' == document.etag for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
    return web.Response(body=document.body, content_type=_JSON, charset="utf-8", headers=headers)
