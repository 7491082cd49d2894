"""`arv-balance designate`: see the designated nodes, or appoint one."""

from typing import Annotated, Any

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.output import age, emit, table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("designate", rich_help_panel="Operate", epilog="Example: `arv-balance designate dns api1`")(designate)


def designate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Designation; without one all are shown.")] = "",
    node: Annotated[str, typer.Argument(metavar="NODE", help="Who holds it from now on.")] = "",
    reason: options.ReasonOption = "",
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show who holds the designations, or give one to another node."""
    client = connect(admin, admin_token_file)
    if node:
        document = client.post(f"/v1/designations/{name}", {"node": node, "reason": reason})
    else:
        document = client.get("/v1/designations")
    if as_json:
        emit(document)
        return
    print("\n".join(_lines([item for item in document["designations"] if name in {"", item["name"]}])))


def _lines(items: list[dict[str, Any]]) -> list[str]:
    rows = []
    for item in items:
        now = item["now"] or item["why"]
        rows.append([item["name"], item["node"] or "-", str(item["epoch"]), age(item["since"]), item["who"], now])
    return table(("NAME", "NODE", "EPOCH", "SINCE", "BY", "NOW"), rows, right=("EPOCH",))
