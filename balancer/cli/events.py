"""`arv-balance events`: what changed, when, by whom."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from balancer.cli import options
from balancer.cli.client import Client, connect
from balancer.cli.nodes import node_names
from balancer.cli.output import Color, Painter, emit, say

_STYLES = {"warning": "warn", "error": "bad"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("events", rich_help_panel="Inspect", epilog="Example: `arv-balance events -f --node api2`")(events)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, max=2000, help="Newest ones to show.")] = 50,
    node: Annotated[str, typer.Option("--node", autocompletion=node_names, help="Only about this node.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="Only of this kind.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    color: options.ColorOption = Color.AUTO,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show what changed, when, by whom and why."""
    client, painter = connect(admin, admin_token_file), Painter(color)
    query = {"limit": str(limit), "node": node, "kind": kind} | ({"follow": "1"} if follow else {})
    path = f"/v1/events?{urlencode({name: value for name, value in query.items() if value})}"
    found = client.lines(path) if follow else client.get(path)["events"]
    if not found and (node or kind):
        _say_nothing_found(client, node, kind)
    for event in found:
        if as_json:
            emit(event, "jsonl")
        else:
            print(line(event, painter), flush=follow)


def _say_nothing_found(client: Client, node: str, kind: str) -> None:
    """A filter that lets nothing through may be a slip of the pen."""
    from balancer.config.errors import did_you_mean

    every = client.get("/v1/events?limit=2000")["events"]
    for asked, member in ((node, "node"), (kind, "kind")):
        known = {event[member] for event in every} - {""}
        if asked and asked not in known:
            meant = did_you_mean(asked, known)
            say(f"no event has the {member} {asked!r}{meant and f'; {meant}'}")


def line(event: dict[str, Any], painter: Painter) -> str:
    """Return an event as a line: local time, text, actor and reason."""
    at = datetime.fromisoformat(event["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    told = ": ".join(part for part in (event["actor"], event["reason"]) if part)
    who = "" if event["actor"] == "arv-balance" else f"  ({told})"
    style = _STYLES.get(event["level"], "")
    text = painter.paint(style, event["text"]) if style else event["text"]
    return f"{painter.paint('dim', at)}  {text}{who}"
