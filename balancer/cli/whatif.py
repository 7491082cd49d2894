"""`arv-balance whatif`: what another number of nodes, capacity or policy would have made of the logged traffic."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balancer.cli import options
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import emit, table
from balancer.cli.screen import seconds

if TYPE_CHECKING:
    from balancer.control.whatif import Log, Outlook, Setup


def register(app: typer.Typer) -> None:
    """Add the command."""
    epilog = "Example: `arv-balance whatif --log access.log --nodes 2 --capacity 64`"
    app.command("whatif", rich_help_panel="Inspect", epilog=epilog)(whatif)


def whatif(
    log: Annotated[Path, typer.Option("--log", metavar="FILE", help="Access log in JSON; - is standard input.")],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=256, help="So many nodes.")],
    policy: Annotated[
        str, typer.Option("--policy", help="round_robin, least_requests, two_choices or hash (by client).")
    ] = "least_requests",
    capacity: Annotated[int, typer.Option("--capacity", min=0, help="Requests at once at a node; 0: no limit.")] = 0,
    queue_max: Annotated[int, typer.Option("--queue-max", min=0, help="Requests that may wait.")] = 1024,
    queue_timeout: Annotated[
        str, typer.Option("--queue-timeout", metavar="SPAN", callback=options.a_span, help="For so long.")
    ] = "30s",
    speed: Annotated[float, typer.Option("--speed", min=0.01, max=100, help="2: nodes take half as long.")] = 1.0,
    as_json: options.JsonOption = False,
) -> None:
    """Predict queue, p99 and 503s of another set-up from an access log. Nothing is sent.

    Requests arrive when they did and take at a node as long as they did. A node that slows down under more load, and
    clients that wait for an answer before they ask again, are not in the picture.
    """
    from balancer.control.whatif import Setup, read, simulate
    from balancer.model import Policy

    if policy not in set(Policy):
        raise CommandError(f"there is no policy {policy!r}", hint=f"--policy {'|'.join(Policy)}", code=Exit.USAGE)
    setup = Setup(nodes, Policy(policy), capacity, queue_max, seconds(queue_timeout, 30.0), speed)
    found = read(_lines(log))
    if not found.arrivals:
        why = f"{found.unread} lines are none of ours" if found.unread else "it is empty"
        raise CommandError(f"{log} holds no request", why=why, hint="log: {access: json}", code=Exit.NO)
    outlook = simulate(found.arrivals, setup)
    if as_json:
        emit(_document(found, setup, outlook))
    else:
        print("\n".join(_shown(found, setup, outlook)))


def _lines(path: Path) -> Iterator[str]:
    if str(path) == "-":
        yield from sys.stdin
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as exc:
        raise CommandError(f"{path} cannot be read", why=str(exc.strerror), code=Exit.USAGE) from exc


def _shown(log: "Log", setup: "Setup", outlook: "Outlook") -> Iterator[str]:
    capacity = f"capacity {setup.capacity}" if setup.capacity else "no limit"
    rate = len(log.arrivals) / max(log.span_s, 1e-9)
    yield f"{len(log.arrivals)} requests in {log.span_s:.1f} s, {rate:.1f} req/s"
    yield f"with {setup.nodes} nodes, {setup.policy}, {capacity}:"
    rows = [
        ["p99", _ms(log.p99_s), _ms(outlook.p99_s)],
        ["p99 of waiting", _ms(log.queue_p99_s), _ms(outlook.queue_p99_s)],
        ["503, queue full", "-", str(outlook.refused)],
        ["503, waited too long", "-", str(outlook.expired)],
        ["answers 5xx", str(log.failed), "-"],
        ["longest queue", "-", str(outlook.queue_longest)],
        ["busiest node", "-", f"{max(outlook.busy):.1f} at once"],
    ]
    yield from table(["", "LOGGED", "PREDICTED"], rows, right=["LOGGED", "PREDICTED"])
    if log.unread:
        yield f"{log.unread} lines of the log are none of ours"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1000:.0f} ms"


def _document(log: "Log", setup: "Setup", outlook: "Outlook") -> dict[str, Any]:
    logged = {
        "requests": len(log.arrivals),
        "span_s": log.span_s,
        "p99_s": log.p99_s,
        "queue_p99_s": log.queue_p99_s,
        "failed": log.failed,
        "unread": log.unread,
    }
    return {
        "schema": "arv-balance/whatif/v1",
        "logged": logged,
        "setup": {**asdict(setup), "policy": str(setup.policy)},
        "predicted": {**asdict(outlook), "busy": list(outlook.busy)},
    }
