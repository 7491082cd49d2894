"""`arv-balance config`: what is set and why, what changed, the schema, a starter file, nodes from elsewhere."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli import lookup
from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from balancer.config.arvados import Cluster
    from balancer.config.file import Loaded

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_ARVADOS = Path("/etc/arvados/config.yml")


def register(app: typer.Typer) -> None:
    """Add the `config` group."""
    group = typer.Typer(help="Show, compare and start configurations.", no_args_is_help=True)
    group.command("show", epilog="Examples: arv-balance config show · arv-balance config show --origin")(show)
    group.command("diff", epilog="Exit codes: 0 the same, 1 different, 3 a file is not valid.")(diff)
    group.command("schema", epilog="Example: arv-balance config schema > arv-balance.schema.json")(schema)
    group.command("init", epilog="Example: arv-balance config init --from-arvados /etc/arvados/config.yml")(init)
    group.command("discover", epilog="Example: arv-balance config discover --service Controller")(discover)
    app.add_typer(group, name="config", rich_help_panel="Config")


def show(
    file: lookup.FileArgument = None,
    config: lookup.ConfigOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the configuration that is in effect, defaults and preset included."""
    from balancer.config import flat
    from balancer.config.origin import Origins

    loaded = _valid(file or lookup.find(config))
    data = flat.plain(loaded.config)
    origins = Origins(loaded)
    if not as_json:
        typer.echo(flat.as_yaml(data, origins.of if origin else None), nl=False)
        return
    document: dict[str, object] = {"schema": "arv-balance/config/v1", "file": loaded.path, "config": data}
    if origin:
        document["origins"] = {value.path: origins.of(value.loc) for value in flat.values(data)}
    typer.echo(json.dumps(document, indent=2))


def diff(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration that is there; - is standard input.")],
    file2: Annotated[
        Path | None, typer.Argument(metavar="FILE2", help="The new one. Without it: from the default place to FILE.")
    ] = None,
    config: lookup.ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the keys that differ between two configurations, in effect, not in text."""
    from balancer.config.diff import differences

    old, new = (file, file2) if file2 else (lookup.find(config), file)
    changes = differences(_valid(old).config, _valid(new).config)
    if as_json:
        plain = [change.as_json() for change in changes]
        typer.echo(json.dumps({"schema": "arv-balance/config-diff/v1", "changes": plain}, indent=2))
    else:
        for change in changes:
            typer.echo(str(change))
    raise typer.Exit(Exit.NO if changes else Exit.DONE)


def schema() -> None:
    """Print the JSON Schema (2020-12) of the configuration file, for editors and CI."""
    from balancer.config.reference import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; - is standard output.")] = Path(
        "arv-balance.yml"
    ),
    from_arvados: Annotated[
        Path | None, typer.Option("--from-arvados", metavar="FILE", help="Take the nodes from this Arvados config.yml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration to start from."""
    from balancer.config import starter

    cluster = _cluster(from_arvados, "Controller", None) if from_arvados else None
    text = starter.arvados(cluster) if cluster else starter.plain()
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    if file.exists() and not force:
        raise CommandError(
            f"{file} is there already", why="nothing was changed", hint=f"{_retry(file)} --force", code=Exit.REFUSED
        )
    try:
        file.write_text(text)
    except OSError as exc:
        raise CommandError(f"cannot write {file}: {exc.strerror}") from exc
    typer.echo(f"wrote {file}; edit it, then: arv-balance check {file}", err=True)


def _retry(file: Path) -> str:
    return f"arv-balance config init {file}"


def discover(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Arvados config.yml.")] = DEFAULT_ARVADOS,
    service: Annotated[str, typer.Option("--service", help="Service whose InternalURLs are the nodes.")] = "Controller",
    cluster: Annotated[str | None, typer.Option("--cluster", help="Cluster id, when the file has several.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the nodes that an Arvados config.yml names; never anything else of it."""
    found = _cluster(file, service, cluster)
    if as_json:
        nodes = [{"name": node.name, "url": str(node.url), "capacity": node.capacity} for node in found.nodes]
        document = {"schema": "arv-balance/discover/v1", "cluster": found.id, "service": found.service, "nodes": nodes}
        typer.echo(json.dumps(document, indent=2))
    else:
        for line in _table(found):
            typer.echo(line)
    for note in found.skipped:
        typer.echo(f"warning: {note}", err=True)
    if found.tls_insecure:
        typer.echo("warning: TLS.Insecure is on in this file: its services verify no certificate", err=True)


def _table(cluster: "Cluster") -> list[str]:
    rows = [("NODE", "URL", "CAPACITY")]
    rows += [(node.name, str(node.url), str(node.capacity or "no limit")) for node in cluster.nodes]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{name:{first}}  {url:{second}}  {capacity}" for name, url, capacity in rows]


def _cluster(file: Path, service: str, cluster: str | None) -> "Cluster":
    from balancer.config import arvados

    try:
        return arvados.read(str(file), service=service, cluster=cluster)
    except arvados.ArvadosError as exc:
        raise CommandError(str(exc), why=exc.hint, code=Exit.CONFIG) from exc


def _valid(path: Path) -> "Loaded":
    from balancer.config.errors import as_text

    loaded = lookup.load(path, look_at_files=False)
    if not loaded.is_valid:
        typer.echo(as_text(loaded.errors, loaded), err=True)
        raise typer.Exit(Exit.CONFIG)
    return loaded
