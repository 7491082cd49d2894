"""`arv-balance import`: the configuration of a front end that is there, as ours, with what it could not carry over."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from balancer.importing.importer import Imported


class Kind(StrEnum):
    """Whose files can be read."""

    HAPROXY = "haproxy"
    NGINX = "nginx"


class ReportForm(StrEnum):
    """How the list of what was lost is printed."""

    TEXT = "text"
    JSON = "json"


_EPILOG = """Examples: arv-balance import /etc/haproxy/haproxy.cfg -o arv-balance.yml ·
arv-balance import nginx.conf --frontend api.example.org --report json.

Exit codes: 0 read, 1 something was not carried over and --strict was given, 3 the file cannot be read, or what came
of it is not valid yet (it is written all the same, to be completed)."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", rich_help_panel="Config", epilog=_EPILOG)(import_)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="haproxy.cfg or nginx.conf.")],
    kind: Annotated[Kind | None, typer.Option("--from", help="Whose file it is, when its name does not say.")] = None,
    frontend: Annotated[
        str | None,
        typer.Option("--frontend", metavar="NAME", help="Which service: a frontend (HAProxy) or server_name (nginx)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT", help="Write there, whole or not at all; else print it.")
    ] = None,
    report: Annotated[ReportForm, typer.Option("--report", help="Form of the list on standard error.")] = (
        ReportForm.TEXT
    ),
    strict: Annotated[bool, typer.Option("--strict", help="Fail when something was not carried over.")] = False,
) -> None:
    """Turn the front end of HAProxy or nginx into a configuration of ours, and list what it could not carry over."""
    from balancer.importing.importer import read

    try:
        found = read(file, kind.value if kind else None, frontend)
    except OSError as exc:
        raise CommandError(f"cannot read {file}: {exc.strerror or exc}", code=Exit.CONFIG) from exc
    _write(found.text, out)
    _say(found, report)
    if not found.loaded.is_valid:
        raise typer.Exit(Exit.CONFIG)
    if strict and found.lost:
        raise typer.Exit(Exit.NO)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    from balancer.render.output import write

    try:
        write(text, out)
    except OSError as exc:
        raise CommandError(f"cannot write {out}: {exc.strerror or exc}", why="nothing was changed") from exc
    typer.echo(f"wrote {out}", err=True)


def _say(found: "Imported", form: ReportForm) -> None:
    from balancer.config.errors import as_text

    if form is ReportForm.JSON:
        typer.echo(json.dumps(found.report(), indent=2), err=True)
        return
    for item in found.lost:
        typer.echo(f"line {item.line}: {item.text}\n  not carried over: {item.why}", err=True)
    if not found.loaded.is_valid:
        typer.echo(as_text(found.loaded.errors, found.loaded), err=True)
    typer.echo(found.summary(), err=True)
