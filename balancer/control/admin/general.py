"""Status, configuration, ledger, metrics, and the health of the balancer itself over HTTP."""

from typing import Any

from aiohttp import web

from balancer.control.actions import UnknownNodeError
from balancer.control.admin.app import Call, json_response
from balancer.control.admin.problem import ProblemError
from balancer.control.admin.services import CODE_S, Document, Services
from balancer.control.admin.sockets import reached_by
from balancer.control.reload import InvalidConfigError, fault_document
from balancer.control.words import Verdict
from balancer.observe.series import SPANS, columns

CONFIG = "arv-balance/config/v1"
RELOAD = "arv-balance/reload/v1"
HEALTH = "arv-balance/health/v1"
SERIES = "arv-balance/series/v1"
LOGIN = "arv-balance/login/v1"


class GeneralRoutes:
    """Status, configuration, ledger, health of the balancer itself."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def livez(self, _call: Call) -> Document:
        """Answer at all."""
        return {"schema": HEALTH, "ok": True}

    async def readyz(self, _call: Call) -> Any:
        """Say whether enough nodes serve."""
        site, status = self._services.site, self._services.status
        serving = sum(node["serving"] for node in status.nodes()["nodes"])
        least = max(1, site.config.balance.min_serving)
        is_ready = serving >= least and not site.is_stopping
        answer = {"schema": HEALTH, "ok": is_ready, "serving": serving, "needed": least, "stopping": site.is_stopping}
        return json_response(answer, 200 if answer["ok"] else 503)

    async def healthz(self, call: Call) -> Any:
        """Say whether the cluster is healthy; with `verbose` each thing that was looked at."""
        status = self._services.status.cluster()
        is_up = status["verdict"] != Verdict.DOWN.value
        answer: Document = {"schema": HEALTH, "ok": is_up, "verdict": status["verdict"]}
        if "verbose" in call.request.query:
            last = status["config"]["last_reload"]
            answer["checks"] = [
                {"name": "config", "ok": last is None or last["ok"], "text": last["error"] if last else ""},
                {"name": "workers", "ok": bool(status["workers"]), "text": f"{len(status['workers'])} running"},
                *(
                    {"name": f"node {node['name']}", "ok": node["serving"], "text": node["state"]}
                    for node in status["nodes"]
                ),
            ]
        return json_response(answer, 200 if is_up else 503)

    async def ping(self, _call: Call) -> Document:
        """Answer as Arvados' own services do: 200 in any case, the body tells."""
        status = self._services.status
        if status.verdict() is Verdict.DOWN:
            return {"health": "ERROR", "error": "no node can serve"}
        return {"health": "OK"}

    async def metrics(self, call: Call) -> web.Response:
        """Return the exposition for Prometheus."""
        body, content_type = self._services.metrics(call.request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, _call: Call) -> Document:
        """Return everything."""
        return self._services.status.cluster()

    async def ledger(self, _call: Call) -> Document:
        """Return how exchanges ended."""
        return self._services.status.ledger()

    async def series(self, call: Call) -> Document:
        """Return traffic over time, of a node or of the whole cluster."""
        span, name = call.request.query.get("span", "minute"), call.request.query.get("node", "")
        if span not in SPANS:
            raise ProblemError(400, f"span has to be one of {', '.join(SPANS)}")
        node = self._services.site.node(name) if name else None
        if name and node is None:
            raise UnknownNodeError(name, (item.name for item in self._services.site.snapshot.nodes))
        points = self._services.series.points(span, node.slot if node else None)
        return {"schema": SERIES, "node": name, "span": span, "every_s": SPANS[span][0], **columns(points)}

    async def login(self, call: Call) -> Document:
        """Give a code that logs the caller in to the dashboard, once and soon."""
        admin = self._services.site.config.admin
        return {
            "schema": LOGIN,
            "code": self._services.login_code(call.caller),
            "expires_s": CODE_S,
            "role": call.caller.role.name.lower(),
            "addresses": [f"http://{host}/ui/" for host in reached_by(str(admin.listen or ""), admin.hosts)],
        }

    async def config(self, _call: Call) -> Document:
        """Return what configuration runs."""
        return {"schema": CONFIG, **self._services.status.config()}

    async def reload(self, call: Call) -> Document:
        """Read the file again."""
        try:
            done = await self._services.reader.reload(call.caller.name, dry_run=bool(call.body.get("dry_run")))
        except InvalidConfigError as exc:
            faults = [fault_document(fault) for fault in exc.faults]
            hint, file = f"arv-balance check {exc.path}", str(exc.path)
            raise ProblemError(422, str(exc), why="nothing was changed", hint=hint, file=file, errors=faults) from exc
        warnings = [fault_document(fault) for fault in done.warnings]
        return {
            "schema": RELOAD,
            "changes": list(done.changes),
            "warnings": warnings,
            "generation": self._services.publisher.generation,
            "dry_run": bool(call.body.get("dry_run")),
        }
