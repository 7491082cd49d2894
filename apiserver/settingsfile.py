"""Settings out of files: Arvados' config.yml, or a node's own short file of the same facts."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from apiserver import keys
from apiserver.errors import SettingsError
from apiserver.settings import (
    ApiLimits,
    AuditLogs,
    Collections,
    Containers,
    Login,
    Nodes,
    Settings,
    TestUser,
    Users,
    validate,
)
from apiserver.times import parse_duration

# Section of config.yml, its fields there -> ours. Durations are text there, seconds here.
_SECTIONS = {
    "api": ("API", ApiLimits),
    "audit_logs": ("AuditLogs", AuditLogs),
    "collections": ("Collections", Collections),
    "users": ("Users", Users),
    "containers": ("Containers", Containers),
}
# And those of a node's own file: two more, made up of several there.
_OWN_SECTIONS: dict[str, type[Any]] = {
    "nodes": Nodes, "login": Login, **{name: kind for name, (_, kind) in _SECTIONS.items()},
}  # fmt: skip


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of a file: Arvados' config.yml (it has `Clusters`) or a node's own.

    Raises:
        SettingsError: all faults of the file, each with its key.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: is not YAML: {exc}") from exc
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: must be a mapping with Clusters (config.yml) or cluster (a node's own file)")
    faults: list[str] = []
    reader = _arvados if "Clusters" in document else _own
    settings = reader(document, environ, faults)
    faults += validate(settings)
    if faults:
        raise SettingsError("\n".join(f"{path}: {fault}" for fault in faults))
    return settings


def _arvados(document: dict[str, Any], environ: Mapping[str, str], faults: list[str]) -> Settings:
    clusters = document["Clusters"]
    if not isinstance(clusters, dict) or len(clusters) != 1:
        faults.append("Clusters: must hold exactly one cluster")
        clusters = {"xxxxx": {}}
    cluster, config = next(iter(clusters.items()))
    config = config if isinstance(config, dict) else {}
    sections = {
        name: _section(kind, _mapping(config, title), title, faults) for name, (title, kind) in _SECTIONS.items()
    }
    services = _mapping(config, "Services")
    external = {name: _url(_mapping(services, name).get("ExternalURL")) for name in services}
    managed = _mapping(_mapping(_mapping(config, "Containers"), "SLURM"), "Managed")
    postgres = _mapping(config, "PostgreSQL")
    return Settings(
        cluster=str(cluster),
        database_url=environ.get("DATABASE_URL") or _libpq(_mapping(postgres, "Connection")),
        listen=tuple(_listen(services)) or ("127.0.0.1:8003",),
        external_url=external.get("Controller") or "https://localhost/",
        websocket_url=external.get("Websocket", ""),
        database_pool=_pool(postgres.get("ConnectionPool", 10), faults),
        system_root_token=str(config.get("SystemRootToken", "")),
        management_token=str(config.get("ManagementToken", "")),
        issue_trusted_tokens=bool(_mapping(config, "Login").get("IssueTrustedTokens", True)),
        login=_login(_mapping(config, "Login"), faults),
        nodes=_nodes(managed),
        storage_classes=_mapping(config, "StorageClasses") or {"default": {"Default": True}},
        external_urls={name: url for name, url in external.items() if url},
        **sections,
    )


def _own(document: dict[str, Any], environ: Mapping[str, str], faults: list[str]) -> Settings:
    defaults = Settings(cluster="", database_url="")
    known = sorted(item.name for item in fields(Settings))
    faults += keys.unknown((str(key) for key in document if key not in known), known)
    values: dict[str, Any] = {"cluster": "", "database_url": ""}
    for key, value in document.items():
        if key in known and value is not None:
            values[key] = _own_value(key, value, getattr(defaults, key), faults)
    values["database_url"] = environ.get("DATABASE_URL") or values["database_url"]
    return Settings(**values)


def _own_value(key: str, value: Any, default: Any, faults: list[str]) -> Any:
    """Return the value of a key in a node's own file; of a wrong one the default."""
    if kind := _OWN_SECTIONS.get(key):
        section = dict(_known(kind, value, key, faults))
        if key == "login" and "test_users" in section:
            section["test_users"] = _test_users(section["test_users"], "login.test_users", faults)
        return _section(kind, section, key, faults)
    if key == "dns":
        return _dns(value, faults)
    if key.endswith("_token"):
        return _secret(key, value, faults)
    try:
        return _coerce(value, default)
    except (ValueError, TypeError) as exc:
        faults.append(f"{key}: {exc}")
        return default


def _dns(value: Any, faults: list[str]) -> Mapping[str, Any]:
    """Return the section itself, or that of the file it names: `{file: /etc/arv-balance/arv-balance.yml}`."""
    if not isinstance(value, dict):
        faults.append("dns: must be a mapping")
        return {}
    if set(value) != {"file"}:
        return value
    try:
        return dns_section(Path(str(value["file"])))
    except SettingsError as exc:
        faults.append(f"dns.file: {exc}")
        return {}


