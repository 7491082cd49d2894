"""The admin API's HTTP side: who may do what, one table of routes, errors as problem objects."""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol

from aiohttp import web

from balancer.control.admin import problem
from balancer.control.admin.access import (
    Asked,
    Caller,
    Role,
    Token,
    check_origin,
    monitoring_caller,
    tcp_caller,
    unix_caller,
)
from balancer.control.admin.problem import ProblemError
from balancer.errors import BalanceError

logger = logging.getLogger(__name__)

BODY_BYTES = 1 << 20
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a handler gets it. `body` is the JSON object that was sent, {} when there was none."""

    caller: Caller
    request: web.Request
    body: dict[str, Any]

    def name(self, part: str) -> str:
        """Return a part of the path."""
        return self.request.match_info[part]


Handler = Callable[[Call], Awaitable[web.StreamResponse | dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route with everything that the description of the API says about it."""

    method: str
    path: str
    role: Role
    handler: Handler
    summary: str
    answer: Schema = field(default_factory=dict)  # JSON Schema; {} when the answer is no JSON
    body: Schema | None = None
    query: tuple[tuple[str, str], ...] = ()  # name, meaning
    content_type: str = "application/json"
    status: int = 200
    refusals: tuple[int, ...] = ()
    for_monitors: bool = False  # the cluster's management token opens it as well

    @property
    def action(self) -> str:
        """A short name: `nodes-drain`."""
        return "-".join(part for part in self.path.split("/") if part and part != "v1" and not part.startswith("{"))


@dataclass(frozen=True, slots=True)
class Gate:
    """Who comes in over TCP. `hosts`: names that this address is known by, beside loopback."""

    tokens: Callable[[], Sequence[Token]]
    hosts: Callable[[], Sequence[str]]
    management_token: Callable[[], bytes] = bytes


class Pages(Protocol):
    """What is served beside the endpoints: the dashboard."""

    def mount(self, app: web.Application) -> None:
        """Add its addresses."""
        ...

    def close(self) -> None:
        """End what never ends by itself: the server is about to stop."""
        ...


class Api:
    """Serves endpoints and pages on sockets. `counted` hears of every mutation: its action and its result."""

    def __init__(
        self, endpoints: Sequence[Endpoint], gate: Gate, counted: Callable[[str, str], None], pages: Pages | None = None
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._gate = gate
        self._counted = counted
        self._pages = pages
        self._runners: dict[str, web.AppRunner] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it serves."""
        return tuple(self._runners)

    async def serve(self, address: str, sock: socket.socket) -> None:
        """Serve on a listening socket, which becomes ours, until `stop`. `address` is its name."""
        app = web.Application(client_max_size=BODY_BYTES, middlewares=[_problems])
        for endpoint in self.endpoints:
            app.router.add_route(endpoint.method, endpoint.path, self._adapter(endpoint))
        if self._pages is not None:
            self._pages.mount(app)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners[address] = runner
        await web.SockSite(runner, sock).start()

    async def stop(self, address: str) -> None:
        """Stop serving at an address; what is under way there has a second to end."""
        if self._pages is not None:
            self._pages.close()
        await self._runners.pop(address).cleanup()

    async def close(self) -> None:
        """Stop serving everywhere."""
        for address in self.addresses:
            await self.stop(address)

    def _adapter(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            is_mutation = endpoint.method not in SAFE_METHODS
            try:
                caller = self._caller(request, endpoint)
                if caller.role < endpoint.role:
                    needed = endpoint.role.name.lower()
                    raise ProblemError(
                        403, f"{caller.name} may not do this", why=f"it needs the role {needed}", role=needed
                    )
                found = await endpoint.handler(Call(caller, request, await _body(request) if is_mutation else {}))
            except (ProblemError, BalanceError) as exc:
                if is_mutation:
                    self._counted(endpoint.action, "refused")
                raise exc if isinstance(exc, ProblemError) else problem.from_error(exc) from exc
            if is_mutation:
                self._counted(endpoint.action, "done")
            return found if isinstance(found, web.StreamResponse) else json_response(found, endpoint.status)

        return handle

    def _caller(self, request: web.Request, endpoint: Endpoint) -> Caller:
        sock = request.transport.get_extra_info("socket") if request.transport is not None else None
        what = asked(request)
        if sock is not None and sock.family == socket.AF_UNIX:
            if what.origin or what.fetch_site:  # a browser, by way of a forwarded socket: ssh -L 8081:/.../admin.sock
                check_origin(what, self._gate.hosts())
            return unix_caller(sock)
        if endpoint.role is Role.NOBODY:
            return Caller("anyone", Role.NOBODY)
        if endpoint.for_monitors:
            monitor = monitoring_caller(what, self._gate.management_token(), self._gate.hosts())
            if monitor is not None:
                return monitor
        return tcp_caller(what, self._gate.tokens(), self._gate.hosts())


def asked(request: web.Request) -> Asked:
    """Return what of a request decides who may do what."""
    return Asked(
        host=request.headers.get("Host", ""),
        origin=request.headers.get("Origin", ""),
        fetch_site=request.headers.get("Sec-Fetch-Site", ""),
        authorization=request.headers.get("Authorization", ""),
        is_mutation=request.method not in SAFE_METHODS,
        is_loopback=bool(request.remote) and ip_address(request.remote or "").is_loopback,
    )


def json_response(document: dict[str, Any], status: int = 200) -> web.Response:
    """Return a document as a response."""
    body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProblemError as exc:
        return problem.answer(exc)
    except web.HTTPException as exc:
        return problem.answer(_from_http(exc, request))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        logger.exception("admin request failed", extra={"action": f"{request.method} {request.path}"})
        return problem.answer(ProblemError(500, "an error inside arv-balance", why="it is in the log of the service"))


def _from_http(exc: web.HTTPException, request: web.Request) -> ProblemError:
    match exc.status:
        case 404:
            return ProblemError(404, f"there is no {request.path}", hint="GET /v1/openapi.json lists what there is")
        case 405:
            return ProblemError(405, f"{request.method} is not possible on {request.path}")
        case 413:
            return ProblemError(413, f"the body is larger than {BODY_BYTES >> 20} MiB")
        case status:
            return ProblemError(status, exc.reason)


async def _body(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    if not raw.strip():
        return {}
    if request.content_type != "application/json":
        raise ProblemError(415, "the body has to be JSON", hint="send Content-Type: application/json")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ProblemError(400, "the body is not JSON", why=str(exc)) from exc
    if not isinstance(found, dict):
        raise ProblemError(400, "the body has to be a JSON object")
    return found
