"""The discovery document, the exported configuration: pure functions of program and configuration.

Nothing of it depends on clock, host, process or order of a dict, so all nodes of one version answer the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from apiserver.attributes import ARRAYS, DISCOVERY_TYPES, Resource
from apiserver.operation import Operation, Parameter
from apiserver.schema import RESOURCES
from apiserver.settings import ApiLimits, Collections, Settings
from apiserver.times import format_duration
from balancer import __version__

REVISION = "20250402"  # of the API that this server speaks; clients compare it as text
GENERATED_AT = "2025-04-02T00:00:00Z"
MAX_AGE_S = 60
ALIASES = {"list": "index", "get": "show", "delete": "destroy"}  # names of old clients
# Tools read these without asking whether they are there.
_SERVICES = (
    "Controller", "Keepproxy", "WebDAV", "WebDAVDownload", "WebShell", "Websocket", "Workbench1", "Workbench2",
)  # fmt: skip
_ABOUT = {
    "kind": "discovery#restDescription",
    "discoveryVersion": "v1",
    "id": "arvados:v1",
    "name": "arvados",
    "version": "v1",
    "revision": REVISION,
    "generatedAt": GENERATED_AT,
    "source_version": __version__,
    "sourceVersion": __version__,
    "packageVersion": __version__,
    "title": "Arvados API",
    "description": "The API to interact with Arvados.",
    "documentationLink": "https://doc.arvados.org/api/index.html",
    "protocol": "rest",
    "dockerImageFormats": ["v2"],
    "crunchLogUpdatePeriod": 300,
    "crunchLogUpdateSize": 4096,
    "remoteHosts": {},
    "remoteHostsViaDNS": False,
}
_SCOPES = {"arvados": "View and manage objects", "arvados.readonly": "View objects"}
_GLOBAL = {
    "alt": ("string", "Data format for the response.", {"enum": ["json"], "default": "json"}),
    "fields": ("string", "Selector specifying which fields to include in a partial response.", {}),
    "key": ("string", "API key.", {}),
    "oauth_token": ("string", "OAuth 2.0 token for the current user.", {}),
}


@dataclass(frozen=True, slots=True)
class Document:
    """An encoded document and its strong entity tag."""

    body: bytes
    etag: str


def encoded(document: Mapping[str, Any]) -> Document:
    """Return canonical bytes of a document."""
    body = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Document(body, f'"{hashlib.sha256(body).hexdigest()}"')


def discovery(settings: Settings, operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the discovery document."""
    root = settings.external_url if settings.external_url.endswith("/") else settings.external_url + "/"
    return {
        **_ABOUT,
        **_addresses(settings, root),
        "uuidPrefix": settings.cluster,
        "defaultCollectionReplication": settings.collections.default_replication,
        "defaultTrashLifetime": int(settings.collections.default_trash_lifetime_s),
        "blobSignatureTtl": int(settings.collections.blob_signing_ttl_s),
        "maxRequestSize": settings.api.max_request_size,
        "maxItemsPerResponse": settings.api.max_items_per_response,
        "parameters": {
            name: {"type": kind, "location": "query", "description": text, **more}
            for name, (kind, text, more) in _GLOBAL.items()
        },
        "auth": {"oauth2": {"scopes": {f"{root}auth/{name}": {"description": text} for name, text in _SCOPES.items()}}},
        "schemas": _schemas(),
        "resources": _resources(operations),
    }


def _addresses(settings: Settings, root: str) -> dict[str, str]:
    host = root.split("://", 1)[1].rstrip("/")
    return {
        "rootUrl": root,
        "servicePath": "arvados/v1/",
        "basePath": "/arvados/v1/",
        "baseUrl": f"{root}arvados/v1/",
        "batchPath": "batch",
        "websocketUrl": settings.websocket_url or f"wss://{host}/websocket",
        "workbenchUrl": settings.external_urls.get("Workbench1", ""),
        "workbench2Url": settings.external_urls.get("Workbench2", ""),
        "keepWebServiceUrl": settings.external_urls.get("WebDAV", ""),
        "gitUrl": "",
    }


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for resource in RESOURCES:
        name = resource.class_name
        schemas[name] = _schema(resource)
        schemas[f"{name}List"] = {
            "id": f"{name}List",
            "type": "object",
            "description": f"A list of {name} objects.",
            "properties": {
                "kind": {"type": "string", "default": f"{resource.kind}List"},
                "etag": {"type": "string"},
                "items": {"type": "array", "items": {"$ref": name}},
                "next_link": {"type": "string"},
                "next_page_token": {"type": "string"},
                "selfLink": {"type": "string"},
            },
        }
    return schemas


