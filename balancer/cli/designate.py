"""`arv-balance designate`: see the designated nodes, or appoint one."""

from typing import Annotated, Any

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.exits import CommandError
from balancer.cli.nodes import node_names
from balancer.cli.output import age, emit, table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("designate", rich_help_panel="Operate", epilog="Example: `arv-balance designate dns api1`")(designate)


def _names(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of designations, as `node_names` does those of nodes."""
    try:
        found = connect(context.params.get("admin")).get("/v1/designations", timeout_s=0.2)["designations"]
    except CommandError:
        return []
    return [item["name"] for item in found if item["name"].startswith(incomplete)]


def designate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=_names, help="Designation; without one all are shown.")
    ] = "",
    node: Annotated[
        str, typer.Argument(metavar="NODE", autocompletion=node_names, help="Who holds it from now on.")
    ] = "",
    reason: options.ReasonOption = "",
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show who holds the designations, or give one to another node."""
    client = connect(admin, admin_token_file)
    if node:
        document = client.post(f"/v1/designations/{name}", {"node": node, "reason": reason, "dry_run": dry_run})
    else:
        document = client.get("/v1/designations")
    if as_json:
        emit(document)
        return
    if not document["designations"] and not name:
        print("the configuration has no designated nodes")
        return
    chosen = _chosen(document["designations"], name)
    if node and dry_run:
        held = chosen[0]["node"]
        print(f"{name} would be {'held by' if held == node else 'given to'} {node} (now {held or 'nobody'})")
        return
    print("\n".join(_lines(chosen)))


def _chosen(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the designation of that name, or all of them without a name."""
    found = [item for item in items if name in {"", item["name"]}]
    if name and not found:
        from balancer.config.errors import did_you_mean

        known = [item["name"] for item in items]
        why = f"designations are {', '.join(known)}" if known else "the configuration has no designated nodes"
        raise CommandError(f"there is no designation {name!r}", why=why, hint=did_you_mean(name, known))
    return found


def _lines(items: list[dict[str, Any]]) -> list[str]:
    rows = []
    for item in items:
        now = item["now"] or item["why"]
        rows.append([item["name"], item["node"] or "-", str(item["epoch"]), age(item["since"]), item["who"], now])
    return table(("NAME", "NODE", "EPOCH", "SINCE", "BY", "NOW"), rows, right=("EPOCH",))
