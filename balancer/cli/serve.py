"""`arv-balance serve`: check the configuration, then become the parent of all processes."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli.exits import CommandError, Exit
from balancer.cli.lookup import ConfigOption, find

if TYPE_CHECKING:
    from balancer.config.schema import Config

SIGNALS = """Signals: HUP reloads the configuration, USR1 reopens logs, USR2 replaces the program without refusing a
connection, TERM and INT finish what is under way (`drain.timeout`), a second one cuts it."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", rich_help_panel="Run", epilog=SIGNALS)(serve)


def serve(
    config: ConfigOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, envvar="ARV_BALANCE_WORKERS", help="Worker processes, whatever the file says."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the configuration.")] = False,
) -> None:
    """Balance requests over the nodes of a configuration, in the foreground, until a signal ends it."""
    from balancer.config.errors import as_text
    from balancer.config.file import load

    path = find(config).absolute()
    loaded = load(path)
    if loaded.faults:
        typer.echo(as_text(loaded.faults, loaded), err=True)
    if not loaded.is_valid:
        raise typer.Exit(Exit.CONFIG)
    if check:
        typer.echo(f"{path}: valid", err=True)
        return
    _become_parent(path, loaded.config, workers)


def _become_parent(path: Path, config: "Config", workers: int | None) -> None:
    command = [sys.executable, "-P", "-m", "balancer.supervisor"]
    command += ["--config", str(path), "--state-dir", str(config.state.dir), "--hello", _hello(config)]
    command += ["--workers", str(workers)] if workers is not None else []
    sys.stdout.flush()
    try:
        os.execv(sys.executable, command)  # noqa: S606 - ourselves
    except OSError as exc:
        raise CommandError("the balancer cannot be started", why=str(exc)) from exc


def _hello(config: "Config") -> str:
    """What is worth knowing once it is ready."""
    nodes = len(config.node_map)
    look = f"arv-balance status --admin unix:{config.admin.socket}"
    if config.admin.listen is not None and not config.admin.listen.is_unix:
        look += ", or in a browser (arv-balance dashboard logs you in)"
    return f"{nodes} node{'' if nodes == 1 else 's'} of {config.cluster}; look at it with: {look}"
