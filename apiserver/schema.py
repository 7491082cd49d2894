"""The resources of the API: their classes, tables and attributes. Discovery, lists and writes all read this."""

from apiserver.attributes import Resource, table_of

_COMMON = "uuid:s owner_uuid:s created_at:d modified_by_user_uuid:s modified_at:d"
_IGNORED = ("created_at", "modified_at", "modified_by_user_uuid", "modified_by_client_uuid", "kind", "etag", "href")

USERS = Resource(
    "User", "user", "users", "tpzed",
    table_of(f"{_COMMON} email:s first_name:s last_name:s identity_url:s is_admin:b prefs:H is_active:b username:s"),
    computed=("full_name", "is_invited", "can_write", "can_manage", "writable_by"),
    ignored=(*_IGNORED, "full_name", "is_invited", "can_write", "can_manage", "writable_by"),
)  # fmt: skip
API_CLIENT_AUTHORIZATIONS = Resource(
    "ApiClientAuthorization", "api_client_authorization", "api_client_authorizations", "gj3su",
    table_of("uuid:s api_token:s created_by_ip_address:s last_used_by_ip_address:s last_used_at:d expires_at:d "
             "created_at:d modified_at:d scopes:A"),
    computed=("owner_uuid",),
    ignored=(*_IGNORED, "api_client_id", "default_owner_uuid", "created_by_ip_address"),
)  # fmt: skip
GROUPS = Resource(
    "Group", "group", "groups", "j7d0g",
    table_of(f"{_COMMON} name:s group_class:s description:s trash_at:d is_trashed:b delete_at:d properties:J "
             "frozen_by_uuid:s"),
    computed=("can_write", "can_manage", "writable_by"),
    ignored=(*_IGNORED, "can_write", "can_manage", "writable_by", "is_trashed"),
)  # fmt: skip
LINKS = Resource(
    "Link", "link", "links", "o0j2j",
    table_of(f"{_COMMON} tail_uuid:s link_class:s name:s head_uuid:s properties:J"),
    computed=("head_kind", "tail_kind"),
    ignored=(*_IGNORED, "head_kind", "tail_kind"),
)  # fmt: skip
COLLECTIONS = Resource(
    "Collection", "collection", "collections", "4zz18",
    table_of(f"{_COMMON} portable_data_hash:s replication_desired:i replication_confirmed_at:d "
             "replication_confirmed:i manifest_text:t name:s description:s properties:J delete_at:d trash_at:d "
             "is_trashed:b storage_classes_desired:K storage_classes_confirmed:K storage_classes_confirmed_at:d "
             "current_version_uuid:s version:i preserve_version:b file_count:i file_size_total:I"),
    computed=("unsigned_manifest_text",),
    unlisted=("manifest_text",),
    ignored=(*_IGNORED, "is_trashed", "file_count", "file_size_total", "version", "current_version_uuid",
             "unsigned_manifest_text"),
)  # fmt: skip
LOGS = Resource(
    "Log", "log", "logs", "57u5n",
    table_of(f"id:I {_COMMON} object_uuid:s event_at:d event_type:s summary:t properties:H object_owner_uuid:s"),
    computed=("object_kind",),
    ignored=(*_IGNORED, "id", "object_kind"),
)  # fmt: skip
NODES = Resource(
    "Node", "node", "nodes", "7ekkf",
    table_of(f"{_COMMON} modified_by_client_uuid:s slot_number:i hostname:s domain:s ip_address:s first_ping_at:d "
             "last_ping_at:d info:J properties:J job_uuid:s"),
    computed=("status", "crunch_worker_state", "nameservers", "dns"),
    ignored=(*_IGNORED, "status", "crunch_worker_state", "nameservers", "dns"),
)  # fmt: skip
CONTAINERS = Resource(
    "Container", "container", "containers", "dz642",
    table_of(f"{_COMMON} state:s started_at:d finished_at:d log:s environment:H cwd:s command:A output_path:s "
             "mounts:H runtime_constraints:H output:s container_image:s progress:f priority:I exit_code:i "
             "auth_uuid:s locked_by_uuid:s scheduling_parameters:H runtime_status:J runtime_user_uuid:t "
             "runtime_auth_scopes:A lock_count:i gateway_address:s interactive_session_started:b "
             "output_storage_classes:K output_properties:J cost:f subrequests_cost:f output_glob:A service:b "
             "published_ports:J secret_mounts:J runtime_token:t",
             hidden=("secret_mounts", "runtime_token")),
    ignored=_IGNORED,
)  # fmt: skip
CONTAINER_REQUESTS = Resource(
    "ContainerRequest", "container_request", "container_requests", "xvhdp",
    table_of(f"{_COMMON} name:s description:t properties:J state:s requesting_container_uuid:s container_uuid:s "
             "container_count_max:i mounts:H runtime_constraints:H container_image:s environment:H cwd:s command:A "
             "output_path:s priority:i expires_at:d filters:t container_count:i use_existing:b "
             "scheduling_parameters:H output_uuid:s log_uuid:s output_name:s output_ttl:i "
             "output_storage_classes:K output_properties:J cumulative_cost:f output_glob:A service:b "
             "published_ports:J secret_mounts:J runtime_token:t",
             hidden=("secret_mounts", "runtime_token")),
    ignored=(*_IGNORED, "requesting_container_uuid", "container_count"),
)  # fmt: skip
WORKFLOWS = Resource(
    "Workflow", "workflow", "workflows", "7fd4e",
    table_of(f"{_COMMON} name:s description:t definition:t collection_uuid:s"),
    ignored=_IGNORED,
)  # fmt: skip
VIRTUAL_MACHINES = Resource(
    "VirtualMachine", "virtual_machine", "virtual_machines", "2x53u",
    table_of(f"{_COMMON} hostname:s"),
    ignored=_IGNORED,
)  # fmt: skip
KEEP_SERVICES = Resource(
    "KeepService", "keep_service", "keep_services", "bi6l4",
    table_of(f"{_COMMON} service_host:s service_port:i service_ssl_flag:b service_type:s read_only:b"),
    ignored=_IGNORED,
)  # fmt: skip
AUTHORIZED_KEYS = Resource(
    "AuthorizedKey", "authorized_key", "authorized_keys", "fngyi",
    table_of(f"{_COMMON} name:s key_type:s authorized_user_uuid:s public_key:t expires_at:d"),
    ignored=_IGNORED,
)  # fmt: skip
COMPUTED_PERMISSIONS = Resource(
    "ComputedPermission", "computed_permission", "computed_permissions", "",
    table_of("user_uuid:s target_uuid:s perm_level:s"),
)  # fmt: skip