def _schema(resource: Resource) -> dict[str, Any]:
    properties: dict[str, Any] = {
        name: {"type": DISCOVERY_TYPES[resource.attributes[name].kind]} for name in resource.visible
    }
    for name in resource.visible:
        if resource.attributes[name].kind in ARRAYS:
            properties[name]["items"] = {"type": "any"}
    if resource.infix:
        properties["etag"] = {"type": "string"}
    return {
        "id": resource.class_name,
        "type": "object",
        "description": f"A {resource.class_name} object.",
        "uuidPrefix": resource.infix,
        "properties": properties,
    }


def _resources(operations: Iterable[Operation]) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    for operation in operations:
        methods = resources.setdefault(operation.resource, {"methods": {}})["methods"]
        methods[operation.name] = _method(operation, operation.name)
        if alias := ALIASES.get(operation.name):
            methods[alias] = _method(operation, alias)
    for resource, name, path in (("configs", "get", "config"), ("vocabularies", "get", "vocabulary")):
        resources[resource] = {"methods": {name: _plain(f"arvados.{resource}.{name}", path)}}
    return resources


def _method(operation: Operation, name: str) -> dict[str, Any]:
    method: dict[str, Any] = {
        "id": f"arvados.{operation.resource}.{name}",
        "path": operation.path,
        "httpMethod": operation.method,
        "description": operation.description or f"{name} {operation.resource}",
        "parameters": {parameter.name: _parameter(parameter) for parameter in operation.parameters},
        "response": {"$ref": operation.response} if operation.response else {},
        "scopes": ["https://api.arvados.org/auth/arvados"],
    }
    if operation.wrapper:
        method["request"] = {"required": True, "properties": {operation.wrapper: {"$ref": operation.schema}}}
    return method


def _parameter(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": parameter.type,
        "location": parameter.location,
        "required": parameter.required,
        "description": parameter.description,
    }
    if parameter.default is not None:
        found["default"] = parameter.default
    return found


def _plain(identity: str, path: str) -> dict[str, Any]:
    return {
        "id": identity,
        "path": path,
        "httpMethod": "GET",
        "description": f"get {path}",
        "parameters": {},
        "response": {},
        "scopes": ["https://api.arvados.org/auth/arvados"],
    }


def exported(settings: Settings) -> dict[str, Any]:
    """Return the configuration that everyone may see; secrets and inner addresses are not in it."""
    urls = dict.fromkeys(_SERVICES, "")
    urls |= {"Controller": settings.external_url, "Websocket": settings.websocket_url, **settings.external_urls}
    return {
        "ClusterID": settings.cluster,
        "API": _api(settings.api),
        "Collections": _collections(settings.collections),
        "Containers": {"DefaultKeepCacheRAM": settings.containers.default_keep_cache_ram},
        "InstanceTypes": {},
        "Login": {
            "LoginCluster": "",
            "OpenIDConnect": {"Enable": bool(settings.login.issuer)},
            "Test": {"Enable": bool(settings.login.test_users)},
            **{name: {"Enable": False} for name in ("Google", "LDAP", "PAM")},
        },
        "RemoteClusters": {},
        "Services": {name: {"ExternalURL": url} for name, url in sorted(urls.items())},
        "StorageClasses": dict(settings.storage_classes),
        "TLS": {"Insecure": False},
        "Users": {
            "AnonymousUserToken": settings.users.anonymous_user_token,
            "CanCreateRoleGroups": settings.users.can_create_role_groups,
        },
        "Volumes": {},
    }


def _api(limits: ApiLimits) -> dict[str, Any]:
    return {
        "MaxItemsPerResponse": limits.max_items_per_response,
        "MaxRequestSize": limits.max_request_size,
        "RequestTimeout": _duration(limits.request_timeout_s),
        "SendTimeout": _duration(limits.send_timeout_s),
        "FreezeProjectRequiresDescription": limits.freeze_project_requires_description,
        "FreezeProjectRequiresProperties": {name: {} for name in limits.freeze_project_requires_properties},
        "UnfreezeProjectRequiresAdmin": limits.unfreeze_project_requires_admin,
    }


def _collections(rules: Collections) -> dict[str, Any]:
    return {
        "BlobSigning": rules.blob_signing,
        "BlobSigningTTL": _duration(rules.blob_signing_ttl_s),
        "CollectionVersioning": rules.collection_versioning,
        "DefaultReplication": rules.default_replication,
        "DefaultTrashLifetime": _duration(rules.default_trash_lifetime_s),
        "ForwardSlashNameSubstitution": rules.forward_slash_name_substitution,
        "ManagedProperties": {},
        "PreserveVersionIfIdle": _duration(rules.preserve_version_if_idle_s),
        "S3FolderObjects": True,
        "TrustAllContent": False,
    }


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=seconds))
