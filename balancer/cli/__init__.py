"""The command line; the only place where the three packages meet.

Each module of this package is one command group and has `register(app)`. Modules import what is heavy inside
their command bodies, so that `status` starts in a fraction of a second.
"""

import importlib
import pkgutil
import sys

import typer

from balancer import __version__
from balancer.cli.exits import CommandError, Exit
from balancer.errors import BalanceError, ConfigError, RefusedError


def build() -> typer.Typer:
    """Return the whole command tree."""
    app = typer.Typer(
        name="arv-balance",
        help="Balance requests over identical API servers; drain, park, upgrade, explain.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command("version", rich_help_panel="Shell")(version)
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        register = getattr(importlib.import_module(f"{__name__}.{module.name}"), "register", None)
        if register is not None:
            register(app)
    return app


def _root() -> None:
    """Balance requests over identical API servers; drain, park, upgrade, explain."""


def version() -> None:
    """Print the version."""
    typer.echo(f"arv-balance {__version__}")


def main() -> None:
    """Console script: run a command, turn our own errors into one message and an exit code."""
    try:
        build()()
    except CommandError as exc:
        typer.echo(str(exc), err=True)
        sys.exit(exc.code)
    except BalanceError as exc:
        typer.echo(f"error: {exc}", err=True)
        sys.exit(_code(exc))


def _code(exc: BalanceError) -> Exit:
    if isinstance(exc, ConfigError):
        return Exit.CONFIG
    return Exit.REFUSED if isinstance(exc, RefusedError) else Exit.NO
