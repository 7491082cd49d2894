"""Acting as the system user: what the server does on its own, inside a request of somebody."""

from dataclasses import replace

from apiserver.auth import Viewer
from apiserver.names import SYSTEM_SUFFIX, TOKEN, system_user
from apiserver.operation import Call


def system_viewer(cluster: str) -> Viewer:
    """Return the system user as a viewer."""
    root = system_user(cluster)
    return Viewer(root, True, True, f"{cluster}-{TOKEN}-{SYSTEM_SUFFIX}", ("all",), "", (root,))


def as_system(call: Call) -> Call:
    """Return the same call, in the same transaction, acting as the system user."""
    return replace(call, viewer=system_viewer(call.context.cluster), parameters={})
