"""`arv-balance status`: one screen."""

from typing import Annotated

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.output import Color, Painter
from balancer.cli.screen import run_status

EPILOG = """Examples: `arv-balance status -w`; `arv-balance status --exit-code` in a script (1: not healthy);
`arv-balance status -q --timeout 1s` for a watchdog (0: it can serve, 1: it cannot, 4: no balancer)."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", rich_help_panel="Inspect", epilog=EPILOG)(status)


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 unless the cluster is healthy.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; exit 1 when nothing can serve.")] = False,
    timeout: options.TimeoutOption = None,
    output: options.FormOption = options.Form.TABLE,
    as_json: options.JsonOption = False,
    color: options.ColorOption = Color.AUTO,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show the cluster: nodes, traffic, what is wrong and since when."""
    form = options.form(output, as_json=as_json)
    client = connect(admin, admin_token_file)
    code = run_status(client, form, Painter(color), watch=watch, strict=exit_code, quiet=quiet, timeout=timeout)
    raise typer.Exit(code)
