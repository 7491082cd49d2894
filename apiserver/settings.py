"""What a node is told. `apiserver.settingsfile` reads it from files."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from apiserver.names import BASE36


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """The `API` section."""

    max_concurrent_requests: int = 64
    max_queued_requests: int = 128
    max_queue_time_for_lock_requests_s: float = 2.0
    request_timeout_s: float = 300.0
    max_request_size: int = 134217728
    max_items_per_response: int = 1000
    max_index_database_read: int = 134217728
    max_token_lifetime_s: float = 0.0
    send_timeout_s: float = 60.0
    websocket_client_event_queue: int = 64
    disabled_apis: tuple[str, ...] = ()
    freeze_project_requires_description: bool = False
    freeze_project_requires_properties: tuple[str, ...] = ()
    unfreeze_project_requires_admin: bool = False
    vocabulary_path: str = ""


@dataclass(frozen=True, slots=True)
class AuditLogs:
    """The `AuditLogs` section."""

    max_age_s: float = 336 * 3600.0
    max_delete_batch: int = 0
    unlogged_attributes: tuple[str, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether changes are logged at all."""
        return not (self.max_age_s == 0 and self.max_delete_batch > 0)


@dataclass(frozen=True, slots=True)
class Collections:
    """The `Collections` section."""

    blob_signing: bool = True
    blob_signing_key: str = field(default="", repr=False)
    blob_signing_ttl_s: float = 336 * 3600.0
    default_replication: int = 2
    default_trash_lifetime_s: float = 336 * 3600.0
    trash_sweep_interval_s: float = 60.0
    collection_versioning: bool = True
    preserve_version_if_idle_s: float = 10.0
    forward_slash_name_substitution: str = ""


@dataclass(frozen=True, slots=True)
class Users:
    """The `Users` section."""

    anonymous_user_token: str = field(default="", repr=False)
    role_groups_visible_to_all: bool = True
    can_create_role_groups: bool = True
    auto_setup_new_users: bool = False
    new_users_are_active: bool = False
    auto_admin_first_user: bool = False


@dataclass(frozen=True, slots=True)
class TestUser:
    """A user of `Login.Test` with its password, for clusters that hold nothing worth protecting."""

    __test__ = False
    name: str
    email: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """Login by browser: an OpenID Connect provider, `Login.OpenIDConnect`; without an issuer there is none."""

    issuer: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    trusted_clients: tuple[str, ...] = ()  # sites, besides our own, that a browser may bring its token to
    test_users: tuple[TestUser, ...] = ()  # `Login.Test.Users`


@dataclass(frozen=True, slots=True)
class Nodes:
    """How compute nodes get their names: `Containers.SLURM.Managed`."""

    assign_node_hostname: str = "compute%<slot_number>d"  # "" assigns none
    compute_node_domain: str = ""
    compute_node_nameservers: tuple[str, ...] = ("192.168.1.1",)
    max_compute_nodes: int = 64


@dataclass(frozen=True, slots=True)
class Containers:
    """The `Containers` section."""

    max_dispatch_attempts: int = 10
    max_retry_attempts: int = 3
    default_keep_cache_ram: int = 0
    clean_log_rows_after_s: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a node is told. Equal on all nodes but for `listen`."""

    cluster: str
    database_url: str = field(repr=False)
    listen: tuple[str, ...] = ("127.0.0.1:8003",)
    external_url: str = "https://localhost/"
    websocket_url: str = ""
    database_dir: str = ""  # of a local server, used when there is no database_url
    database_pool: int = 10
    database_pooler: bool = False
    statement_timeout_s: float = 30.0
    system_root_token: str = field(default="", repr=False)
    management_token: str = field(default="", repr=False)
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    issue_trusted_tokens: bool = True
    job_lease_s: float = 30.0  # how long a dead node's run keeps its job from others
    stop_delay_s: float = 4.0
    stop_timeout_s: float = 30.0
    api: ApiLimits = field(default_factory=ApiLimits)
    audit_logs: AuditLogs = field(default_factory=AuditLogs)
    collections: Collections = field(default_factory=Collections)
    users: Users = field(default_factory=Users)
    login: Login = field(default_factory=Login)
    nodes: Nodes = field(default_factory=Nodes)
    containers: Containers = field(default_factory=Containers)
    storage_classes: Mapping[str, Any] = field(default_factory=lambda: {"default": {"Default": True}})
    external_urls: Mapping[str, str] = field(default_factory=dict)
    dns: Mapping[str, Any] = field(default_factory=dict, repr=False)  # as docs/dns.md has it; the sender is this node


def validate(settings: Settings) -> list[str]:
    """Return all faults of settings as sentences."""
    faults = []
    if len(settings.cluster) != 5 or any(char not in BASE36 for char in settings.cluster):
        faults.append(f"cluster: {settings.cluster!r} must be five of 0-9a-z")
    for name in ("system_root_token", "management_token"):
        token = getattr(settings, name)
        if token and not all(char.isascii() and char.isprintable() and char != " " for char in token):
            faults.append(f"{name}: must be printable ASCII without spaces")
    if not settings.system_root_token:
        faults.append("system_root_token (SystemRootToken): must be set")
    if urlsplit(settings.external_url).scheme not in ("http", "https"):
        faults.append(f"external_url (Services.Controller.ExternalURL): {settings.external_url!r} is no http(s) URL")
    if settings.login.issuer and not settings.login.client_id:
        faults.append("login.client_id (Login.OpenIDConnect.ClientID): must be set when there is an issuer")
    if settings.database_pool < 1:
        faults.append("database pool: must be at least 1")
    if not settings.listen:
        faults.append("listen: must name at least one address")
    wrong = [text for text in settings.trusted_proxies if not _is_network(text)]
    return faults + [f"trusted_proxies: {text!r} is no network such as 10.0.0.0/8" for text in wrong]


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


_OF_ONE_NODE = frozenset({"listen", "database_url", "database_dir", "database_pool", "database_pooler"})


def digest(settings: Settings) -> str:
    """Return a hash of what must be equal on all nodes, secrets too; it tells nothing of them."""
    shared = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in _OF_ONE_NODE}
    values = {name: asdict(value) if is_dataclass(value) else value for name, value in shared.items()}  # type: ignore[arg-type]
    key = settings.system_root_token.encode()
    return hmac.new(key, json.dumps(values, sort_keys=True, default=list).encode(), "sha256").hexdigest()[:16]
