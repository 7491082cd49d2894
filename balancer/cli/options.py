"""Options that several commands share, with one meaning each."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from balancer.cli.client import ENVIRONMENT, TOKEN_ENVIRONMENT
from balancer.cli.output import Color
from balancer.durations import parse


class Form(StrEnum):
    """`-o`: how data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    NAME = "name"


def a_span(value: str | None) -> str | None:
    """Refuse what is no span of time before the command does anything."""
    if value is not None:
        try:
            parse(value)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc
    return value


AdminOption = Annotated[
    str | None,
    typer.Option(
        "--admin",
        envvar=ENVIRONMENT,
        metavar="WHERE",
        help="Admin API: unix:/path or http://host:port. (default: the configuration's, /run/arv-balance/admin.sock)",
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--admin-token-file", envvar=TOKEN_ENVIRONMENT, metavar="FILE", help="Token for http://, in a file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FormOption = Annotated[Form, typer.Option("--output", "-o", help="How data is printed.")]
ColorOption = Annotated[Color, typer.Option("--color", help="Colour; NO_COLOR wins.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it although a safety guard says no.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for status and events.")]
ForOption = Annotated[
    str | None, typer.Option("--for", metavar="SPAN", callback=a_span, help="Undo it by itself after this: 30m, 2h.")
]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is true.")]
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--timeout", metavar="SPAN", callback=a_span, help="Wait at most this long. (default: the configuration's)"
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def form(output: Form, *, as_json: bool) -> str:
    """Return the form that is meant; `--json` wins."""
    return Form.JSON.value if as_json else output.value
