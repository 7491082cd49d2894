"""`arv-balance dns`: plan, send, examine and explain DNS records of nodes."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balancer.cli import dnsconfig, dnssources, dnswork, lookup, options
from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from dnsupdate.doctor import Finding
    from dnsupdate.overview import TargetPlan
    from dnsupdate.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TargetOption = Annotated[str | None, typer.Option("--target", "-t", metavar="NAME", help="Only this target.")]
TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="SPAN", callback=options.a_span, help="Wait at most this long.")
]
DesignatedOption = Annotated[
    bool, typer.Option("--designated", help="This node writes the directories of targets of kind files.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Also delete hosts that the brake holds back.")]


def register(app: typer.Typer) -> None:
    """Add the `dns` group."""
    group = typer.Typer(help="DNS records of nodes: plan, send, examine, explain.", no_args_is_help=True)
    for name, function, epilog in _COMMANDS:
        group.command(name, epilog=epilog, hidden=name == "diff")(function)
    app.add_typer(group, name="dns", rich_help_panel="DNS")


def plan(
    config: lookup.ConfigOption = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
    nsupdate: Annotated[bool, typer.Option("--nsupdate", help="Print it as scripts for nsupdate.")] = False,
) -> None:
    """Show what would be changed; sends nothing."""
    settings = dnsconfig.settings(config)
    plans = dnswork.run(_plans(settings, target))
    if nsupdate:
        typer.echo(_scripts(settings, plans), nl=False)
    elif as_json:
        from dnsupdate.overview import plan_json

        typer.echo(json.dumps({"schema": "arv-balance/dns-plan/v1", "targets": [plan_json(one) for one in plans]}))
    else:
        _print_plans(plans, " Nothing was sent.")
    raise typer.Exit(Exit.NO if any(not one.is_empty for one in plans) else Exit.DONE)


async def _plans(settings: "Settings", target: str | None) -> "list[TargetPlan]":
    from dnsupdate.overview import Overview

    async with dnswork.opened(settings) as store:
        overview = Overview(settings, store)
        return [await overview.plan(name) for name in _primaries(settings, target)]


def _primaries(settings: "Settings", target: str | None) -> list[str]:
    """Return the targets that are name servers; say of the others that they are left out."""
    names = dnsconfig.targets(settings, target)
    for name in names:
        if settings.targets[name].kind == "files":
            text = "is a directory: there is no plan of it; `dns sync --designated` compares and writes it"
            typer.echo(f"target {name} {text}", err=True)
    return [name for name in names if settings.targets[name].kind != "files"]


def _print_plans(plans: "list[TargetPlan]", end: str = "") -> None:
    from dnsupdate.overview import plan_lines

    for one in plans:
        typer.echo("\n".join(plan_lines(one)) + end)


def _scripts(settings: "Settings", plans: "list[TargetPlan]") -> str:
    from dnsupdate.plan import Policy
    from dnsupdate.update import nsupdate_script, unfenced

    scripts = []
    for one in plans:
        target = settings.targets[one.target]
        policy = Policy(settings.owner_id, target.ownership, target.conflict)
        changes = one.plan.zones()
        zones = [zone.name for zone in settings.zones_of(one.target) if zone.name in changes]
        updates = [unfenced(zone, changes[zone], policy, target.marker_ttl) for zone in zones]
        if updates:
            scripts.append(f"; nsupdate -k {target.key_file}\n")
            scripts.append(nsupdate_script(updates, server=target.servers[0], port=target.port))
    return "".join(scripts)


def apply(
    config: lookup.ConfigOption = None,
    yes: YesOption = False,
    force: ForceOption = False,
    designated: DesignatedOption = False,
    timeout: TimeoutOption = "60s",
) -> None:
    """Show what would be changed, ask, and send it."""
    settings = dnsconfig.settings(config)
    plans = dnswork.run(_plans(settings, None))
    _print_plans(plans)
    if not designated and all(one.is_empty for one in plans):
        typer.echo("nothing to do", err=True)
        return
    if not yes:
        _confirm()
    _send(settings, force=force, designated=designated, timeout_s=dnsconfig.seconds(timeout))


def _confirm() -> None:
    import sys

    if not sys.stdin.isatty():
        raise CommandError("not confirmed", why="nobody can be asked here", hint="--yes", code=Exit.REFUSED)
    try:
        said_yes = typer.confirm("Send this?", default=False, err=True)
    except typer.Abort:
        raise CommandError("interrupted", why="nothing was sent", code=Exit.INTERRUPTED) from None
    if not said_yes:
        raise CommandError("not confirmed", why="nothing was sent", code=Exit.REFUSED)


def sync(
    config: lookup.ConfigOption = None,
    force: ForceOption = False,
    designated: DesignatedOption = False,
    timeout: TimeoutOption = "60s",
) -> None:
    """Send what is waiting and compare the zones, once, without asking."""
    _send(dnsconfig.settings(config), force=force, designated=designated, timeout_s=dnsconfig.seconds(timeout))


def _send(settings: "Settings", *, force: bool, designated: bool, timeout_s: float) -> None:
    done, left, held, troubles = dnswork.run(_sent(settings, force=force, designated=designated, timeout_s=timeout_s))
    for text in left:
        typer.echo(text, err=True)
    if not done:
        why = "; ".join(troubles)
        raise CommandError(f"not done after {timeout_s:g} s", why=why, hint="arv-balance dns show", code=Exit.DEADLINE)
    if held:
        names = ", ".join(f"{target}: {count} hosts" for target, count in held.items())
        raise CommandError(f"deletions are held ({names})", hint="arv-balance dns release", code=Exit.REFUSED)
    raise typer.Exit(Exit.NO if left else Exit.DONE)


async def _sent(
    settings: "Settings", *, force: bool, designated: bool, timeout_s: float
) -> tuple[bool, list[str], dict[str, int], list[str]]:
    from dnsupdate.overview import Overview, labels

    async with dnswork.opened(settings) as store:
        overview = Overview(settings, store)
        if force:
            await overview.release(None)
        done, errors = await dnswork.until_done(settings, store, designated=designated, timeout_s=timeout_s)
        if force and await overview.release(None):
            done, errors = await dnswork.until_done(settings, store, designated=designated, timeout_s=timeout_s)
        mine = [row for row in await overview.states() if row["target"] in settings.targets]
        rows = [row for row in mine if row["state"] not in ("published", "held")]
        names = labels((row["node_uuid"], row["hostname"]) for row in rows)
        left = [f"{names[row['node_uuid']]} at {row['target']}: {row['state']}{_because(row)}" for row in rows]
        targets = [row for row in await overview.targets() if row["target"] in settings.targets]
        told = {row["target"]: row["server_state"].get("error") for row in targets}
        troubles = [f"{target}: {error['text']}" for target, error in told.items() if error]
        held = {target: hosts for target, hosts in (await overview.held()).items() if target in settings.targets}
        return done, left, held, list(dict.fromkeys([*troubles, *errors]))


def _because(row: dict[str, Any]) -> str:
    return f": {row['last_error']}" if row["last_error"] else ""


def run(config: lookup.ConfigOption = None, designated: DesignatedOption = False) -> None:
    """Send for ever: all targets, the hook's spool, and the followed nodes if `dns.follow` is set."""
    dnswork.run(dnswork.daemon(dnsconfig.settings(config), designated=designated))


