"""`arv-balance check`: every mistake of a configuration at once, with its place and what to write instead."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli import lookup, options
from balancer.cli.exits import Exit
from balancer.cli.output import Color, Painter

if TYPE_CHECKING:
    from balancer.config.errors import Fault
    from balancer.config.file import Loaded


class Format(StrEnum):
    """How faults are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


_EPILOG = """Examples: arv-balance check · arv-balance check new.yml --format github ·
arv-balance check --no-files site.yml · arv-balance check - <site.yml.

Exit codes: 0 valid, 3 not valid (or a warning with --strict)."""


def register(app: typer.Typer) -> None:
    """Add `check` and its alias."""
    app.command("check", rich_help_panel="Config", epilog=_EPILOG)(check)
    app.command("validate", hidden=True, epilog=_EPILOG)(check)


def check(
    file: lookup.FileArgument = None,
    config: lookup.ConfigOption = None,
    output: Annotated[Format, typer.Option("--format", help="How faults are printed.")] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Do not look at the certificates and secrets that it names.")
    ] = False,
    color: options.ColorOption = Color.AUTO,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing when it is valid.")] = False,
) -> None:
    """Check a configuration file and report all its mistakes at once."""
    loaded = lookup.load(file or lookup.find(config), look_at_files=not no_files)
    loaded = loaded.also([*dns_faults(loaded), *(forgotten(loaded) if not no_files else ())])
    failed = not loaded.is_valid or (strict and bool(loaded.faults))
    if failed or not quiet:
        _report(loaded, output, Painter(color))
    raise typer.Exit(Exit.CONFIG if failed else Exit.DONE)


def dns_faults(loaded: "Loaded") -> "list[Fault]":
    """What the DNS part says about its own section, when there is one."""
    if loaded.config.dns is None or any(fault.loc[:1] == ("dns",) for fault in loaded.errors):
        return []
    from balancer.cli.dnsconfig import checked

    return checked(loaded.config.dns, loaded.document, loaded.config.cluster)[1]


def forgotten(loaded: "Loaded") -> "list[Fault]":
    """Run-time changes that hide what the file says; nothing when no balancer has run here."""
    path = Path(loaded.config.state.dir) / "intents.json"
    try:
        data = path.read_bytes()
    except OSError:
        return []
    from balancer.config.errors import warning
    from balancer.config.rules.runtime import shadowed
    from balancer.control.intents import from_document
    from balancer.control.overlay import overlay
    from balancer.control.statefile import decode
    from balancer.errors import StateError

    try:
        intents = from_document(decode(data))
    except StateError as exc:
        return [warning(("state", "dir"), f"{path} {exc}", "a start sets it aside and says so")]
    names = {intent.node for intent in intents}
    return shadowed(loaded.config, overlay(intents, done=names, holders={}, monotonic=lambda _: 0.0))


def _report(loaded: "Loaded", output: Format, painter: Painter) -> None:
    from balancer.config import errors

    match output:
        case Format.JSON:
            typer.echo(errors.as_json(loaded.faults, loaded))
        case Format.GITHUB:
            if loaded.faults:
                typer.echo(errors.as_github(loaded.faults, loaded))
        case Format.TEXT:
            if loaded.faults:
                typer.echo(errors.as_text(loaded.faults, loaded, painter.paint), color=painter.is_on)
            typer.echo(summary(loaded), err=not loaded.is_valid)


def summary(loaded: "Loaded") -> str:
    """Return one line about the file: what it has, or how much is wrong with it."""
    warnings = len(loaded.warnings)
    found = [_count(warnings, "warning")] if warnings else []
    if not loaded.is_valid:
        return f"{loaded.path}: not valid: {', '.join([_count(len(loaded.faults) - warnings, 'error'), *found])}"
    nodes, listeners = len(loaded.config.node_map), len(loaded.config.listen)
    return f"{loaded.path}: valid: {', '.join([_count(listeners, 'listener'), _count(nodes, 'node'), *found])}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
