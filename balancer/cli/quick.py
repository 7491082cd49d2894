"""The two commands that machines type again and again, without the option parser, whose import costs more than they do.

Only what is plain is taken here; everything else goes the ordinary way and means the same.
"""

from collections.abc import Sequence

from balancer.cli.client import connect
from balancer.cli.exits import Exit
from balancer.cli.output import Color, Painter
from balancer.cli.screen import run_status, show_nodes

_FLAGS = {"-q": "quiet", "--quiet": "quiet", "--exit-code": "strict", "--json": "json"}
_VALUES = {"--timeout": "timeout", "--admin": "admin"}


def quick(arguments: Sequence[str]) -> int | None:
    """Run a plain `status` or `nodes list` and return its exit code; None when the arguments are not that plain."""
    if arguments[:1] == ["status"]:
        given = _plain(arguments[1:])
    elif arguments[:2] == ["nodes", "list"]:
        given = _plain(arguments[2:])
        if given is not None and given.keys() & {"quiet", "strict", "timeout"}:
            return None
    else:
        return None
    if given is None:
        return None
    client, form = connect(given.get("admin")), "json" if "json" in given else "table"
    painter = Painter(Color.AUTO)
    if arguments[0] == "status":
        strict, quiet, timeout = "strict" in given, "quiet" in given, given.get("timeout")
        return run_status(client, form, painter, watch=False, strict=strict, quiet=quiet, timeout=timeout)
    show_nodes(client.get("/v1/nodes"), form, painter)
    return Exit.DONE


def _plain(arguments: Sequence[str]) -> dict[str, str] | None:
    given: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument in _FLAGS:
            given[_FLAGS[argument]] = "yes"
        elif argument in _VALUES:
            value = next(rest, None)
            if value is None:
                return None
            given[_VALUES[argument]] = value
        else:
            return None
    return given
