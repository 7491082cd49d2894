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
