"""`arv-balance ledger`: did a request get lost? How every exchange since the start ended."""

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.output import emit, table

MEANINGS = {
    "node": "a node's whole answer reached the client",
    "us": "answered by the balancer itself",
    "client-left": "the client left before the end",
    "node-cut": "a node ended its answer too early, after it had begun",
    "worker-lost": "open in a worker that died",
    "open": "under way now",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ledger", rich_help_panel="Inspect")(ledger)


def ledger(
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show how all exchanges ended; the sum is what was accepted."""
    document = connect(admin, admin_token_file).get("/v1/ledger")
    if as_json:
        emit(document)
        return
    rows = [[name, str(document[name]), meaning] for name, meaning in MEANINGS.items()]
    rows.append(["accepted", str(document["accepted"]), "all of them"])
    print("\n".join(table(("OUTCOME", "COUNT", "MEANING"), rows, right=("COUNT",))))
