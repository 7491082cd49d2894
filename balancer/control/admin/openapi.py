"""The description of the admin API, made from its table of routes. Source: OpenAPI 3.1."""

import re
from collections.abc import Sequence
from typing import Any

from balancer import __version__
from balancer.control.admin import problem, schemas
from balancer.control.admin.access import Role
from balancer.control.admin.app import Endpoint

_MEANINGS = {
    400: "what was sent cannot be read",
    404: "there is no such thing",
    409: "a safety guard refused; nothing was changed",
    422: "the configuration file has errors; nothing was changed",
    503: "no",
    504: "not in time; it was undone",
    507: "the state cannot be written; nothing was changed",
}


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "arv-balance admin API",
            "version": __version__,
            "description": "Over the Unix socket whoever may open it is an admin. Over TCP a token gives a role.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": schemas.PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    content = {"schema": endpoint.answer} if endpoint.answer else {}
    responses: dict[str, Any] = {
        str(endpoint.status): {"description": "done", "content": {endpoint.content_type: content}}
    }
    for status in endpoint.refusals:
        is_health = status == 503
        kind = "application/json" if is_health else problem.CONTENT_TYPE
        schema = endpoint.answer if is_health else {"$ref": "#/components/schemas/Problem"}
        responses[str(status)] = {"description": _MEANINGS[status], "content": {kind: {"schema": schema}}}
    operation: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": endpoint.summary,
        "description": f"Role: {endpoint.role.name.lower()}",
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint)],
        "responses": responses,
        "security": [] if endpoint.role is Role.NOBODY else [{"token": []}],
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": False, "content": {"application/json": {"schema": endpoint.body}}}
    return operation


def _name(endpoint: Endpoint) -> str:
    words = [word for word in re.split(r"[^a-z0-9]+", endpoint.path.lower()) if word and word != "v1"]
    return "_".join([endpoint.method.lower(), *words])


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in endpoint.query
    ]


def markdown(endpoints: Sequence[Endpoint]) -> str:
    """Return docs/admin-api.md."""
    lines = [
        "# Admin API",
        "",
        "HTTP with JSON over the Unix socket `admin.socket` (who may open it is an admin) and, when `admin.listen` is",
        "set, over TCP with a token (`Authorization: Bearer`). Documents carry their version in `schema`; errors are",
        "problem objects (RFC 9457) with `what`, `why` and `try`. `GET /v1/openapi.json` describes all of it for",
        "programs. Generated from `balancer/control/admin/endpoints.py`.",
        "",
        "| Method | Path | Role | |",
        "|---|---|---|---|",
    ]
    for endpoint in endpoints:
        role = "-" if endpoint.role is Role.NOBODY else endpoint.role.name.lower()
        lines.append(f"| {endpoint.method} | `{endpoint.path}` | {role} | {endpoint.summary} |")
    for endpoint in endpoints:
        if not endpoint.query and endpoint.body is None:
            continue
        lines += ["", f"## {endpoint.method} {endpoint.path}", ""]
        lines += [f"* `?{name}`: {meaning}" for name, meaning in endpoint.query]
        members = (endpoint.body or {}).get("properties", {})
        lines += [f"* `{name}`: {_kind(schema)}" for name, schema in members.items()]
    return "\n".join(lines) + "\n"


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if "maximum" in schema:
        text += f" {schema['minimum']} to {schema['maximum']}"
    return f"{text}; {schema['description']}" if "description" in schema else text
