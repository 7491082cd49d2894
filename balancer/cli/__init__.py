"""The command line; the only place where the three packages meet.

Each module of this package is one command group and has `register(app)`. Modules import what is heavy inside
their command bodies, so that `status` starts in a fraction of a second; this one imports not even the option parser
before it knows that it is needed.
"""

import sys
from typing import TYPE_CHECKING

from balancer.cli.exits import CommandError, Exit
from balancer.errors import BalanceError, ConfigError, RefusedError

if TYPE_CHECKING:
    import typer


def build() -> "typer.Typer":
    """Return the whole command tree."""
    from balancer.cli.tree import tree

    return tree()


def main() -> None:
    """Console script: run a command, turn our own errors into one message and an exit code."""
    from balancer.cli.quick import quick

    try:
        code = quick(sys.argv[1:])
        if code is None:
            build()()
    except CommandError as exc:
        sys.stderr.write(f"{exc}\n")
        code = exc.code
    except BalanceError as exc:
        sys.stderr.write(f"error: {exc}\n")
        code = _code(exc)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        sys.stderr.close()
        code = Exit.DONE
    sys.exit(code)


def _code(exc: BalanceError) -> Exit:
    if isinstance(exc, ConfigError):
        return Exit.CONFIG
    return Exit.REFUSED if isinstance(exc, RefusedError) else Exit.NO
