"""The upgrade over HTTP: its journal and who drives it. Commands are never run by way of this API."""

from typing import Any

from balancer.control.admin import schemas
from balancer.control.admin.access import Role
from balancer.control.admin.app import Call, Endpoint
from balancer.control.admin.problem import ProblemError
from balancer.control.admin.schemas import COUNT, FLAG, SECONDS, TEXT, TIME, many, maybe, open_, record
from balancer.control.admin.services import Document, Services, seconds_of, text
from balancer.control.upgrade.machine import Do, State, Word
from balancer.control.upgrade.upgrades import OUTPUT_CHARACTERS, SCHEMA, Asked, steps_of

MAX_STEPS = 4096

_STEP = record(
    number=COUNT,
    do={"enum": [do.value for do in Do]},
    node=TEXT,
    text=TEXT,
    state={"enum": [state.value for state in State]},
    began_at=maybe(TIME),
    ended_at=maybe(TIME),
    took_s=maybe(SECONDS),
    exit=maybe({"type": "integer"}),
    output=TEXT,
    why=TEXT,
    token=TEXT,
    where=TEXT,
)
_TOTALS = record(
    requests=COUNT,
    failed={"type": "integer"},
    retried={"type": "integer"},
    open=COUNT,
    parked=COUNT,
    p99_s=maybe(SECONDS),
    p99_before_s=maybe(SECONDS),
    slowest_s=maybe(SECONDS),
)
UPGRADE = open_(
    schemas.document(
        SCHEMA,
        open=FLAG,
        phase={"enum": ["none", "forward", "aborting", "finished", "aborted"]},
        id=TEXT,
        mode=TEXT,
        plan=TEXT,
        digest=TEXT,
        who=TEXT,
        at=TEXT,
        versions={"type": "object", "additionalProperties": TEXT},
        nodes=many(TEXT),
        kept=many(TEXT),
        left=many(TEXT),
        abort_from=COUNT,
        next=maybe(COUNT),
        steps=many(_STEP),
        driver=TEXT,
        totals=maybe(_TOTALS),
    )
)
LOOK = schemas.document(SCHEMA, node=TEXT, ok=FLAG, text=TEXT, version=TEXT, members={"type": "object"})
_BEGIN_BODY = schemas.body(
    id=TEXT,
    mode={"enum": ["stop-all", "rolling"]},
    plan=TEXT,
    digest=TEXT,
    nodes=many(TEXT),
    steps=many({"type": "object"}),
    hold=schemas.SPAN,
    dry_run=FLAG,
)
_WORD_BODY = schemas.body(
    ticket=TEXT,
    word={"enum": [word.value for word in Word]},
    again=FLAG,
    exit={"type": "integer"},
    why=TEXT,
    output=TEXT,
    token=TEXT,
    where=TEXT,
)
_TICKET_BODY = schemas.body(ticket=TEXT)


class UpgradeRoutes:
    """The journal, seen from outside."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, _call: Call) -> Document:
        """Return the upgrade as it stands."""
        return self._services.upgrades.document()

    async def look(self, call: Call) -> Document:
        """Ask a node now."""
        return await self._services.upgrades.look(call.name("node"))

    async def begin(self, call: Call) -> Document:
        """Begin one, or with `dry_run` say whether it can be begun."""
        body = call.body
        run_id, mode = text(body, "id"), text(body, "mode")
        if not run_id or not run_id.replace("-", "").isalnum() or mode not in {"stop-all", "rolling"}:
            raise ProblemError(400, "an upgrade needs an id of letters and digits, and a mode: stop-all or rolling")
        nodes, steps = body.get("nodes"), body.get("steps")
        if not _is_list(nodes, str) or not _is_list(steps, dict) or not nodes or not steps:
            raise ProblemError(400, "nodes has to be a list of names, steps a list of objects")
        asked = Asked(
            run_id=run_id,
            who=call.caller.name,
            mode=mode,
            plan=text(body, "plan"),
            digest=text(body, "digest"),
            nodes=tuple(nodes),
            steps=steps_of(steps),
            hold_s=seconds_of(body, "hold"),
        )
        return await self._services.upgrades.begin(asked, dry_run=bool(body.get("dry_run")))

    async def attach(self, call: Call) -> Document:
        """Drive the open one on, or with `dry_run` say whether that can be."""
        force, dry_run = bool(call.body.get("force")), bool(call.body.get("dry_run"))
        return await self._services.upgrades.attach(call.caller.name, force=force, dry_run=dry_run)

    async def beat(self, call: Call) -> Document:
        """Say that a command still drives it, or does so no more."""
        ticket = text(call.body, "ticket")
        if call.body.get("leaving"):
            self._services.upgrades.leave(ticket)
        else:
            self._services.upgrades.heard_of(ticket)
        return {"schema": SCHEMA}

    async def word(self, call: Call) -> Document:
        """Take a word about a step."""
        body = call.body
        try:
            number, word = int(call.name("number")), Word(text(body, "word"))
        except ValueError as exc:
            raise ProblemError(400, f"{exc}") from exc
        facts: Document = {name: text(body, name) for name in ("token", "where") if name in body}
        for name, most in (("why", 4000), ("output", OUTPUT_CHARACTERS)):
            if isinstance(body.get(name), str):
                facts[name] = body[name][-most:]
        if "exit" in body:
            facts["exit"] = body["exit"] if isinstance(body["exit"], int) else None
        again = bool(body.get("again"))
        return await self._services.upgrades.word(
            text(body, "ticket"), number, word, who=call.caller.name, again=again, facts=facts
        )

    async def abort(self, call: Call) -> Document:
        """Turn it around, or with `dry_run` say what would be done then."""
        if call.body.get("dry_run"):
            return self._services.upgrades.way_back(call.caller.name)
        return await self._services.upgrades.abort(text(call.body, "ticket"), call.caller.name)

    async def end(self, call: Call) -> Document:
        """Close it."""
        return await self._services.upgrades.end(text(call.body, "ticket"), call.caller.name)


def upgrade_endpoints(services: Services) -> list[Endpoint]:
    """Return the routes."""
    routes, admin = UpgradeRoutes(services), Role.ADMIN
    path, changes = "/v1/upgrade", (400, 404, 409, 507)

    def change(where: str, handler: Any, summary: str, body: schemas.Schema) -> Endpoint:
        return Endpoint("POST", path + where, admin, handler, summary, UPGRADE, body=body, refusals=changes)

    return [
        Endpoint("GET", path, Role.VIEWER, routes.show, "The upgrade as it stands", UPGRADE),
        Endpoint(
            "GET", path + "/nodes/{node}", Role.OPERATOR, routes.look, "Ask a node now", LOOK, refusals=(404, 409)
        ),
        change("", routes.begin, "Begin an upgrade", _BEGIN_BODY),
        change("/attach", routes.attach, "Drive the open upgrade on", schemas.body(force=FLAG, dry_run=FLAG)),
        change("/steps/{number}", routes.word, "Say how far a step is", _WORD_BODY),
        change("/abort", routes.abort, "Turn the upgrade around", schemas.body(ticket=TEXT, dry_run=FLAG)),
        change("/end", routes.end, "Close the upgrade after its last step", _TICKET_BODY),
        Endpoint(
            "POST",
            path + "/beat",
            admin,
            routes.beat,
            "Say that a command still drives the upgrade, or does so no more",
            schemas.document(SCHEMA),
            body=schemas.body(ticket=TEXT, leaving=FLAG),
            refusals=(409,),
        ),
    ]


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and len(value) <= MAX_STEPS and all(isinstance(item, kind) for item in value)
