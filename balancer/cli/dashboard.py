"""`arv-balance dashboard`: where the dashboard is, and a way in."""

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.exits import CommandError
from balancer.cli.output import emit, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dashboard", rich_help_panel="Inspect", epilog="Example: `xdg-open $(arv-balance dashboard)`")(
        dashboard
    )


def dashboard(
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Print the dashboard's address with a code that logs you in, once, within five minutes.

    The code stands behind the #, which browsers send to nobody. It gives the role that you have here.
    """
    client = connect(admin, admin_token_file)
    answer = client.post("/v1/dashboard/login")
    if as_json:
        emit(answer)
        return
    if not answer["addresses"]:
        where = client.where.removeprefix("unix:")
        raise CommandError(
            "the dashboard has no address: admin.listen is not set",
            hint=f'admin: {{listen: "127.0.0.1:8081"}}, or from your desk: ssh -L 8081:{where} THIS-MACHINE, '
            "then http://localhost:8081/ui/",
        )
    for address in answer["addresses"]:
        print(f"{address}login#{answer['code']}")
    say(f"It logs you in as {answer['role']}, once, within {answer['expires_s'] / 60:.0f} minutes.")
