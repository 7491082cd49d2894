"""The dashboard's addresses: pages, their live parts, forms, log in and log out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from aiohttp import web

from balancer.control.admin.app import Gate
from balancer.control.admin.problem import ProblemError, from_error
from balancer.control.admin.services import Services, number
from balancer.control.dashboard.door import HEADERS, Door, LoginNeededError, Visitor, cookie_name, set_cookie
from balancer.control.dashboard.forms import Form, Forms
from balancer.control.dashboard.live import Broadcast, message
from balancer.control.dashboard.pages import Pages
from balancer.control.dashboard.scenes import Scene, Stage, render
from balancer.control.dashboard.sessions import Sessions, Tries
from balancer.control.events import event_document
from balancer.errors import BalanceError

logger = logging.getLogger(__name__)

FORM_BYTES = 16 << 10
REFRESH_S = 5  # of a page without scripts
SEND_S = 20.0  # a browser that takes nothing for so long is gone
ALL_EVENTS = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Visited = Callable[[web.Request, Visitor], Awaitable[web.StreamResponse]]


class Dashboard:
    """Everything below `/ui/`. `run` has to run in a task while it is served."""

    def __init__(self, services: Services, gate: Gate, sessions: Sessions, counted: Callable[[str, str], None]) -> None:
        self._services = services
        self._gate = gate
        self._sessions = sessions
        self._door = Door(gate, sessions)
        self._stage = Stage(services)
        self._forms = Forms(services, counted)
        self._tries = Tries()
        self._live = Broadcast(self._zones)
        self._made: Pages | None = None

    async def run(self) -> None:
        """Keep open pages live and carry out what outlasts a request, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live.run(), name="dashboard live")
            tasks.create_task(self._forms.run(), name="dashboard forms")

    def close(self) -> None:
        """End all streams, so that a server that stops need not wait for them."""
        self._live.close()

    def mount(self, app: web.Application) -> None:
        """Add the addresses to a server of the admin API."""
        router, page, visited = app.router, self._page, self._visited
        router.add_get("/", page(self._to_overview))
        router.add_get("/ui", page(self._to_overview))
        router.add_get("/ui/static/{name}", page(self._asset))
        router.add_get("/ui/login", page(self._login_page))
        router.add_post("/ui/login", page(self._log_in))
        router.add_post("/ui/logout", page(visited(self._log_out)))
        router.add_get("/ui/", page(visited(self._overview)))
        router.add_get("/ui/live", page(visited(self._stream)))
        router.add_get("/ui/events", page(visited(self._events)))
        router.add_get("/ui/nodes/{node}", page(visited(self._node)))
        for path in (
            "/ui/nodes/{node}/{verb:drain|undrain|weight|remove|forget}",
            "/ui/{verb:pause|resume}",
            "/ui/designations/{designation}/{verb:designate}",
        ):
            router.add_get(path, page(visited(self._ask)))
            router.add_post(path, page(visited(self._do)))
        router.add_route("*", "/ui/{rest:.*}", page(visited(self._nowhere)))

    # --- what all of them do ------------------------------------------------------------------------------------

    def _page(self, handler: Handler) -> Handler:
        """Answer errors as pages, and add what every answer carries."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._door.check_host(request)
                response = await handler(request)
            except (ProblemError, BalanceError) as exc:
                response = await self._problem(exc if isinstance(exc, ProblemError) else from_error(exc))
            if not response.prepared:
                for name, value in HEADERS.items():
                    response.headers.setdefault(name, value)
            return response

        return handle

    def _visited(self, handler: Visited) -> Handler:
        """Let nobody in who is not logged in, and no form that is not ours."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                visitor = self._door.visitor(request)
            except LoginNeededError:
                if request.path == "/ui/live":
                    raise ProblemError(401, "nobody is logged in") from None
                return _go(f"/ui/login?next={quote(request.path)}" if request.method == "GET" else "/ui/login")
            return await handler(request, visitor)

        return handle

    async def _pages(self) -> Pages:
        if self._made is None:
            self._made = await asyncio.to_thread(Pages)
        return self._made

    async def _shown(
        self, template: str, visitor: Visitor | None, *, http_status: int = 200, **facts: Any
    ) -> web.Response:
        pages = await self._pages()
        shell = {
            "cluster": self._services.site.snapshot.cluster,
            "visitor": visitor,
            "form_token": visitor.form_token if visitor else "",
            "refresh_s": 0,
        }
        html = pages.render(template, **{**shell, **facts})
        return web.Response(status=http_status, text=html, content_type="text/html")

    async def _problem(self, problem: ProblemError) -> web.Response:
        facts = {"what": problem.what, "why": problem.why, "hint": problem.hint, "number": problem.status}
        return await self._shown("problem", None, http_status=problem.status, **facts)

    async def _form(self, request: web.Request, visitor: Visitor | None) -> Form:
        """Return what a form of ours was filled in with. Raises ProblemError for one that is not ours."""
        if (request.content_length or 0) > FORM_BYTES:
            raise ProblemError(413, "the form is too large")
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        if visitor is not None:
            self._door.check_form(visitor, form.get("form_token", ""))
        return form

    # --- pages --------------------------------------------------------------------------------------------------

    async def _to_overview(self, _request: web.Request) -> web.Response:
        return _go("/ui/")

    async def _nowhere(self, request: web.Request, _visitor: Visitor) -> web.Response:
        raise ProblemError(404, f"there is no page {request.path}")

    async def _asset(self, request: web.Request) -> web.Response:
        asset = (await self._pages()).assets.get(request.match_info["name"])
        if asset is None:
            raise ProblemError(404, "there is no such file")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=asset.content, content_type=asset.kind, charset="utf-8", headers=headers)

    async def _overview(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await self._scene(request, visitor, Scene(visitor.caller.role), "overview")

    async def _node(self, request: web.Request, visitor: Visitor) -> web.Response:
        name = request.match_info["node"]
        if self._services.site.node(name) is None:
            raise ProblemError(404, f"there is no node {name!r}", hint="the overview lists all of them")
        return await self._scene(request, visitor, Scene(visitor.caller.role, name), "node")

    async def _scene(self, request: web.Request, visitor: Visitor, scene: Scene, template: str) -> web.Response:
        facts = await self._stage.facts(scene)
        zones = render(await self._pages(), scene, facts)
        stands_still = "still" in request.query
        return await self._shown(
            template,
            visitor,
            zones=zones,
            notice=self._forms.notice(request, visitor),
            live=f"/ui/live?node={quote(scene.node)}" if scene.node else "/ui/live",
            here=request.path,
            refresh_s=0 if stands_still else REFRESH_S,
            stands_still=stands_still,
            **facts,
        )

    async def _events(self, request: web.Request, visitor: Visitor) -> web.Response:
        node = request.query.get("node", "")
        found = self._services.events.recent(limit=number(request.query, "limit", ALL_EVENTS), node=node)
        events = [event_document(event) for event in reversed(found)]
        names = [item.name for item in self._services.site.snapshot.nodes]
        return await self._shown("events", visitor, events=events, node_name=node, names=names)

    # --- live ---------------------------------------------------------------------------------------------------

    async def _zones(self, scene: Scene) -> dict[str, str]:
        return render(await self._pages(), scene, await self._stage.facts(scene))

    async def _stream(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        """Send zones as they change until the browser leaves, its session ends or we stop."""
        scene = Scene(visitor.caller.role, request.query.get("node", ""))
        async with self._live.watch(scene) as viewer:
            response = web.StreamResponse(headers={**HEADERS, "X-Accel-Buffering": "no"})
            response.content_type = "text/event-stream"
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            with suppress(ConnectionError, TimeoutError):  # the browser has left, or takes nothing any more
                while not viewer.is_over:
                    zones = await viewer.take()
                    if not self._is_still(request, visitor):
                        break
                    async with asyncio.timeout(SEND_S):
                        await response.write(message(zones))
        return response

    def _is_still(self, request: web.Request, visitor: Visitor) -> bool:
        """Return whether the one who opened a stream may still see what it shows."""
        try:
            return self._door.visitor(request).caller == visitor.caller
        except (LoginNeededError, ProblemError):
            return False

    # --- acts ---------------------------------------------------------------------------------------------------

    async def _ask(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await self._question(request, visitor, {})

    async def _question(
        self, request: web.Request, visitor: Visitor, form: Form, fault: ProblemError | None = None
    ) -> web.Response:
        act = self._forms.act(request.match_info["verb"], visitor)
        question = await self._forms.question(request, visitor, act, form, fault)
        return await self._shown("ask", visitor, http_status=question.status, **question.facts)

    async def _do(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await self._form(request, visitor)
        act = self._forms.act(request.match_info["verb"], visitor)
        try:
            return _go(await self._forms.do(request, visitor, act, form))
        except ProblemError as exc:
            return await self._question(request, visitor, form, exc)

    # --- log in and out -----------------------------------------------------------------------------------------

    async def _login_page(self, request: web.Request) -> web.Response:
        return await self._shown("login", None, next=own_path(request.query.get("next", "")), fault="")

    async def _log_in(self, request: web.Request) -> web.Response:
        """Exchange a token, or a code that is good once, for a cookie."""
        form = await self._form(request, None)
        address, now_s = request.remote or "", self._services.site.parts.clock.monotonic()
        wait_s = self._tries.wait_s(address, now_s)
        if wait_s > 0:
            raise ProblemError(429, "too many wrong tokens from your address", hint=f"wait {wait_s:.0f} seconds")
        then = own_path(form.get("next", ""))
        cookie = await self._sessions.open(form.get("secret", "").strip(), self._gate.tokens())
        if cookie is None:
            self._tries.wrong(address, now_s)
            self._services.events.add(
                "login-refused", f"a wrong token or code from {address or 'the Unix socket'}", level="warning"
            )
            return await self._shown(
                "login", None, http_status=401, next=then, fault="This token or code is not known."
            )
        self._tries.right(address)
        caller = self._sessions.caller(cookie, self._gate.tokens())
        if caller is not None:
            text = f"{caller.name} logged in to the dashboard from {address or 'the Unix socket'}"
            self._services.events.add("logged-in", text, actor=caller.name)
        response = _go(then)
        set_cookie(response, request, cookie)
        return response

    async def _log_out(self, request: web.Request, visitor: Visitor) -> web.Response:
        await self._form(request, visitor)
        await self._sessions.close(visitor.cookie)
        response = _go("/ui/login")
        response.del_cookie(cookie_name(request), path="/ui/")
        return response


def own_path(path: str) -> str:
    """Return a path of the dashboard to go to after a login, the overview for anything else."""
    return path if path.startswith("/ui/") and "//" not in path and "\\" not in path else "/ui/"


def _go(where: str) -> web.Response:
    return web.Response(status=303, headers={"Location": where})