def show(
    hosts: Annotated[list[str] | None, typer.Argument(metavar="HOST", help="Host names or uuids.")] = None,
    config: lookup.ConfigOption = None,
    as_json: JsonOption = False,
    events: Annotated[int, typer.Option("--events", metavar="N", min=0, help="Show the last N events too.")] = 0,
) -> None:
    """Show targets and the state of hosts."""
    from dnsupdate.overview import labels

    settings = dnsconfig.settings(config)
    found = dnswork.run(_shown(settings, hosts or None, events))
    if as_json:
        typer.echo(json.dumps({"schema": "arv-balance/dns-status/v1", **found}, default=str))
        return
    if not found["targets"]:
        typer.echo("nobody has sent yet, no target is known", err=True)
    for row in found["targets"]:
        _show_target(row, is_known=row["target"] in settings.targets)
    rows = [row for row in found["hosts"] if hosts or not row["removed"] or row["state"] != "published"]
    names = labels((row["node_uuid"], row["hostname"]) for row in rows)
    for row in rows:
        state = "gone" if row["removed"] and row["state"] == "published" else row["state"]
        typer.echo(f"{names[row['node_uuid']]:<24} {row['target']:<12} {state}{_because(row)}")
    for row in found["events"]:
        typer.echo(f"{row['at']:%Y-%m-%d %H:%M:%S}  {row['target']}  {row['kind']}: {row['text']}")


