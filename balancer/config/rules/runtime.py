"""Run-time changes that the file and its operators may have forgotten."""

from balancer.config.errors import Fault, warning
from balancer.config.overlay import Overlay
from balancer.config.schema import Config
from balancer.model import Admin


def shadowed(config: Config, overlay: Overlay) -> list[Fault]:
    """Return a warning for each intent that hides what the file says, or that nothing in the file answers to."""
    faults: list[Fault] = []
    for name, intent in overlay.nodes.items():
        loc, forget = ("nodes", name), f"arv-balance nodes forget {name}"
        in_file = name in config.node_map
        if in_file and intent.admin is Admin.REMOVED:
            faults.append(warning(loc, "it was removed at run time and stays out", forget, at_key=True))
        elif in_file and intent.added is not None and intent.added.url != config.node_map[name].url:
            message = f"it was added at run time as {intent.added.url}; the address in the file holds"
            faults.append(warning(loc, message, forget, at_key=True))
        elif not in_file and intent.added is None:
            message = f"changes made at run time are kept for node '{name}', which is gone"
            faults.append(warning(("nodes",), message, forget, at_key=True))
    return faults
