"""The whole command tree, from the modules of this package."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import typer

from balancer import __version__
from balancer.cli.usage import Commands

EPILOG = """Exit codes: 0 done; 1 the answer is no or bad; 2 usage; 3 invalid configuration; 4 the admin API does not \
answer; 5 not in time; 6 refused by a safety guard (--force); 130 interrupted."""
# As a newcomer needs them; the groups of the help appear in the order of their first command. The rest follows by name.
ORDER = (
    *(
        "serve",
        "demo",
        "api",
        "status",
        "top",
        "dashboard",
        "events",
        "explain",
        "trace",
        "doctor",
        "ledger",
        "nodes",
        "pause",
    ),
    *("designate", "upgrade", "reload", "check", "config", "render", "importing", "dns"),
)


def tree() -> typer.Typer:
    """Return the tree. Each module with a `register` adds its commands."""
    app = typer.Typer(
        name="arv-balance",
        cls=Commands,
        help="Balance requests over identical API servers; drain, park, upgrade, explain.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in sorted(_modules(), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        register = getattr(importlib.import_module(f"balancer.cli.{name}"), "register", None)
        if register is not None:
            register(app)
    app.command("version", rich_help_panel="Shell")(version)
    _reflow(app)
    return app


def _reflow(app: typer.Typer) -> None:
    """Join the lines of each paragraph of an epilog: help breaks them where the terminal ends, and at none of ours."""
    infos: list[Any] = [app.info, *app.registered_commands]
    for info in infos:
        if isinstance(info.epilog, str):
            info.epilog = re.sub(r"(?<!\n)\n(?!\n)", " ", info.epilog)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _reflow(group.typer_instance)


def _modules() -> list[str]:
    """The modules of this package; a name with an underscore before it is nobody's command group."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [module.name for module in found if not module.name.startswith("_")]


def _root() -> None:
    """Balance requests over identical API servers; drain, park, upgrade, explain."""


def version() -> None:
    """Print the version."""
    typer.echo(f"arv-balance {__version__}")