def _show_target(row: dict[str, Any], *, is_known: bool) -> None:
    name = row["target"] + ("" if is_known else " (not in this configuration)")
    holder = f"{row['holder']} sends, epoch {row['epoch']}" if row["is_held"] else "nobody sends"
    counts = ", ".join(f"{row[kind]} {kind}" for kind in ("pending", "conflict", "failed", "held") if row[kind])
    typer.echo(f"target {name}: {holder}; {row['records']} records" + (f"; {counts}" if counts else ""))
    error = row["server_state"].get("error")
    if error:
        typer.echo(f"  ✗ {error['text']}")
    if row["held"]:
        typer.echo(f"  held: see `arv-balance dns plan`; `arv-balance dns release {row['target']}` lets them go")


async def _shown(settings: "Settings", hosts: list[str] | None, events: int) -> dict[str, Any]:
    from dnsupdate.overview import Overview

    async with dnswork.opened(settings) as store:
        overview = Overview(settings, store)
        states = await overview.states(hosts)
        if hosts and not states:
            raise CommandError(f"no host {', '.join(hosts)}", hint="arv-balance dns show")
        newest = await overview.events(limit=events) if events else []
        return {"targets": await overview.targets(), "hosts": states, "events": newest}


def trace(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Host name or uuid.")],
    config: lookup.ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow one host from its ping over the message to what each name server says."""
    from dnsupdate.tracing import lines

    settings = dnsconfig.settings(config)
    found = dnswork.run(_traced(settings, host))
    if found is None:
        raise CommandError(f"no host {host}", hint="arv-balance dns show")
    if as_json:
        typer.echo(json.dumps({"schema": "arv-balance/dns-trace/v1", **found}, default=str))
    else:
        typer.echo("\n".join(lines(found)))


async def _traced(settings: "Settings", host: str) -> dict[str, Any] | None:
    import asyncio

    from dnsupdate.service import read_files
    from dnsupdate.tracing import trace as follow_it

    secrets = await asyncio.to_thread(read_files, settings)
    async with dnswork.opened(settings) as store:
        return await follow_it(settings, secrets, store, host)


def probe(
    config: lookup.ConfigOption = None,
    target: TargetOption = None,
    write: Annotated[bool, typer.Option("--write", help="Make and remove one name in each forward zone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the servers whether key, clock, zones and rights are in order."""
    _examine(dnsconfig.settings(config), target, write=write, as_json=as_json, snippets=False)


def doctor(
    config: lookup.ConfigOption = None,
    target: TargetOption = None,
    write: Annotated[bool, typer.Option("--write", help="Make and remove one name in each forward zone.")] = False,
    as_json: JsonOption = False,
    snippets: Annotated[bool, typer.Option("--snippets", help="Print server configuration in any case.")] = False,
) -> None:
    """The same as test, and the configuration that mends what is wrong."""
    _examine(dnsconfig.settings(config), target, write=write, as_json=as_json, snippets=snippets, mend=True)


_SIGNS = {"ok": "✓", "warning": "▲", "error": "✗"}


def _examine(
    settings: "Settings", target: str | None, *, write: bool, as_json: bool, snippets: bool, mend: bool = False
) -> None:
    from dataclasses import asdict

    names = _primaries(settings, target)
    found = {name: dnswork.run(findings(settings, name, write=write)) for name in names}
    if as_json:
        shown = {name: [asdict(one) for one in listed] for name, listed in found.items()}
        typer.echo(json.dumps({"schema": "arv-balance/dns-test/v1", "targets": shown}))
    else:
        for name, listed in found.items():
            typer.echo(f"target {name}")
            for one in listed:
                typer.echo(f"  {_SIGNS[one.level]} {one.subject}: {one.text}")
                if one.hint:
                    typer.echo(f"      → {one.hint}")
            if snippets or (mend and any(one.mends for one in listed)):
                _print_snippets(settings, name)
    is_bad = any(one.level == "error" for listed in found.values() for one in listed)
    raise typer.Exit(Exit.NO if is_bad else Exit.DONE)


def _print_snippets(settings: "Settings", name: str) -> None:
    from dnsupdate import doctor as medicine
    from dnsupdate.service import read_keys

    zones = tuple(zone.name for zone in settings.zones_of(name))
    for server, text in medicine.snippets(read_keys(settings)[name].update, zones).items():
        typer.echo(f"\n--- {server}\n{text}")


async def findings(settings: "Settings", name: str, *, write: bool) -> "list[Finding]":
    """Return what the probe says of one target."""
    import asyncio

    from dnsupdate.doctor import Doctor
    from dnsupdate.service import peers, read_keys, wall_clock

    keys = (await asyncio.to_thread(read_keys, settings))[name]
    target = settings.targets[name]
    return await Doctor(
        name,
        settings,
        peers=peers(target, keys.update),
        transfer_peers=peers(target, keys.transfer),
        wall=wall_clock,
        clock=asyncio.get_running_loop().time,
    ).examine(write=write)


def adopt(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Host names, or full record names.")],
    config: lookup.ConfigOption = None,
    target: TargetOption = None,
) -> None:
    """Take over records that are in the way of ours."""
    from dnsupdate.overview import Overview

    settings = dnsconfig.settings(config)
    dnsconfig.targets(settings, target)

    async def work() -> list[tuple[str, str]]:
        async with dnswork.opened(settings) as store:
            return await Overview(settings, store).adopt(names, target)

    taken = dnswork.run(work())
    for _, name in taken:
        typer.echo(f"will take over {name}")
    if not taken:
        raise CommandError("no host waits for such a name", hint="arv-balance dns plan")


def release(
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="Default: all targets.")] = None,
    hosts: Annotated[list[str] | None, typer.Argument(metavar="HOST", help="Default: all that are held.")] = None,
    config: lookup.ConfigOption = None,
) -> None:
    """Let hosts be deleted that the brake holds back."""
    from dnsupdate.overview import Overview

    settings = dnsconfig.settings(config)
    dnsconfig.targets(settings, target)

    async def work() -> list[str]:
        async with dnswork.opened(settings) as store:
            return await Overview(settings, store).release(target, hosts)

    released = len(dnswork.run(work()))
    if hosts and not released:
        raise CommandError(f"nothing of {', '.join(hosts)} is held", hint="arv-balance dns show")
    typer.echo(f"released {dnswork.counted(released)}" if released else "nothing is held")


