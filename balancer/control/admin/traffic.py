"""Pause, resume, designations and explanations over HTTP."""

from balancer.control.admin.app import Call
from balancer.control.admin.problem import ProblemError
from balancer.control.admin.services import Document, Services, seconds_of, text
from balancer.control.explain import Asked
from balancer.control.pauses import PauseRequest, PauseTimeoutError
from balancer.core.forwarded import UNIX, parse_address

DESIGNATIONS = "arv-balance/designations/v1"
MAX_RATE = 1_000_000.0


class TrafficRoutes:
    """What concerns all traffic."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show_pause(self, _call: Call) -> Document:
        """Return whether traffic is paused."""
        return self._services.pauses.document()

    async def pause(self, call: Call) -> Document:
        """Pause, and answer once nothing is in flight."""
        request = PauseRequest(
            who=call.caller.name,
            reason=text(call.body, "reason"),
            for_s=seconds_of(call.body, "for"),
            wait_s=seconds_of(call.body, "wait"),
            cut=bool(call.body.get("cut")),
            dry_run=bool(call.body.get("dry_run")),
        )
        try:
            return await self._services.pauses.pause(request)
        except PauseTimeoutError as exc:
            hint = "wait longer (--timeout), or end by force what is under way then (--cut)"
            raise ProblemError(504, str(exc), hint=hint, exchanges=exc.exchanges) from exc

    async def resume(self, call: Call) -> Document:
        """Let traffic go on."""
        rate = call.body.get("rate")
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate <= MAX_RATE):
            raise ProblemError(400, "rate has to be a number of requests a second")
        who, reason, dry_run = call.caller.name, text(call.body, "reason"), bool(call.body.get("dry_run"))
        return await self._services.pauses.resume(who, reason, rate, dry_run=dry_run)

    async def designations(self, _call: Call) -> Document:
        """Return the designated nodes."""
        return {"schema": DESIGNATIONS, "designations": self._services.designations.documents()}

    async def appoint(self, call: Call) -> Document:
        """Give a designation to a node."""
        node = text(call.body, "node")
        if not node:
            raise ProblemError(400, "node is missing")
        who, reason, dry_run = call.caller.name, text(call.body, "reason"), bool(call.body.get("dry_run"))
        await self._services.designations.appoint(call.name("designation"), node, who, reason, dry_run=dry_run)
        return await self.designations(call)

    async def explain(self, call: Call) -> Document:
        """Say what would happen to a request; `header` may stand several times as `Name: value`."""
        query = call.request.query
        target = query.get("target", "")
        if not target.startswith(("/", "http://", "https://", "*")):
            raise ProblemError(400, "target has to be a path", hint="target=/arvados/v1/collections")
        headers = []
        for line in query.getall("header", []):
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise ProblemError(400, f"{name!r} is not a header field", hint="header=Name: value")
            headers.append((name.strip(), value.strip()))
        peer = query.get("from", "127.0.0.1")
        if peer != UNIX and parse_address(peer) is None:
            raise ProblemError(400, f"{peer!r} is no address", hint="from=10.0.0.7, or unix: for a Unix socket")
        asked = Asked(query.get("method", "GET"), target, tuple(headers), peer)
        return self._services.explain(asked)
