"""`arv-balance upgrade`: all nodes to a new version as one command that can be resumed or aborted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balancer.cli import options
from balancer.cli.asking import confirm
from balancer.cli.client import connect
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import emit, say

if TYPE_CHECKING:
    from balancer.cli.upgrading import Session
    from balancer.config.upgradeplan import Plan

Document = dict[str, Any]

app = typer.Typer(
    invoke_without_command=True,
    help="Upgrade all nodes as one command: plan, journal, resume, abort.",
    epilog="Example: `arv-balance upgrade --exec 'ssh {host} sudo systemctl restart arvados-controller'`",
)

PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN.yml", help="The plan.")]
MigrationOption = Annotated[
    str | None,
    typer.Option("--migration", metavar="done|again", help="Of a migration that failed, or may have run or not."),
]


def register(root: typer.Typer) -> None:
    """Add the group."""
    root.add_typer(app, name="upgrade", rich_help_panel="Operate")


@app.callback()
def upgrade(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="One node after the other: drain, run CMD in a shell, undrain."),
    ] = None,
    reason: options.ReasonOption = "",
    yes: options.YesOption = False,
    dry_run: options.DryRunOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Upgrade all nodes as one command: plan, journal, resume, abort."""
    if context.invoked_subcommand is not None:
        if command is not None:
            raise CommandError("--exec stands alone, without a command behind it", code=Exit.USAGE)
        return
    if command is None:
        typer.echo(context.get_help())
        raise typer.Exit(Exit.USAGE)
    from balancer.config.upgradeplan import PlanError, from_command

    try:
        plan = from_command(command)
    except PlanError as exc:
        raise CommandError("--exec cannot be used", why=exc.report, code=Exit.CONFIG) from exc
    session = _session(admin, admin_token_file, quiet=quiet or as_json)
    _begin(session, plan, reason or "--exec", yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(epilog="Example: `arv-balance upgrade run examples/upgrade/arvados-systemd.yml --dry-run`")
def run(
    plan: PlanArgument,
    yes: options.YesOption = False,
    dry_run: options.DryRunOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Upgrade the nodes by a plan; every step is in a journal before it has effect."""
    session = _session(admin, admin_token_file, quiet=quiet or as_json)
    _begin(session, _loaded(plan), str(plan), yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def status(
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 while an upgrade is not over.")] = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show the upgrade that goes on, or the last one."""
    from balancer.cli.upgradelines import lines

    document = connect(admin, admin_token_file).get("/v1/upgrade")
    if as_json:
        emit(document)
    else:
        print("\n".join(lines(document)))
    if exit_code and document["open"]:
        raise typer.Exit(Exit.NO)


@app.command()
def resume(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.yml]", help="Only where another machine or user began it.")
    ] = None,
    migration: MigrationOption = None,
    force: options.ForceOption = False,
    dry_run: options.DryRunOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Go on with an upgrade that failed or was interrupted at any step."""
    session, verdict = _session(admin, admin_token_file, quiet=quiet or as_json), _verdict(migration)
    session.found_open(None if plan is None else _loaded(plan))
    document = session.taken_up(force=force, dry_run=dry_run)
    if dry_run:
        _would(document, "go on", as_json)
        return
    _told(session.driven(document, verdict), as_json)


@app.command()
def abort(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.yml]", help="Only where another machine or user began it.")
    ] = None,
    yes: options.YesOption = False,
    force: options.ForceOption = False,
    dry_run: options.DryRunOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Restore what can be restored, and say what cannot."""
    session = _session(admin, admin_token_file, quiet=quiet or as_json)
    session.found_open(None if plan is None else _loaded(plan))
    if dry_run:
        session.taken_up(force=force, dry_run=True)
        _would(session.way_back(), "be aborted", as_json)
        return
    confirm("Give the upgrade up and restore what can be restored.", yes=yes, is_machine=as_json)
    document = session.taken_up(force=force)
    _told(session.driven(session.turned_around(document), _verdict(None)), as_json)


def _session(admin: str | None, token_file: Path | None, *, quiet: bool) -> "Session":
    from balancer.cli.upgrading import Session

    return Session(connect(admin, token_file), quiet=quiet)


def _loaded(path: Path) -> "Plan":
    from balancer.config.upgradeplan import PlanError, load

    try:
        return load(path)
    except PlanError as exc:
        say(exc.report)
        raise CommandError(str(exc), code=Exit.CONFIG) from exc


def _begin(session: "Session", plan: "Plan", name: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    from balancer.cli.upgradelines import plan_lines

    prepared = session.prepared(plan, name)
    planned = session.planned(prepared)
    if dry_run and as_json:
        emit(planned)
        return
    for line in plan_lines(planned, whole=dry_run):
        print(line) if dry_run else say(line)
    if dry_run:
        return
    word = session.cluster if plan.mode == "stop-all" else ""
    confirm(f"Upgrade {len(planned['nodes'])} nodes, {plan.mode}.", yes=yes, is_machine=as_json, word=word)
    _told(session.driven(session.begun(prepared), _verdict(None)), as_json)


def _verdict(migration: str | None) -> Any:
    from balancer.control.upgrade.runner import Verdict

    if migration not in {None, "done", "again"}:
        raise CommandError(f"--migration {migration} means nothing", hint="--migration done|again", code=Exit.USAGE)
    return Verdict(is_done=migration == "done", may_run_again=migration == "again")


def _would(document: Document, what: str, as_json: bool) -> None:
    from balancer.cli.upgradelines import left_lines

    if as_json:
        emit(document)
    else:
        print("\n".join(left_lines(document, what)))


def _told(document: Document, as_json: bool) -> None:
    from balancer.cli.upgradelines import summary

    if as_json:
        emit(document)
    else:
        print("\n".join(summary(document)))
    if document["phase"] == "aborted" and document["left"]:
        raise typer.Exit(Exit.NO)
