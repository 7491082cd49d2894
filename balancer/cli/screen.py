"""Status and nodes on the screen; nothing here needs the option parser."""

import sys
import time
from typing import Any

from balancer.cli import lists
from balancer.cli.client import Client
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import Painter, emit
from balancer.durations import parse

REFRESH_S = 1.0
TIMEOUT_S = 10.0


def run_status(
    client: Client, form: str, painter: Painter, *, watch: bool, strict: bool, quiet: bool, timeout: str | None
) -> int:
    """Print the status and return the exit code; with `watch` until interrupted."""
    limit_s = seconds(timeout, TIMEOUT_S)
    while True:
        document = client.get("/v1/status", timeout_s=limit_s)
        if not quiet:
            show_status(document, form, painter, clear=watch and sys.stdout.isatty())
        if not watch:
            return exit_code(document["verdict"], strict=strict, quiet=quiet)
        time.sleep(REFRESH_S)


def exit_code(verdict: str, *, strict: bool, quiet: bool) -> int:
    """Return the exit code for the cluster's word. Strict: anything but healthy is 1; quiet alone: only down is."""
    if strict:
        return Exit.DONE if verdict == "healthy" else Exit.NO
    return Exit.NO if quiet and verdict == "down" else Exit.DONE


def show_status(document: dict[str, Any], form: str, painter: Painter, *, clear: bool = False) -> None:
    """Print a status document."""
    match form:
        case "json" | "jsonl" | "yaml":
            emit(document, form)
        case "name":
            print("\n".join(node["name"] for node in document["nodes"]))
        case _:
            lines = [lists.headline(document, painter), ""]
            lines += lists.nodes_table(document["nodes"], painter, wide=form == "wide")
            below = lists.footer(document, painter)
            lines += ["", *below] if below else []
            # Each line is written over the one before, so that nothing flickers.
            print("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J" if clear else "\n".join(lines), flush=True)


def show_nodes(document: dict[str, Any], form: str, painter: Painter) -> None:
    """Print a document with nodes."""
    match form:
        case "json" | "yaml":
            emit(document, form)
        case "jsonl":
            for node in document["nodes"]:
                emit(node, form)
        case "name":
            print("\n".join(node["name"] for node in document["nodes"]))
        case _:
            print("\n".join(lists.nodes_table(document["nodes"], painter, wide=form == "wide")))


def seconds(text: str | None, default: float) -> float:
    """Return a span given on the command line. Raises CommandError."""
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError as exc:
        raise CommandError(str(exc), code=Exit.USAGE) from exc
