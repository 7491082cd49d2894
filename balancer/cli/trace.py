"""`arv-balance trace REQ-ID`: the life of one request, from our access log and the nodes' logs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from balancer.cli import options
from balancer.cli.client import connect
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import emit, say

if TYPE_CHECKING:
    from balancer.control.trace import NodeLine, Trace

COLLECT_S = 20.0
_ID = re.compile(r"[A-Za-z0-9._~+/=][A-Za-z0-9._~+/=-]{0,1023}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    epilog = (
        "Example: `arv-balance trace req-1k9s0tq2m4vb7c3xj8wz --collect "
        "'ssh {host} journalctl -u arvados-controller -o cat --since -1h -g {id}'`"
    )
    app.command("trace", rich_help_panel="Inspect", epilog=epilog)(trace)


def trace(
    request_id: Annotated[str, typer.Argument(metavar="REQ-ID", help="The request id, as in X-Request-Id.")],
    log: Annotated[
        list[Path] | None,
        typer.Option("--log", metavar="FILE", help="Access log in JSON; - is standard input. May be repeated."),
    ] = None,
    node_log: Annotated[
        list[str] | None,
        typer.Option("--node-log", metavar="NODE=FILE", help="Log of a node, one JSON object a line. Repeatable."),
    ] = None,
    collect: Annotated[
        str | None,
        typer.Option("--collect", metavar="CMD", help="Run for each node: its output are the node's lines."),
    ] = None,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Show what happened to a request: our attempts and waits, and the nodes' lines, with their clocks set right."""
    from balancer.control.trace import exchanges, node_lines, traced

    if not _ID.fullmatch(request_id):
        raise CommandError(f"{request_id!r} is no request id", code=Exit.USAGE)
    ours = exchanges(_lines(log or [_configured()]), request_id)
    theirs = [line for name, path in _named(node_log) for line in node_lines(name, _lines([path]), request_id)]
    if collect is not None:
        for name, output in _collected(collect, request_id, admin, admin_token_file):
            theirs += node_lines(name, output.splitlines(), request_id)
    found = traced(ours, theirs)
    if as_json:
        emit(_document(request_id, found, theirs))
    else:
        print("\n".join(_shown(request_id, found)))
    if not found.lines:
        raise typer.Exit(Exit.NO)


def _configured() -> Path:
    """The access log that the configuration names."""
    from balancer.cli.lookup import VARIABLE, find
    from balancer.config.file import load

    given = os.environ.get(VARIABLE)
    named = load(find(Path(given) if given else None), look_at_files=False).config.log.path
    if named == "-":
        raise CommandError(
            "the access log goes to standard output, so it is in the journal",
            hint="journalctl -u arv-balance -o cat | arv-balance trace REQ-ID --log -",
            code=Exit.USAGE,
        )
    return Path(named)


def _lines(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if str(path) == "-":
            yield from sys.stdin
            continue
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from file
        except OSError as exc:
            raise CommandError(f"{path} cannot be read", why=str(exc.strerror), code=Exit.USAGE) from exc


def _named(node_logs: list[str] | None) -> Iterator[tuple[str, Path]]:
    for item in node_logs or []:
        name, sign, path = item.partition("=")
        if not sign or not name or not path:
            raise CommandError(f"{item!r} is not NODE=FILE", hint="--node-log api1=/var/log/api1.log", code=Exit.USAGE)
        yield name, Path(path)


def _collected(command: str, request_id: str, admin: str | None, token: Path | None) -> Iterator[tuple[str, str]]:
    """Run the collector for each node. One that fails is told and passed over."""
    try:
        parts = shlex.split(command)
    except ValueError as exc:
        raise CommandError("--collect cannot be split into words", why=str(exc), code=Exit.USAGE) from exc
    for node in connect(admin, token).get("/v1/nodes")["nodes"]:
        values = {"node": node["name"], "host": urlsplit(node["url"]).hostname or "localhost", "id": request_id}
        try:
            words = [part.format_map(values) for part in parts]
        except (KeyError, IndexError, ValueError) as exc:
            hint = "there are {node}, {host} and {id}; write {{ and }} for braces"
            raise CommandError(f"--collect: {exc} means nothing", hint=hint, code=Exit.USAGE) from exc
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, errors="replace", timeout=COLLECT_S, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as exc:
            say(f"note: {node['name']}: {exc}")
            continue
        if done.returncode and not done.stdout:  # journalctl and grep end with 1 when nothing matches
            why = done.stderr.strip().splitlines()
            say(f"note: {node['name']}: exit code {done.returncode}{': ' + why[-1] if why else ''}")
        yield node["name"], done.stdout


def _shown(request_id: str, found: "Trace") -> Iterator[str]:
    if not found.lines:
        yield f"{request_id}  is in none of these logs"
        return
    for exchange in found.exchanges:
        took_ms = (exchange.ended_s - exchange.began_s) * 1000
        head = f"{request_id}  {exchange.method} {exchange.path}  client {exchange.client}"
        yield f"{head}  {exchange.status or '-'}  {took_ms:.1f} ms"
    if not found.exchanges:
        yield f"{request_id}  is not in our access log; what nodes say:"
    wide = max(len(line.where) for line in found.lines)
    for line in found.lines:
        yield f"{line.at_s * 1000:9.1f} ms  {line.where:<{wide}}  {line.text}"
    for node, skew_s in found.skew_s.items():
        yield f"clock of {node}: {abs(skew_s):.2f} s {'ahead' if skew_s > 0 else 'behind'}; its lines are set right"


def _document(request_id: str, found: "Trace", theirs: "list[NodeLine]") -> dict[str, Any]:
    return {
        "schema": "arv-balance/trace/v1",
        "request_id": request_id,
        "exchanges": [
            {
                "began_s": item.began_s,
                "duration_s": item.ended_s - item.began_s,
                "method": item.method,
                "path": item.path,
                "client": item.client,
                "status": item.status,
                "nodes": list(item.nodes),
                "waited_s": item.waited_s,
                "termination": item.cause,
            }
            for item in found.exchanges
        ],
        "lines": [{"at_s": line.at_s, "where": line.where, "text": line.text} for line in found.lines],
        "skew_s": dict(found.skew_s),
        "node_lines": len(theirs),
    }
