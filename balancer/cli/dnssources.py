"""`arv-balance dns hook`, `follow`, `import` and `authority`: where hosts come from without our API nodes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balancer.cli import dnsconfig, dnswork, lookup, options
from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from dnsupdate.names import Rules
    from dnsupdate.settings import Settings
    from dnsupdate.snippets import Snippet


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Directory with files of the classic strategy.")],
    config: lookup.ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
) -> None:
    """Take hosts over from files that the classic strategy wrote."""
    settings = dnsconfig.settings(config)
    found, bad = _snippets(folder, settings.rules)
    for text in bad:
        typer.echo(f"left out: {text}", err=True)
    if not found and not bad:
        raise CommandError(f"{folder} has no *.conf files", why="the classic strategy writes one for each host")
    for one in found:
        typer.echo(f"{one.hostname:<24} {', '.join(one.ips) or 'unused'}")
    if not dry_run:
        typer.echo(f"{dnswork.run(_imported(settings, found))} of {len(found)} hosts are new or changed", err=True)
    raise typer.Exit(Exit.NO if bad else Exit.DONE)


def _snippets(folder: Path, rules: "Rules") -> "tuple[list[Snippet], list[str]]":
    """Return the hosts in a directory, and what is wrong with the files that have none."""
    from dnsupdate.errors import BadNameError
    from dnsupdate.names import shown
    from dnsupdate.snippets import parse

    if not folder.is_dir():
        raise CommandError(f"{folder} is not a directory", code=Exit.USAGE)
    found, bad = [], []
    for path in sorted(folder.glob("*.conf")):
        try:
            if not path.is_file():  # a pipe would be waited for
                raise BadNameError("not a file")
            found.append(parse(path.name, path.read_text(encoding="utf-8", errors="replace"), rules))
        except (BadNameError, OSError) as exc:
            bad.append(f"{shown(path.name)}: {exc.strerror if isinstance(exc, OSError) else exc}")
    return found, bad


async def _imported(settings: "Settings", found: list[Any]) -> int:
    from dnsupdate.enqueue import enqueue
    from dnsupdate.host import Host

    hosts = [Host(uuid=f"hook:{one.hostname}", hostname=one.hostname, ips=one.ips) for one in found]
    async with dnswork.opened(settings) as store, store.connection() as connection, connection.transaction():
        return len(await enqueue(connection, *hosts, rules=settings.rules))


def hook(
    hostname: Annotated[str, typer.Option("--hostname", metavar="NAME", help="Host name.")],
    ip: Annotated[str | None, typer.Option("--ip", metavar="ADDRESS", help="Its address; none: it has none.")] = None,
    uuid: Annotated[str, typer.Option("--uuid", help="The node's uuid, if known.")] = "",
    domain: Annotated[str, typer.Option("--domain", help="Its domain.")] = "",
    config: lookup.ConfigOption = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="SPAN", callback=options.a_span, help="Keep it after this long.")
    ] = "3s",
) -> None:
    """Tell of one host, as the update command of an unmodified API server; kept here if the database is away."""
    from dnsupdate.snippets import UNUSED
    from dnsupdate.spool import Entry

    settings = dnsconfig.settings(config)
    address = None if ip in (None, "", UNUSED, *settings.rules.placeholders) else ip
    made = dnswork.hooked(
        settings, lambda at: Entry(hostname, address, at, uuid, domain), timeout_s=dnsconfig.seconds(timeout)
    )
    typer.echo(f"{hostname}: {dnswork.run(made)}", err=True)


def follow(
    config: lookup.ConfigOption = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Follow the nodes of unmodified API servers (`dns.follow`); sends nothing itself."""
    settings = dnsconfig.settings(config)

    async def work() -> int:
        async with dnswork.opened(settings) as store:
            return await dnswork.following(settings, store, once=once)

    async def for_ever(_: Any) -> None:
        await work()

    if once:
        typer.echo(f"{dnswork.counted(dnswork.run(work()))} changed", err=True)
    else:
        dnswork.run(dnswork.stopped_by_signal(for_ever))


def authority(
    config: lookup.ConfigOption = None,
    target: Annotated[str | None, typer.Option("--target", "-t", metavar="NAME", help="Only this target.")] = None,
    bind: Annotated[str, typer.Option("--bind", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the zones of a target of kind builtin; senders fill them."""
    from dnsupdate.authority import Authority
    from dnsupdate.service import read_keys, wall_clock
    from dnsupdate.zone import Zone

    settings = dnsconfig.settings(config)
    names = [name for name in dnsconfig.targets(settings, target) if settings.targets[name].kind == "builtin"]
    if not names:
        why = "this serves the zones of a target of `kind: builtin`"
        raise CommandError("no target of kind builtin", why=why, code=Exit.CONFIG)
    pairs = [both for name, both in read_keys(settings).items() if name in names]
    keys = {key.name: key for both in pairs for key in (both.update, both.transfer) if key is not None}
    zones = [Zone(zone.name) for zone in settings.zones_of(names[0])]
    server = Authority(zones, keys.values(), clock=wall_clock)

    async def work(_: Any) -> None:
        import asyncio

        async with server.serve(bind, settings.targets[names[0]].port) as port:
            typer.echo(f"serving {', '.join(str(zone.origin) for zone in zones)} on {bind} port {port}", err=True)
            await asyncio.Event().wait()

    try:
        dnswork.run(dnswork.stopped_by_signal(work))
    except* OSError as group:
        raise CommandError("cannot serve", why=dnswork.first(group).strerror or "", code=Exit.NO) from None
