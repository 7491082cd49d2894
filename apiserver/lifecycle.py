"""States of container requests and containers as tables: which change follows which, what may change when."""

import re
from collections.abc import Mapping
from typing import Any

from apiserver.errors import InvalidError

REQUEST_STATES: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"Uncommitted", "Committed"}),
    "Uncommitted": frozenset({"Uncommitted", "Committed"}),
    "Committed": frozenset({"Committed", "Final"}),
    "Final": frozenset({"Final"}),
}
CONTAINER_STATES: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"Queued"}),
    "Queued": frozenset({"Queued", "Locked", "Cancelled"}),
    "Locked": frozenset({"Locked", "Queued", "Running", "Cancelled"}),
    "Running": frozenset({"Running", "Complete", "Cancelled"}),
    "Complete": frozenset({"Complete", "Cancelled"}),
    "Cancelled": frozenset({"Cancelled"}),
}
FINAL = ("Complete", "Cancelled")

_ALWAYS = frozenset(
    {"owner_uuid", "state", "name", "description", "properties", "modified_at", "modified_by_user_uuid"}
)
_BEFORE_COMMIT = frozenset({
    "command", "container_count_max", "container_image", "cwd", "environment", "filters", "mounts", "output_path",
    "output_glob", "priority", "runtime_token", "runtime_constraints", "container_uuid", "use_existing",
    "scheduling_parameters", "secret_mounts", "output_name", "output_ttl", "output_storage_classes",
    "output_properties", "service", "published_ports", "expires_at", "requesting_container_uuid", "container_count",
    "uuid",
})  # fmt: skip
_COMMITTED = frozenset({"priority", "container_count_max", "container_uuid", "cumulative_cost", "container_count"})
_PROGRESS = frozenset({
    "priority", "gateway_address", "progress", "runtime_status", "cost", "subrequests_cost", "log", "output",
    "output_properties", "exit_code", "started_at", "interactive_session_started",
})  # fmt: skip
_LOCKING = frozenset({"auth_uuid", "locked_by_uuid", "lock_count", "runtime_status"})
_WRITABLE: Mapping[str | None, frozenset[str]] = {
    "Queued": frozenset({"priority"}),
    "Locked": frozenset({"priority", "runtime_status", "log", "lock_count", "auth_uuid", "locked_by_uuid"}),
    "Running": _PROGRESS | _LOCKING,
    "Complete": frozenset(),
    "Cancelled": frozenset(),
}
_STATUS_KEYS = ("error", "errorDetail", "warning", "warningDetail", "activity", "preemptionNotice")
_CONSTRAINTS = frozenset({"API", "gpu", "cuda", "keep_cache_disk", "keep_cache_ram", "ram", "vcpus"})
_SCHEDULING = frozenset({"max_run_time", "partitions", "preemptible", "supervisor"})
_MOUNT_KINDS = frozenset({"collection", "tmp", "keep", "file", "json", "text"})
_ENVIRONMENT_NAME = re.compile(r"[^=\x00]+")


def check_request_state(old: str | None, new: str) -> None:
    """Raise InvalidError unless a request may go from one state to the other."""
    if new not in REQUEST_STATES.get(old, frozenset()):
        raise InvalidError(f"Invalid state change from {old or 'new'} to {new[:40]}")


def check_container_state(old: str | None, new: str) -> None:
    """Raise InvalidError unless a container may go from one state to the other."""
    if new not in CONTAINER_STATES.get(old, frozenset()):
        raise InvalidError(f"Invalid state change from {old or 'new'} to {new[:40]}")


def request_changeable(old: str | None, new: str, *, is_admin: bool) -> frozenset[str]:
    """Return the attributes that may change while a request goes from one state to the other."""
    if old in (None, "Uncommitted"):
        return _ALWAYS | _BEFORE_COMMIT
    if old == "Committed" and new == "Committed":
        return _ALWAYS | _COMMITTED | ({"log_uuid"} if is_admin else frozenset())
    if old == "Committed":
        more = {"output_uuid", "log_uuid", "secret_mounts", "runtime_token"} if is_admin else set()
        return _ALWAYS | {"priority", "cumulative_cost"} | more
    return _ALWAYS - {"state"}


