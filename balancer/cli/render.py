"""`arv-balance render-haproxy` and its siblings: the same configuration for another engine, with what it cannot do."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli import lookup
from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from balancer.config.overlay import Holder, Overlay
    from balancer.config.schema import Config
    from balancer.control.designation_store import Remembered
    from balancer.render.engine import Engine
    from balancer.render.report import Report


class EngineName(StrEnum):
    """The engines that there are templates for."""

    HAPROXY = "haproxy"
    NGINX = "nginx"
    ENVOY = "envoy"
    TRAEFIK = "traefik"
    CADDY = "caddy"


class ReportForm(StrEnum):
    """How the fidelity report is printed."""

    TEXT = "text"
    JSON = "json"


OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="OUT", help="Write there, whole or not at all; else print it.")
]
CheckOption = Annotated[bool, typer.Option("--check", help="Let the engine's own checker read the result.")]
IntentsOption = Annotated[
    bool, typer.Option("--with-intents", help="Lay what operators changed over the file: drained nodes, weights.")
]
ReportOption = Annotated[ReportForm, typer.Option("--report", help="Form of the fidelity report on standard error.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Engine setting: socket, statistics-port, folder."),
]
VersionOption = Annotated[
    str | None, typer.Option("--target-version", metavar="X.Y", help="HAProxy to render for: 2.4, 2.6, 2.8 or 3.0.")
]

_EPILOG = """Examples: arv-balance render-haproxy -o haproxy.cfg --check ·
arv-balance render nginx -c site.yml --report json >nginx.conf.

Exit codes: 0 rendered, 1 the engine's checker refused it, 3 the configuration is not valid or has no safe spelling
in this engine, 4 --with-intents needs state.database and it does not answer, 6 --check was asked for and the engine
is not installed."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("render-haproxy", rich_help_panel="Config", epilog=_EPILOG)(render_haproxy)
    app.command("render", rich_help_panel="Config", epilog=_EPILOG)(render)


def render_haproxy(
    config: lookup.ConfigOption = None,
    out: OutOption = None,
    check: CheckOption = False,
    with_intents: IntentsOption = False,
    target_version: VersionOption = None,
    report: ReportOption = ReportForm.TEXT,
    option: SetOption = None,
) -> None:
    """Print this configuration for HAProxy; the same as `render haproxy`."""
    render(EngineName.HAPROXY, config, out, check, with_intents, target_version, report, option)


def render(
    engine: Annotated[EngineName, typer.Argument(help="Engine to render for.")],
    config: lookup.ConfigOption = None,
    out: OutOption = None,
    check: CheckOption = False,
    with_intents: IntentsOption = False,
    target_version: VersionOption = None,
    report: ReportOption = ReportForm.TEXT,
    option: SetOption = None,
) -> None:
    """Print this configuration for another engine, with a report of what differs there."""
    from balancer.render.description import describe
    from balancer.render.engine import ENGINES
    from balancer.render.engine import render as rendered
    from balancer.render.report import report_of

    if engine is EngineName.ENVOY and out is not None and out.suffix not in {".yaml", ".yml"}:
        raise CommandError("Envoy tells YAML by the name's end", hint=f"-o {out.with_suffix('.yaml')}", code=Exit.USAGE)
    path = lookup.find(config)
    loaded = lookup.load(path, look_at_files=False)
    if not loaded.is_valid:
        from balancer.config.errors import as_text

        typer.echo(as_text(loaded.errors, loaded), err=True)
        raise typer.Exit(Exit.CONFIG)
    chosen = ENGINES[engine.value]
    overlay = _overlay(loaded.config) if with_intents else None
    source = Path(loaded.path).name
    about = describe(loaded.config, source, overlay) if overlay else describe(loaded.config, source)
    options = _options(option, target_version, out)
    fidelity = report_of(chosen.name, loaded.config, _note(engine, target_version))
    text = rendered(chosen, about, options, fidelity.comments())
    written = _write(text, out)
    _say(fidelity, report)
    if check:
        _check(chosen, text, out if written else None)


def _note(engine: EngineName, target_version: str | None) -> str:
    from balancer.render import haproxy

    if engine is not EngineName.HAPROXY:
        if target_version is not None:
            raise CommandError("--target-version is for HAProxy", code=Exit.USAGE)
        return ""
    return haproxy.note(target_version or haproxy.DEFAULT_VERSION)


def _options(given: list[str] | None, target_version: str | None, out: Path | None) -> dict[str, str]:
    options = {} if target_version is None else {"target-version": target_version}
    if out is not None:
        options["dynamic"] = str(out.absolute().with_suffix(".dynamic" + (out.suffix or ".yml")))
    for item in given or ():
        key, equals, value = item.partition("=")
        if not equals:
            raise CommandError(f"{item!r} is no KEY=VALUE", hint="--option statistics-port=8405", code=Exit.USAGE)
        options[key] = value
    return options


