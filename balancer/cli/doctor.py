"""`arv-balance doctor`: the hazards of a site with several nodes, with evidence, risk and what to type."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli import lookup, options
from balancer.cli.client import Client, connect
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import Color, Painter, emit, say

if TYPE_CHECKING:
    from balancer.cli.client import Document

_EPILOG = """Examples: arv-balance doctor · arv-balance doctor --json | jq '.findings[].rule' ·
arv-balance doctor --offline -c new.yml --strict. Every rule: docs/doctor.md.

Exit codes: 0 no error, 1 at least one error (or a warning with --strict), 3 the configuration cannot be used."""
_ADMIN_S = 3.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", rich_help_panel="Inspect", epilog=_EPILOG)(doctor)


def doctor(
    config: lookup.ConfigOption = None,
    as_json: options.JsonOption = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the running balancer.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="List what is looked for, and end.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    # Common servers close an idle connection after 5 s; in less nobody could see it.
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="SPAN", callback=options.a_span, help="Wait for nodes at most this long."),
    ] = "7s",
    skew: Annotated[
        str, typer.Option("--skew", metavar="SPAN", callback=options.a_span, help="Clocks may differ by this much.")
    ] = "2s",
    expiry: Annotated[
        str,
        typer.Option(
            "--expiry", metavar="SPAN", callback=options.a_span, help="Certificates have to be good for this long."
        ),
    ] = "21d",
    api_config: Annotated[
        Path | None,
        typer.Option("--api-config", envvar="ARV_API_CONFIG", metavar="FILE", help="API nodes' file, for their jobs."),
    ] = None,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Look at everything that can go wrong with several nodes, and say how to mend it; changes nothing."""
    if only_list:
        from balancer.control.doctor.manual import listing

        print("\n".join(listing()))
        return
    from balancer.cli import doctorfacts
    from balancer.cli.check import dns_faults, forgotten
    from balancer.cli.dnsconfig import seconds
    from balancer.config.file import load
    from balancer.control.doctor import gathering, report
    from balancer.control.doctor.facts import Thresholds

    path = lookup.find(config)
    loaded, alone = load(path), load(path, look_at_files=False)
    alone.require()
    loaded = replace(alone, faults=loaded.faults).also(dns_faults(alone))  # what is wrong with its files is a finding
    where = connect(admin or f"unix:{loaded.config.admin.socket}", admin_token_file)
    status, status_fault = (None, "--offline") if offline else _status(where)
    jobs, jobs_fault = doctorfacts.jobs(api_config, seconds(timeout))
    given = gathering.Given(
        loaded=loaded,
        status=status,
        status_fault=status_fault,
        is_local=where.where.startswith("unix:"),
        shadows=tuple(forgotten(loaded)),
        dns=doctorfacts.dns(loaded, seconds(timeout)),
        jobs=jobs,
        jobs_fault=jobs_fault,
        limits=replace(Thresholds(), skew_s=seconds(skew), expires_s=seconds(expiry)),
    )
    found = report.examine(gathering.facts(given, timeout_s=seconds(timeout)))
    if as_json:
        emit(report.document(found))
    else:
        print("\n".join(report.lines(found, Painter(color).paint)))
        say(report.summary(found))
    bad = any(one.severity.value == "error" or strict for one in found.findings)
    raise typer.Exit(Exit.NO if bad else Exit.DONE)


def _status(client: Client) -> "tuple[Document | None, str]":
    try:
        return client.get("/v1/status", timeout_s=_ADMIN_S), ""
    except CommandError as exc:
        return None, f"{exc.what}{': ' + exc.why if exc.why else ''}"