def dns_section(path: Path) -> Mapping[str, Any]:
    """Return the `dns:` section of a YAML file, which may be the balancer's.

    Raises:
        SettingsError: there is none.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
    section = document.get("dns") if isinstance(document, dict) else None
    if not isinstance(section, dict):
        raise SettingsError(f"{path} has no dns: section")
    return section


def _known(kind: type[Any], value: Any, title: str, faults: list[str]) -> Mapping[str, Any]:
    """Return a section of a node's own file, whose keys must all be known."""
    if not isinstance(value, dict):
        faults.append(f"{title}: must be a mapping")
        return {}
    names = [item.name for item in fields(kind)]
    unknown = [str(key) for key in value if not any(_same(str(key), name) for name in names)]
    faults += keys.unknown(unknown, names, title)
    return value


def _secret(key: str, value: Any, faults: list[str]) -> str:
    if isinstance(value, dict) and set(value) == {"file"}:
        try:
            return Path(value["file"]).read_text(encoding="utf-8").strip()
        except OSError as exc:
            faults.append(f"{key}.file: {value['file']} cannot be read: {exc.strerror}")
            return ""
    return str(value)


def _section(kind: type[Any], config: Mapping[str, Any], title: str, faults: list[str]) -> Any:
    """Return a section's dataclass; keys may be written in Arvados' or in our own spelling."""
    values: dict[str, Any] = {}
    defaults = kind()
    for item in fields(kind):
        key = next((key for key in config if _same(key, item.name)), None)
        if key is None or config[key] is None:
            continue
        try:
            value = config[key] if item.repr else _secret(f"{title}.{key}", config[key], faults)
            values[item.name] = _coerce(value, getattr(defaults, item.name))
        except (ValueError, TypeError) as exc:
            faults.append(f"{title}.{key}: {exc}")
    return replace(defaults, **values)


def _same(key: str, name: str) -> bool:
    plain = name.replace("_", "")
    return key.replace("_", "").lower() in (plain, plain.removesuffix("s") if name.endswith("_s") else plain)


def _coerce(value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} must be true or false")
        return value
    if isinstance(default, float):
        return parse_duration(str(value)).total_seconds()
    if isinstance(default, int):
        return int(value)
    if isinstance(default, tuple):
        return (value,) if isinstance(value, str) else tuple(value)
    if isinstance(default, Mapping) and not isinstance(value, Mapping):
        raise ValueError("must be a mapping")
    return value if isinstance(default, Mapping) else str(value)


def _login(config: Mapping[str, Any], faults: list[str]) -> Login:
    provider, test = _mapping(config, "OpenIDConnect"), _mapping(config, "Test")
    found: Login = _section(Login, provider, "Login.OpenIDConnect", faults) if provider.get("Enable") else Login()
    return replace(
        found,
        trusted_clients=tuple(map(str, _mapping(config, "TrustedClients"))),
        test_users=_test_users(test.get("Users") or {}, "Login.Test.Users", faults) if test.get("Enable") else (),
    )


def _test_users(users: Any, title: str, faults: list[str]) -> tuple[TestUser, ...]:
    """Return the users in a mapping from their names to addresses and passwords, in either spelling of the keys."""
    found = []
    for name, user in users.items() if isinstance(users, dict) else [(title, None)]:
        values = {str(key).lower(): str(value) for key, value in user.items()} if isinstance(user, dict) else {}
        if set(values) != {"email", "password"}:
            faults.append(f"{title}: {name} must be a mapping with email and password")
            continue
        found.append(TestUser(str(name), **values))
    return tuple(found)


def _nodes(managed: Mapping[str, Any]) -> Nodes:
    hostname = managed.get("AssignNodeHostname", Nodes().assign_node_hostname)
    servers = managed.get("ComputeNodeNameservers", {})
    return Nodes(
        assign_node_hostname=hostname if isinstance(hostname, str) else "",
        compute_node_domain=str(managed.get("ComputeNodeDomain") or ""),
        compute_node_nameservers=tuple(servers) or Nodes().compute_node_nameservers,
    )


def _pool(value: Any, faults: list[str]) -> int:
    try:
        return int(value)
    except (ValueError, TypeError):
        faults.append(f"PostgreSQL.ConnectionPool: {value!r} is no number")
        return 1


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _url(value: Any) -> str:
    text = str(value or "")
    return text if not text or text.endswith("/") or urlsplit(text).path not in ("", "/") else text + "/"


def _listen(services: Mapping[str, Any]) -> Iterator[str]:
    for url, options in _mapping(_mapping(services, "Controller"), "InternalURLs").items():
        address = (options or {}).get("ListenURL") or url
        parts = urlsplit(str(address))
        yield f"{parts.hostname or '127.0.0.1'}:{parts.port or 8003}"


def _libpq(connection: Mapping[str, Any]) -> str:
    """Return libpq keywords as a URL; "" without any."""
    lowered = {str(key).lower(): str(value) for key, value in connection.items() if value not in (None, "")}
    if not lowered:
        return ""
    database = lowered.pop("dbname", "arvados")
    lowered.pop("client_encoding", None)
    lowered.pop("connect_timeout", None)
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted(lowered.items()))
    return f"postgresql:///{quote(database, safe='')}?{query}"
