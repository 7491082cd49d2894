"""`arv-balance explain METHOD PATH`: what would happen to a request now, and why. Nothing is sent."""

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.output import Color, Painter, emit, table


def register(app: typer.Typer) -> None:
    """Add the command."""
    epilog = "Example: `arv-balance explain GET /arvados/v1/collections -H 'Cookie: a=b' --from 10.0.0.7`"
    app.command("explain", rich_help_panel="Inspect", epilog=epilog)(explain)


def explain(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET, POST, ...")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path and query.")],
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A field; may be repeated.")
    ] = None,
    from_: Annotated[str, typer.Option("--from", metavar="IP", help="Address of the connection.")] = "127.0.0.1",
    as_json: options.JsonOption = False,
    color: options.ColorOption = Color.AUTO,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Say which rule and node a request would get, why not the others, what is changed, waited for and retried."""
    if not path.startswith(("/", "http://", "https://", "*")):
        raise typer.BadParameter(f"{path!r} does not begin with /", param_hint="PATH")
    for line in header or []:
        if not line.partition(":")[1] or not line.partition(":")[0].strip():
            raise typer.BadParameter(f"{line!r} is not 'NAME: VALUE'", param_hint="--header")
    query = [("method", method), ("target", path), ("from", from_), *(("header", line) for line in header or [])]
    document = connect(admin, admin_token_file).get(f"/v1/explain?{urlencode(query)}")
    if as_json:
        emit(document)
        return
    print("\n".join(_lines(document, Painter(color))))


def _lines(found: dict[str, Any], painter: Painter) -> list[str]:
    route = found["route"]
    rule = f"rule {route['name']} ({route['why']})" if route["name"] else route["why"]
    lines = [f"{found['method']} {found['target']}  {rule} -> {route['to']}"]
    if found["path"] != found["target"].partition("?")[0]:
        lines.append(f"  matched as {found['path']}")
    if found["effective_method"] != found["method"]:
        lines.append(f"  a node acts on it as {found['effective_method']}")
    lines += [f"  {painter.paint('bold', found['outcome'])}", ""]
    rows = [
        [
            node["name"],
            painter.paint("good", "eligible") if node["eligible"] else painter.paint("warn", "not eligible"),
            "-" if node["score"] is None else f"{node['score']:.3f}",
            "<- would be chosen" if node["chosen"] else node["why_not"],
        ]
        for node in found["nodes"]
    ]
    lines += ["  " + line for line in table(("NODE", "", "SCORE", ""), rows, right=("SCORE",))]
    times, headers = found["timeouts"], found["headers"]
    waits = [f"{name} {times[f'{name}_s']:g} s" for name in ("connect", "response", "queue", "park")]
    lines += [
        "",
        f"  client   {headers['client']}",
        *(f"  sets     {name}: {value}" for name, value in headers["set"].items()),
        *(f"  removes  {name}" for name in headers["removed"]),
        f"  timeouts {', '.join(waits)}",
        f"  retry    {found['retry']['text']}" + ("" if found["retry"]["idempotent"] else " (not idempotent)"),
    ]
    return lines
