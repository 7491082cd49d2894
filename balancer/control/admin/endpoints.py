"""The routes of the admin API: one table, from which the server and its description are made."""

from typing import cast

from balancer.control.admin import schemas
from balancer.control.admin.access import Role
from balancer.control.admin.app import Call, Endpoint
from balancer.control.admin.general import GeneralRoutes
from balancer.control.admin.history import EventRoutes
from balancer.control.admin.nodes import NodeRoutes
from balancer.control.admin.openapi import describe, markdown
from balancer.control.admin.services import Document, Services
from balancer.control.admin.traffic import TrafficRoutes
from balancer.control.admin.upgrade import upgrade_endpoints

_FOLLOW = (
    ("limit", "at most so many, newest (200)"),
    ("after", "only those with a higher number"),
    ("node", "only those about this node"),
    ("kind", "only those of this kind"),
    ("follow", "do not end: one JSON object a line, or server-sent events by Accept: text/event-stream"),
)
_EXPLAIN = (
    ("method", "GET unless given"),
    ("target", "path and query"),
    ("header", "`Name: value`, may be repeated"),
    ("from", "address of the client's connection"),
)


def endpoints(services: Services) -> list[Endpoint]:
    """Return all routes."""
    found = [*_general(services), *_nodes(services), *_traffic(services), *upgrade_endpoints(services)]

    async def openapi(_call: Call) -> Document:
        return describe(found)

    found.append(
        Endpoint("GET", "/v1/openapi.json", Role.VIEWER, openapi, "Describe this API", answer={"type": "object"})
    )
    return found


def reference() -> str:
    """Return docs/admin-api.md. Handlers are named for it, never called."""
    return markdown(endpoints(cast(Services, None)))


def _general(services: Services) -> list[Endpoint]:
    general, history = GeneralRoutes(services), EventRoutes(services)
    viewer, health = Role.VIEWER, schemas.HEALTH
    return [
        Endpoint("GET", "/livez", Role.NOBODY, general.livez, "Is the process alive", health),
        Endpoint(
            "GET", "/readyz", Role.NOBODY, general.readyz, "Do enough nodes serve", schemas.HEALTH, refusals=(503,)
        ),
        Endpoint(
            "GET",
            "/healthz",
            Role.NOBODY,
            general.healthz,
            "Is the cluster up",
            schemas.HEALTH,
            query=(("verbose", "say each thing that was looked at"),),
            refusals=(503,),
        ),
        Endpoint(
            "GET",
            "/metrics",
            viewer,
            general.metrics,
            "Metrics for Prometheus; the cluster's management token opens it, too",
            content_type="text/plain",
            for_monitors=True,
        ),
        Endpoint(
            "GET",
            "/_health/ping",
            viewer,
            general.ping,
            "Health as the services of an Arvados cluster tell it; opened by the cluster's management token",
            schemas.PING,
            for_monitors=True,
        ),
        Endpoint("GET", "/v1/status", viewer, general.status, "Everything at once", schemas.STATUS),
        Endpoint("GET", "/v1/ledger", viewer, general.ledger, "How all exchanges ended", schemas.LEDGER),
        Endpoint(
            "GET",
            "/v1/series",
            viewer,
            general.series,
            "Traffic over time",
            schemas.SERIES,
            query=(("span", "minute (every second) or quarter (every 15 s)"), ("node", "of this node alone")),
            refusals=(400, 404),
        ),
        Endpoint(
            "POST",
            "/v1/dashboard/login",
            viewer,
            general.login,
            "A code that logs the caller in to the dashboard, once, within five minutes",
            schemas.LOGIN,
        ),
        Endpoint("GET", "/v1/config", viewer, general.config, "Which configuration runs", schemas.CONFIG),
        Endpoint(
            "POST",
            "/v1/config/reload",
            Role.ADMIN,
            general.reload,
            "Read the configuration again",
            schemas.RELOAD,
            body=schemas.RELOAD_BODY,
            refusals=(409, 422),
        ),
        Endpoint(
            "GET", "/v1/events", viewer, history.events, "What changed, when, by whom", schemas.EVENTS, query=_FOLLOW
        ),
    ]


def _nodes(services: Services) -> list[Endpoint]:
    nodes = NodeRoutes(services)
    action, intent = schemas.ACTION, schemas.INTENT_BODY
    return [
        Endpoint("GET", "/v1/nodes", Role.VIEWER, nodes.every, "All nodes", schemas.NODES),
        Endpoint(
            "POST",
            "/v1/nodes",
            Role.ADMIN,
            nodes.add,
            "Add a node",
            action,
            body=schemas.ADD_BODY,
            refusals=(400, 409, 507),
        ),
        Endpoint(
            "GET",
            "/v1/nodes/{node}",
            Role.VIEWER,
            nodes.show,
            "One node and what is under way",
            schemas.NODE,
            refusals=(404,),
        ),
        *(
            Endpoint(
                "POST",
                f"/v1/nodes/{{node}}/{verb}",
                role,
                handler,
                summary,
                action,
                body=body,
                refusals=(400, 404, 409, 507),
            )
            for verb, role, handler, summary, body in (
                ("drain", Role.OPERATOR, nodes.drain, "Give a node no new exchange", intent),
                ("undrain", Role.OPERATOR, nodes.undrain, "Let a node serve again", intent),
                ("weight", Role.OPERATOR, nodes.weight, "Change a node's share", schemas.WEIGHT_BODY),
                ("remove", Role.ADMIN, nodes.remove, "Drain a node and let go of it", schemas.REMOVE_BODY),
                ("forget", Role.ADMIN, nodes.forget, "Drop what was changed about a node", intent),
            )
        ),
    ]


def _traffic(services: Services) -> list[Endpoint]:
    traffic = TrafficRoutes(services)
    viewer, operator = Role.VIEWER, Role.OPERATOR
    return [
        Endpoint("GET", "/v1/pause", viewer, traffic.show_pause, "Is traffic paused", schemas.PAUSE),
        Endpoint(
            "POST",
            "/v1/pause",
            operator,
            traffic.pause,
            "Hold new requests; answers once nothing is in flight",
            schemas.PAUSE,
            body=schemas.PAUSE_BODY,
            refusals=(409, 504, 507),
        ),
        Endpoint(
            "POST", "/v1/resume", operator, traffic.resume, "Let traffic go on", schemas.PAUSE, body=schemas.RESUME_BODY
        ),
        Endpoint("GET", "/v1/designations", viewer, traffic.designations, "Designated nodes", schemas.DESIGNATIONS),
        Endpoint(
            "POST",
            "/v1/designations/{designation}",
            operator,
            traffic.appoint,
            "Give a designation to a node",
            schemas.DESIGNATIONS,
            body=schemas.APPOINT_BODY,
            refusals=(400, 404, 409, 507),
        ),
        Endpoint(
            "GET",
            "/v1/explain",
            viewer,
            traffic.explain,
            "What would happen to a request",
            schemas.EXPLAIN,
            query=_EXPLAIN,
            refusals=(400,),
        ),
    ]
