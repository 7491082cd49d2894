"""`arv-balance demo`: a whole site on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from balancer.cli.exits import CommandError, Exit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", rich_help_panel="Run")(demo)


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything of the demo goes; removed at the end.")] = Path(
        ".demo"
    ),
    nodes: Annotated[int, typer.Option(min=1, max=16, help="How many nodes to start.")] = 3,
    seconds: Annotated[float | None, typer.Option(help="End by itself after this long.")] = None,
) -> None:
    """Run example nodes, the balancer and traffic on this machine; Ctrl-C stops and removes all."""
    try:
        from balancer.demo import show
    except ModuleNotFoundError as exc:
        raise CommandError(
            "the demo's clients are not installed", why=str(exc), hint="pip install 'arv-balance[demo]'"
        ) from exc
    result = show.run(folder, nodes, seconds)
    typer.echo(
        f"\n{result.done} requests, {result.failed} failed, {result.websocket_echoes} WebSocket echoes. All removed."
    )
    if result.failed:
        raise CommandError("requests failed", why="; ".join(result.failures[:5]), code=Exit.NO)
