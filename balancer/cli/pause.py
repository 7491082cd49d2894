"""`arv-balance pause` and `resume`: let requests wait while nodes or their database are away."""

from typing import Annotated, Any

import typer

from balancer.cli import options
from balancer.cli.asking import confirm
from balancer.cli.client import ProblemError, connect
from balancer.cli.output import emit, say
from balancer.cli.progress import remaining
from balancer.cli.screen import seconds

MARGIN_S = 10.0  # the balancer itself keeps the deadline; this is for its answer
DEFAULT_WAIT_S = 3600.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pause", rich_help_panel="Operate", epilog="Example: `arv-balance pause --for 2m --reason failover`")(
        pause
    )
    app.command("resume", rich_help_panel="Operate")(resume)


def pause(
    reason: options.ReasonOption = "",
    for_: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="SPAN", callback=options.a_span, help="Ends by itself after this. (default: park.timeout)"
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="SPAN",
            callback=options.a_span,
            help="For what is under way; then undone. (default: drain.timeout)",
        ),
    ] = None,
    cut: Annotated[
        bool,
        typer.Option("--cut", help="After --timeout end by force what is under way."),
    ] = False,
    yes: options.YesOption = False,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Hold new requests; return when every worker holds them and nothing is in flight."""
    client = connect(admin, admin_token_file)
    asked: dict[str, Any] = {"reason": reason, "for": for_, "wait": timeout, "cut": cut}
    body = {name: value for name, value in asked.items() if value}
    planned = client.post("/v1/pause", {**body, "dry_run": True})
    if dry_run:
        _told(planned, as_json, f"traffic would be paused: {planned['forecast']}")
        return
    confirm(
        f"Pause all traffic of this cluster: {planned['forecast']}.",
        yes=yes,
        is_machine=as_json,
        word=str(client.get("/v1/status")["cluster"]),
    )
    try:
        answer = client.post("/v1/pause", body, timeout_s=seconds(timeout, DEFAULT_WAIT_S) + MARGIN_S)
    except ProblemError as exc:
        for line in remaining(exc.document):
            say(line)
        raise
    except KeyboardInterrupt:
        say("\nThe pause goes on without this command. Undo: arv-balance resume")
        raise
    _told(answer, as_json, f"paused: nothing is in flight, {answer['parked']} requests wait; {answer['forecast']}")
    if not as_json:
        say("Undo: arv-balance resume")


def resume(
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, help="Requests a second that go on. (default: park.release)")
    ] = None,
    reason: options.ReasonOption = "",
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Let traffic go on, what waited longest first."""
    asked = {"reason": reason, "rate": rate, "dry_run": dry_run}
    body = {name: value for name, value in asked.items() if value}
    answer = connect(admin, admin_token_file).post("/v1/resume", body)
    if not answer["changed"]:
        _told(answer, as_json, "traffic was not paused")
        return
    waited, rate_per_s = answer["released"], answer["rate_per_s"]
    text = f"traffic goes on; {waited} requests waited, {rate_per_s:g} a second go on"
    if dry_run:
        text = f"traffic would go on; {waited} requests wait, {rate_per_s:g} a second would go on"
    _told(answer, as_json, text)


def _told(answer: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        emit(answer)
    else:
        print(text)