def _overlay(config: "Config") -> "Overlay":
    from balancer.config.overlay import NOTHING
    from balancer.control.intents import Kind, from_document
    from balancer.control.overlay import overlay
    from balancer.control.statefile import decode
    from balancer.errors import StateError

    path = Path(config.state.dir) / "intents.json"
    try:
        intents = from_document(decode(path.read_bytes()))
    except FileNotFoundError:
        typer.echo(f"no intents in {path}: no operator has changed anything", err=True)
        return replace(NOTHING, holders=_holders(config))
    except OSError as exc:
        raise CommandError(f"cannot read {path}: {exc.strerror}") from exc
    except StateError as exc:
        raise CommandError(f"{path} {exc}", why="what operators changed cannot be known") from exc
    if intents.get(Kind.PAUSE) is not None:
        typer.echo("traffic is paused; no engine can be told: it will send requests to the nodes", err=True)
    names = {intent.node for intent in intents}
    return overlay(intents, done=names, holders=_holders(config), monotonic=lambda _: 0.0)


def _holders(config: "Config") -> "dict[str, Holder]":
    """Who holds the designations now: by what the balancer wrote down, or by the database that several share."""
    from balancer.config.overlay import Holder
    from balancer.control.statefile import decode
    from balancer.errors import StateError

    shared = {name for name, item in config.designated.items() if item.store == "postgres"}
    rows = _rows(config) if shared else {}
    if shared - rows.keys():
        typer.echo(f"{', '.join(sorted(shared - rows.keys()))}: nobody was designated yet", err=True)
    held = {name: Holder(rows[name].node, rows[name].epoch) for name in shared & rows.keys()}
    if shared == config.designated.keys():
        return held
    path = Path(config.state.dir) / "designations.json"
    try:
        found = decode(path.read_bytes())["designations"]
        return held | {n: Holder(item["node"], item["epoch"]) for n, item in found.items() if n not in shared}
    except FileNotFoundError:
        return held
    except OSError as exc:
        raise CommandError(f"cannot read {path}: {exc.strerror}") from exc
    except (StateError, KeyError, TypeError) as exc:
        raise CommandError(f"{path} holds no designations: {exc}", why="who is designated cannot be known") from exc


def _rows(config: "Config") -> "dict[str, Remembered]":
    import asyncio

    from balancer.config.secrets import reveal
    from balancer.control.designation_row import seen
    from balancer.errors import ConfigError, StateError

    why, hint = "who is designated is kept there", "leave --with-intents out: the order of the file is rendered"
    if config.state.database is None:
        raise CommandError("state.database is not set", why=why, hint=hint, code=Exit.CONFIG)
    try:
        return asyncio.run(seen(config.cluster, reveal(config.state.database)))
    except ConfigError as exc:
        raise CommandError(f"state.database: {exc}", why=why, hint=hint, code=Exit.CONFIG) from exc
    except StateError as exc:
        raise CommandError(str(exc), why=why, hint=hint, code=Exit.UNREACHABLE) from exc


def _write(text: str, out: Path | None) -> bool:
    """Write the documents; True when they went into files."""
    if out is None:
        typer.echo(text, nl=False)
        return False
    from balancer.render.output import write

    try:
        for path in write(text, out):
            typer.echo(f"wrote {path}", err=True)
    except OSError as exc:
        raise CommandError(f"cannot write {out}: {exc.strerror or exc}", why="nothing was changed") from exc
    return True


def _say(fidelity: "Report", form: ReportForm) -> None:
    if form is ReportForm.JSON:
        typer.echo(json.dumps(fidelity.document(), indent=2), err=True)
    else:
        for line in fidelity.text():
            typer.echo(line, err=True)


def _check(engine: "Engine", text: str, out: Path | None) -> None:
    import tempfile

    from balancer.render import programs
    from balancer.render.output import write

    if not engine.check:
        typer.echo(f"{engine.name} has no checker; start it once where nobody uses it", err=True)
        return
    program = programs.find(engine)
    if program is None:
        raise CommandError(programs.advice(engine), why="--check needs it", code=Exit.REFUSED)
    with tempfile.TemporaryDirectory(prefix="arv-render-") as folder:
        if out is None:
            out = write(text, Path(folder) / engine.file_name)[0]
        verdict = programs.check(engine, program, out.absolute())
    if verdict.output and (verdict.warnings or not verdict.passed):
        typer.echo(verdict.output, err=True)
    typer.echo(f"{engine.name}: {'accepted' if verdict.passed else 'refused'} by {program}", err=True)
    if not verdict.passed:
        raise typer.Exit(Exit.NO)