def container_changeable(old: str, new: str) -> frozenset[str]:
    """Return the attributes that may change while a container goes from one state to the other."""
    common = frozenset({"state", "modified_at", "modified_by_user_uuid"})
    if new == "Complete" and old == "Running":
        return common | _PROGRESS | {"finished_at"}
    if new == "Cancelled":
        more = _PROGRESS if old in ("Running", "Complete") else frozenset({"log", "runtime_status", "cost"})
        return common | more | _LOCKING | {"finished_at"}
    if new != old:
        return common | _LOCKING | _WRITABLE[new] | (frozenset({"started_at"}) if new == "Running" else frozenset())
    return common | _WRITABLE[new]


def check_command(command: Any) -> None:
    """Raise InvalidError unless it is a non-empty array of strings."""
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise InvalidError("command must be a non-empty array of strings")


def check_mounts(mounts: Mapping[str, Any], output_path: str | None) -> None:
    """Raise InvalidError unless all mounts are well formed and one of them is the output."""
    for target, mount in mounts.items():
        if target not in ("stdin", "stdout", "stderr") and not target.startswith("/"):
            raise InvalidError(f"mounts: {target[:60]!r} must be stdin, stdout, stderr or an absolute path")
        if not isinstance(mount, dict) or mount.get("kind") not in _MOUNT_KINDS:
            raise InvalidError(f"mounts: {target[:60]!r} needs a kind out of {', '.join(sorted(_MOUNT_KINDS))}")
    if output_path is not None and output_path not in mounts:
        raise InvalidError(f"output_path {output_path[:60]!r} must be one of the mounts")


def check_environment(environment: Mapping[str, Any]) -> None:
    """Raise InvalidError unless names and values can be an environment."""
    for name, value in environment.items():
        if not _ENVIRONMENT_NAME.fullmatch(name) or not isinstance(value, str):
            raise InvalidError(f"environment: {name[:60]!r} must have no = in its name and a string as value")


def check_constraints(constraints: Mapping[str, Any], *, commit: bool) -> None:
    """Raise InvalidError for unknown or wrong runtime constraints; for missing ones on commit."""
    for name, value in constraints.items():
        if name not in _CONSTRAINTS:
            raise InvalidError(f"runtime_constraints: {name[:60]!r} is unknown")
        numeric = name in ("vcpus", "ram", "keep_cache_ram", "keep_cache_disk")
        if numeric and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise InvalidError(f"runtime_constraints: {name} must be a non-negative integer")
    for name in ("vcpus", "ram") if commit else ():
        if not constraints.get(name):
            raise InvalidError(f"runtime_constraints: {name} must be a positive integer")


def check_scheduling(parameters: Mapping[str, Any]) -> None:
    """Raise InvalidError for unknown or wrong scheduling parameters."""
    for name, value in parameters.items():
        if name not in _SCHEDULING:
            raise InvalidError(f"scheduling_parameters: {name[:60]!r} is unknown")
        if name == "max_run_time" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise InvalidError("scheduling_parameters: max_run_time must be a non-negative integer")
        if name == "partitions" and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise InvalidError("scheduling_parameters: partitions must be an array of strings")
        if name in ("preemptible", "supervisor") and not isinstance(value, bool):
            raise InvalidError(f"scheduling_parameters: {name} must be true or false")


def check_status(status: Mapping[str, Any]) -> None:
    """Raise InvalidError unless the known keys of a runtime status are strings."""
    for name in _STATUS_KEYS:
        if name in status and not isinstance(status[name], str):
            raise InvalidError(f"runtime_status: {name} must be a string")
