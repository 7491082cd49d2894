"""`arv-balance api`: an API node on PostgreSQL that may run any number of times."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiserver.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        *("--config", "-c"),
        metavar="FILE",
        envvar="ARV_API_CONFIG",
        help="Arvados' config.yml, or a node's own short file.",
    ),
]
ListenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--listen", metavar="WHERE", help="HOST:PORT or unix:/path instead of the configured ones; may be repeated."
    ),
]
TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust", metavar="NETWORK", help="A network of balancers, whose X-Forwarded-For is believed; may be repeated."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DnsOption = Annotated[
    Path | None,
    typer.Option(
        "--dns", metavar="FILE", envvar="ARV_API_DNS", help="Send DNS updates by the dns: section of this file."
    ),
]
MigrateOption = Annotated[bool, typer.Option(help="Bring the schema up to date before serving.")]

app = typer.Typer(
    invoke_without_command=True,
    help="Run an Arvados-compatible API node; any number of them may share one database.",
)


def register(root: typer.Typer) -> None:
    """Add the group."""
    root.add_typer(app, name="api", rich_help_panel="Run")


@app.callback()
def serve(
    context: typer.Context,
    config: ConfigOption = None,
    listen: ListenOption = None,
    trust: TrustOption = None,
    dns: DnsOption = None,
    migrate: MigrateOption = True,
) -> None:
    """Serve until SIGTERM; prints one JSON line with the addresses when it is ready."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    settings = _settings(config)
    if listen:
        settings = replace(settings, listen=tuple(listen))
    if trust:
        settings = _trusting(settings, trust)
    if dns is not None:
        settings = replace(settings, dns=_dns_section(dns))
    _run(settings, migrate=migrate)


@app.command("migrate")
def migrate_command(context: typer.Context, config: ConfigOption = None) -> None:
    """Bring the schema up to date; safe to run anywhere at any time, each migration is applied once."""
    import asyncio

    from apiserver.errors import ApiServerError
    from apiserver.node import all_migrations, prepare, with_database

    try:
        applied = asyncio.run(prepare(with_database(_settings(config or context.obj)), all_migrations()))
    except ApiServerError as exc:
        raise _failed("the schema was not migrated", exc) from exc
    for step in applied:
        typer.echo(f"applied {step.component} {step.version:04d} {step.name}")
    if not applied:
        typer.echo("the schema is up to date")


jobs_app = typer.Typer(invoke_without_command=True, help="Show the periodic jobs of the cluster, or run one now.")
app.add_typer(jobs_app, name="jobs")


@jobs_app.callback()
def jobs_command(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show each job: when it ran, how it ended, when it runs next."""
    import asyncio
    import json

    from apiserver.errors import ApiServerError

    context.obj = config or context.obj
    if context.invoked_subcommand is not None:
        return
    try:
        rows = asyncio.run(periodic_jobs(_settings(context.obj)))
    except ApiServerError as exc:
        raise _failed("the jobs cannot be listed", exc) from exc
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    typer.echo(f"{'JOB':<18} {'EVERY':>8} {'LAST RUN':<20} {'ROWS':>7} {'NEXT IN':>8}  STATE")
    for row in rows:
        finished = f"{row['finished']:%Y-%m-%d %H:%M:%S}" if row["finished"] else "never"
        state = "running" if row["running"] else row["last_error"] or "ok"
        next_in = f"{max(0, row['next_in'].total_seconds()):.0f}s"
        every = f"{row['every'].total_seconds():.0f}s"
        typer.echo(f"{row['name']:<18} {every:>8} {finished:<20} {row['last_rows'] or 0:>7} {next_in:>8}  {state}")


@jobs_app.command("run")
def run_job(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `arv-balance api jobs` lists it.")],
    config: ConfigOption = None,
) -> None:
    """Make a job due now and wait up to 60 s until some node has run it."""
    import asyncio

    from apiserver.errors import ApiServerError

    try:
        done = asyncio.run(_run_job(_settings(config or context.obj), name))
    except ApiServerError as exc:
        raise _failed(f"job {name} was not run", exc) from exc
    if not done:
        raise CommandError(
            f"job {name} is due, but no node has run it yet", hint="arv-balance api jobs", code=Exit.DEADLINE
        )
    typer.echo(f"job {name} has run")


async def periodic_jobs(settings: "Settings") -> list[dict[str, Any]]:
    """Return the rows of all jobs, by the database's clock."""
    from apiserver.jobs import listed
    from apiserver.node import database_settings, with_database
    from apiserver.store.pool import Store

    async with Store(database_settings(with_database(settings))) as store, store.session() as session:
        return [dict(row) for row in await listed(session)]


async def _run_job(settings: "Settings", name: str, wait_s: float = 60.0) -> bool:
    import asyncio

    from apiserver.jobs import ask_for, is_finished
    from apiserver.node import database_settings, with_database
    from apiserver.store.pool import Store

    async with Store(database_settings(with_database(settings))) as store, store.session() as session:
        before = await ask_for(session, name)
        deadline = asyncio.get_running_loop().time() + wait_s
        while not await is_finished(session, name, before):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True


def _failed(what: str, exc: Exception) -> CommandError:
    from apiserver.store.failures import LostConnectionError

    code = Exit.UNREACHABLE if isinstance(exc, LostConnectionError) else Exit.NO
    return CommandError(what, why=str(exc), code=code)


def _settings(config: Path | None) -> "Settings":
    from apiserver.errors import SettingsError
    from apiserver.settingsfile import load

    if config is None:
        raise CommandError(
            "which configuration?", hint="arv-balance api --config /etc/arvados/config.yml", code=Exit.USAGE
        )
    try:
        return load(config)
    except SettingsError as exc:
        why = str(exc).replace("\n", "\n  ")
        raise CommandError("the configuration cannot be used", why=why, code=Exit.CONFIG) from exc


def _trusting(settings: "Settings", networks: list[str]) -> "Settings":
    from apiserver.settings import validate

    found = replace(settings, trusted_proxies=tuple(networks))
    if faults := validate(found):
        raise CommandError("--trust cannot be used", why="; ".join(faults), code=Exit.USAGE)
    return found


def _dns_section(path: Path) -> "Mapping[str, Any]":
    from apiserver.errors import SettingsError
    from apiserver.settingsfile import dns_section

    try:
        return dns_section(path)
    except SettingsError as exc:
        raise CommandError("there is no DNS section", why=str(exc), code=Exit.CONFIG) from exc


def _run(settings: "Settings", *, migrate: bool) -> None:
    import asyncio
    import json

    from apiserver import logs
    from apiserver.dns import read as read_dns
    from apiserver.errors import ApiServerError, SettingsError
    from apiserver.node import all_migrations, prepare, read_vocabulary, with_database

    logs.to_stderr()
    steps = all_migrations()

    def ready(addresses: list[str]) -> None:
        typer.echo(json.dumps({"ready": True, "listen": addresses}))

    async def main() -> None:
        from apiserver.node import Node

        if migrate:
            await prepare(database, steps)
        clock = asyncio.get_running_loop().time
        await Node(database, vocabulary=vocabulary, steps=steps, clock=clock, dns=dns).run(ready)

    try:
        database, vocabulary = with_database(settings), read_vocabulary(settings)
        dns = read_dns(database)
        asyncio.run(main())
    except SettingsError as exc:
        raise CommandError("the node cannot start", why=str(exc), code=Exit.CONFIG) from exc
    except ApiServerError as exc:
        raise CommandError("the node cannot serve", why=str(exc), code=Exit.UNREACHABLE) from exc
