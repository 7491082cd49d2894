"""`arv-balance reload`: use the configuration as it is on the disk now."""

import typer

from balancer.cli import options
from balancer.cli.client import ProblemError, connect
from balancer.cli.output import emit, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reload", rich_help_panel="Operate")(reload)


def reload(
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Read the configuration again. It is checked first: with an error nothing changes. Prints what changed."""
    client = connect(admin, admin_token_file)
    try:
        answer = client.post("/v1/config/reload", {"dry_run": dry_run}, timeout_s=60.0)
    except ProblemError as exc:
        for fault in exc.document.get("errors", []):
            place = f"{exc.document['file']}:{fault['line']}:{fault['column']}"
            hint = f"\n{' ' * 7}= {fault['hint']}" if fault["hint"] else ""
            say(f"{place}: error: {fault['path']}: {fault['message']}{hint}")
        raise
    if as_json:
        emit(answer)
        return
    for change in answer["changes"]:
        print(change)
    for warning in answer["warnings"]:
        say(f"warning: {warning['path']}: {warning['message']}")
    verb = "would change" if dry_run else "changed"
    count = len(answer["changes"])
    say(f"{count} key{'' if count == 1 else 's'} {verb}." if count else f"nothing {verb}.")
