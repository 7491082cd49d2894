"""The shapes of the admin API's documents. Source: JSON Schema 2020-12."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
SECONDS: Schema = {"type": "number", "minimum": 0, "description": "seconds"}
TIME: Schema = {"type": "string", "format": "date-time"}
SPAN: Schema = {"type": ["number", "string"], "description": "seconds, or a text such as 2h or 1h30m"}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def record(**members: Schema) -> Schema:
    """Return the schema of an object with exactly these members."""
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def document(schema: str, **members: Schema) -> Schema:
    """Return the schema of a document with its version."""
    return record(schema={"const": schema}, **members)


def body(**members: Schema) -> Schema:
    """Return the schema of what may be sent; every member is optional."""
    return {"type": "object", "properties": members}


def open_(schema: Schema) -> Schema:
    """Return the schema of an object that may hold more."""
    return {**schema, "additionalProperties": True}


PROBLEM = open_(document("arv-balance/problem/v1", status=COUNT, title=TEXT, what=TEXT, why=TEXT, **{"try": TEXT}))
HEALTH = open_({**document("arv-balance/health/v1", ok=FLAG)})

PING = open_(record(health={"enum": ["OK", "ERROR"]}))

INTENT = record(
    kind={"enum": ["drain", "weight", "add", "remove", "pause", "rate"]},
    node=TEXT,
    who=TEXT,
    at=TIME,
    reason=TEXT,
    until=maybe(TIME),
    settings={"type": "object"},
)
RATES = {
    "requests_per_s": NUMBER,
    "p50_s": maybe(SECONDS),
    "p95_s": maybe(SECONDS),
    "p99_s": maybe(SECONDS),
    "slowest_s": maybe(SECONDS),
    "failed": COUNT,
    "error_ratio": maybe({"type": "number", "minimum": 0}),
}
_NODE: dict[str, Schema] = {
    "name": TEXT,
    "url": TEXT,
    "address": TEXT,
    "state": {"enum": ["checking", "healthy", "unhealthy", "mismatched", "draining", "drained", "removed"]},
    "admin": {"enum": ["enabled", "draining", "drained", "removed"]},
    "health": {"enum": ["checking", "healthy", "unhealthy", "mismatched"]},
    "serving": FLAG,
    "since": maybe(TIME),
    "weight": COUNT,
    "capacity": COUNT,
    "in_flight": COUNT,
    "tunnels": COUNT,
    "check": record(ok=maybe(FLAG), text=TEXT, duration_s=maybe(SECONDS), at=maybe(TIME)),
    "version": TEXT,
    "origin": {"enum": ["file", "added"]},
    "intents": many(INTENT),
    "rates": record(**RATES),
}
EXCHANGE: Schema = {"type": "object"}
NODES = document("arv-balance/nodes/v1", nodes=many(record(**_NODE)))
NODE = document("arv-balance/node/v1", exchanges=many(EXCHANGE), **_NODE)
LEDGER = document(
    "arv-balance/ledger/v1",
    accepted=COUNT,
    node=COUNT,
    us=COUNT,
    open=COUNT,
    **{"client-left": COUNT, "node-cut": COUNT, "worker-lost": COUNT},
)
FAULT = record(path=TEXT, message=TEXT, hint=TEXT, line=maybe(COUNT), column=maybe(COUNT))
_CONFIG: dict[str, Schema] = {
    "path": TEXT,
    "sha256": TEXT,
    "loaded_at": maybe(TIME),
    "last_reload": maybe(record(ok=FLAG, at=TIME, error=TEXT, errors=many(FAULT))),
}
CONFIG = document("arv-balance/config/v1", **_CONFIG)
RELOAD = document("arv-balance/reload/v1", changes=many(TEXT), warnings=many(FAULT), generation=COUNT, dry_run=FLAG)
EVENT = record(
    number=COUNT,
    at=TIME,
    kind=TEXT,
    text=TEXT,
    actor=TEXT,
    node=TEXT,
    reason=TEXT,
    level={"enum": ["info", "warning", "error"]},
)
EVENTS = document("arv-balance/events/v1", events=many(EVENT))
_DESIGNATION = record(
    name=TEXT,
    node=maybe(TEXT),
    epoch=COUNT,
    since=maybe(TIME),
    who=TEXT,
    why=TEXT,
    now=TEXT,
    order=many(TEXT),
    store={"enum": ["file", "postgres"]},
)
DESIGNATIONS = document("arv-balance/designations/v1", designations=many(_DESIGNATION))
STATUS = document(
    "arv-balance/status/v1",
    cluster=TEXT,
    verdict={"enum": ["healthy", "degraded", "paused", "down"]},
    causes=many(TEXT),
    serving=COUNT,
    nodes_total=COUNT,
    min_serving=COUNT,
    traffic=record(
        **RATES,
        retried=COUNT,
        in_flight=COUNT,
        capacity=maybe(COUNT),
        queued=COUNT,
        parked=COUNT,
        tunnels=COUNT,
        connections=COUNT,
    ),
    routes=many(record(name=TEXT, rates=record(**RATES))),
    nodes=many(record(**_NODE)),
    removed=many(TEXT),
    designations=many(_DESIGNATION),
    peers=many(
        record(
            name=TEXT, admin=TEXT, asked_at=maybe(TIME), fault=TEXT, verdict=TEXT, version=TEXT, differences=many(TEXT)
        )
    ),
    dns=maybe(
        record(
            asked_at=TIME,
            fault=TEXT,
            targets=many(
                record(
                    name=TEXT,
                    kind={"enum": ["rfc2136", "builtin", "files"]},
                    holder=maybe(TEXT),
                    epoch=COUNT,
                    records=COUNT,
                    pending=COUNT,
                    conflict=COUNT,
                    failed=COUNT,
                    held=COUNT,
                    error=TEXT,
                )
            ),
        )
    ),
    pause=maybe(INTENT),
    intents=many(INTENT),
    upgrade=maybe(
        record(
            open=FLAG,
            phase={"enum": ["forward", "aborting", "finished", "aborted"]},
            id=TEXT,
            mode={"enum": ["stop-all", "rolling"]},
            steps=COUNT,
            done=COUNT,
            doing=TEXT,
            driver=TEXT,
        )
    ),
    ledger=LEDGER,
    config=record(**_CONFIG),
    workers=many(record(slot=COUNT, pid=COUNT, stopping=FLAG, generation=COUNT, connections=COUNT, busy=COUNT)),
    version=TEXT,
    python=TEXT,
    pid=COUNT,
    started_at=TIME,
    generation=COUNT,
    listeners=many(record(slot=COUNT, bind=TEXT, address=TEXT, tls=FLAG)),
)
_POINTS = many(maybe({"type": "number", "minimum": 0}))
SERIES = document(
    "arv-balance/series/v1",
    node=TEXT,
    span={"enum": ["minute", "quarter"]},
    every_s=SECONDS,
    requests_per_s=_POINTS,
    p95_s=_POINTS,
    failed=_POINTS,
)
LOGIN = document("arv-balance/login/v1", code=TEXT, expires_s=SECONDS, role=TEXT, addresses=many(TEXT))
ACTION = open_(
    document(
        "arv-balance/action/v1",
        action=TEXT,
        node=TEXT,
        state=TEXT,
        changed=FLAG,
        consequence=TEXT,
        timeout_s=SECONDS,
        dry_run=FLAG,
        exchanges=many(EXCHANGE),
    )
)
PAUSE = open_(
    document(
        "arv-balance/pause/v1",
        paused=FLAG,
        complete=FLAG,
        pause=maybe(INTENT),
        busy=COUNT,
        tunnels=COUNT,
        parked=COUNT,
        drain_s=SECONDS,
        forecast=TEXT,
    )
)
EXPLAIN = document(
    "arv-balance/explain/v1",
    method=TEXT,
    target=TEXT,
    path=TEXT,
    effective_method=TEXT,
    host=TEXT,
    route=record(name=maybe(TEXT), why=TEXT, to=TEXT, park=FLAG, retry=FLAG),
    outcome=TEXT,
    chosen=maybe(TEXT),
    preference=many(TEXT),
    nodes=many(
        record(
            name=TEXT,
            eligible=FLAG,
            why_not=TEXT,
            in_flight=COUNT,
            capacity=COUNT,
            weight=COUNT,
            effective_weight=COUNT,
            score=maybe(NUMBER),
            chosen=FLAG,
        )
    ),
    headers=record(client=TEXT, set={"type": "object", "additionalProperties": TEXT}, removed=many(TEXT)),
    timeouts={"type": "object", "additionalProperties": NUMBER},
    retry=record(idempotent=FLAG, verdicts={"type": "object", "additionalProperties": TEXT}, text=TEXT),
)

_WEIGHT: Schema = {"type": "integer", "minimum": 0, "maximum": 1000}
_TERMS = {"reason": TEXT, "for": SPAN, "force": FLAG, "dry_run": FLAG}
INTENT_BODY = body(cut=FLAG, **_TERMS)
REMOVE_BODY = body(cut=FLAG, now=FLAG, **_TERMS)
WEIGHT_BODY = body(weight=_WEIGHT, **_TERMS)
ADD_BODY = body(
    name=TEXT, url=TEXT, weight={"type": "integer", "minimum": 0, "maximum": 1000}, capacity=COUNT, **_TERMS
)
RELOAD_BODY = body(dry_run=FLAG)
PAUSE_BODY = body(reason=TEXT, wait=SPAN, cut=FLAG, dry_run=FLAG, **{"for": SPAN})
RESUME_BODY = body(reason=TEXT, rate=NUMBER, dry_run=FLAG)
APPOINT_BODY = body(node=TEXT, reason=TEXT, dry_run=FLAG)
