"""`arv-balance demo`: a whole site on this machine, and the scenes that are played on it."""

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli import options
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import Color, Painter

if TYPE_CHECKING:
    from balancer.demo.stage import Printer

EPILOG = """Examples: `arv-balance demo`, and in another terminal `arv-balance demo upgrade`;
`arv-balance demo --script` plays all scenes and ends with 0 only if no request failed."""


class SceneName(StrEnum):
    """What may be played while a demo runs."""

    SCALE_OUT = "scale-out"
    DRAIN = "drain"
    KILL = "kill"
    PAUSE = "pause"
    UPGRADE = "upgrade"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", rich_help_panel="Run", epilog=EPILOG)(demo)


def demo(
    scene: Annotated[SceneName | None, typer.Argument(help="Play this on the demo that runs.")] = None,
    script: Annotated[bool, typer.Option("--script", help="Start, play all scenes, end.")] = False,
    folder: Annotated[Path, typer.Option(help="Where its files go; removed at the end.")] = Path(".demo"),
    nodes: Annotated[int, typer.Option(min=3, max=16, help="How many nodes to start.")] = 3,
    echo: Annotated[bool, typer.Option("--echo", help="Example nodes instead of API nodes: no database.")] = False,
    client: Annotated[
        Path, typer.Option(help="Environment of the official client, which is used when it is there.")
    ] = Path(".venv-client"),
    seconds: Annotated[float | None, typer.Option(help="End by itself after this long.")] = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Run API nodes, the balancer, DNS and traffic on this machine; Ctrl-C stops and removes all."""
    try:
        import httpx  # noqa: F401
        import trustme  # noqa: F401
        import websockets  # noqa: F401
    except ModuleNotFoundError as exc:
        hint = "pip install 'arv-balance[demo]'"
        raise CommandError("what the demo needs is not installed", why=str(exc), hint=hint) from exc
    if scene is not None:
        _play(scene, folder.resolve(), _printer(color))
        return
    from balancer.demo.show import Options, run

    wanted = Options(folder.resolve(), nodes, echo, client.resolve(), seconds, script, ("--color", color.value))
    result = run(wanted, _printer(color))
    tally = result.tally
    heard = "echoes" if echo else "events"
    counts = f"{tally.done} requests, {tally.failed} failed, {tally.writes} of them writes"
    others = f"{tally.events} WebSocket {heard}, {tally.official} calls of the official client"
    typer.echo(f"{counts}; {others}. All removed.")
    if not result.is_good:
        broken = f"broken: {', '.join(result.broken)}" if result.broken else ""
        raise CommandError("the demo is not as promised", why="; ".join([broken, *tally.failures[:5]]), code=Exit.NO)


def _play(scene: SceneName, folder: Path, printer: "Printer") -> None:
    from balancer.demo.scenes import play
    from balancer.demo.stage import Stage

    if not play(scene.value, Stage(folder, printer)):
        raise CommandError(f"{scene.value} is not as promised", hint="the logs are in .demo/logs", code=Exit.NO)


def _printer(color: Color) -> "Printer":
    from balancer.demo.stage import Printer

    return Printer(sys.stdout, Painter(color).paint, shutil.get_terminal_size().columns)