_COMMANDS = (
    ("plan", plan, "Exit codes: 0 nothing to do, 1 changes. Example: arv-balance dns plan --nsupdate"),
    ("diff", plan, "The same as plan."),
    ("apply", apply, "Exit codes: 0 done, 1 something is left, 5 not in time, 6 held or not confirmed."),
    ("sync", sync, "For cron. Exit codes: as apply."),
    ("run", run, "Stop it with SIGTERM; another process takes over at once."),
    ("show", show, "Examples: arv-balance dns show · arv-balance dns show compute7 --events 20"),
    ("trace", trace, "Example: arv-balance dns trace compute7"),
    ("test", probe, "Changes nothing without --write. Exit codes: 0 all well, 1 something is wrong."),
    ("doctor", doctor, "Exit codes: 0 all well, 1 something is wrong."),
    ("adopt", adopt, "Example: arv-balance dns adopt compute4"),
    ("release", release, "Example: arv-balance dns release main"),
    ("import", dnssources.import_, "Example: arv-balance dns import /etc/unbound/conf.d --dry-run"),
    ("hook", dnssources.hook, "As update command: arv-balance dns hook --hostname %{hostname} --ip %{ip_address}"),
    ("follow", dnssources.follow, "Example: arv-balance dns follow --once"),
    ("authority", dnssources.authority, "Serves the zones of a target of kind builtin, from memory."),
)