RESOURCES = (
    API_CLIENT_AUTHORIZATIONS, AUTHORIZED_KEYS, COLLECTIONS, COMPUTED_PERMISSIONS, CONTAINER_REQUESTS, CONTAINERS,
    GROUPS, KEEP_SERVICES, LINKS, LOGS, NODES, USERS, VIRTUAL_MACHINES, WORKFLOWS,
)  # fmt: skip

# Paths of the API that this server does not have, and why.
UNSUPPORTED = {
    "jobs": "the jobs API keeps state in files of one host and cannot run on several nodes",
    "job_tasks": "the jobs API keeps state in files of one host and cannot run on several nodes",
    "pipeline_instances": "pipelines need the jobs API, which cannot run on several nodes",
    "pipeline_templates": "pipelines need the jobs API, which cannot run on several nodes",
    "repositories": "git repositories are files of one host and cannot be served by several nodes",
    "keep_disks": "replaced by keep_services",
    "humans": "removed from the API",
    "specimens": "removed from the API",
    "traits": "removed from the API",
    "api_clients": "removed from the API",
    "credentials": "no container can ask for them: this server runs no gateway to containers",
    "user_agreements": "an account needs no signature here to be active",
}

INFIXES = {resource.infix: resource for resource in RESOURCES if resource.infix}
