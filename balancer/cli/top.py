"""`arv-balance top`: the dashboard's twin in a terminal."""

import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from balancer.cli import options
from balancer.cli.client import Client, connect
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import Color, Painter
from balancer.cli.screen import seconds
from balancer.cli.terminal import Terminal
from balancer.cli.topview import EVENTS, HELP, Choice, Seen, arranged, lines

DEFAULT_EVERY_S = 1.0
LEAST_S = 0.2
ANSWER_S = 2.0
REASON = 500


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("top", rich_help_panel="Inspect", epilog="Example: `arv-balance top --every 5s`")(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print the screen once and end.")] = False,
    every: Annotated[
        str, typer.Option("--every", metavar="SPAN", callback=options.a_span, help="How often it looks.")
    ] = "1s",
    color: options.ColorOption = Color.AUTO,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Watch the cluster live: traffic, nodes, events; drain by key. Without a terminal it prints once."""
    client, painter = connect(admin, admin_token_file), Painter(color)
    every_s = max(LEAST_S, seconds(every, DEFAULT_EVERY_S))
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("\n".join(lines(look(client), Choice(), painter)[:-2]))  # without the line of keys
        return
    with Terminal() as terminal:
        Watch(client, painter, terminal).run(every_s)
    raise typer.Exit(Exit.DONE)


def look(client: Client) -> Seen:
    """Ask for everything on the screen."""
    status = client.get("/v1/status", timeout_s=ANSWER_S)
    series = client.get("/v1/series?span=minute", timeout_s=ANSWER_S)
    events = client.get(f"/v1/events?limit={EVENTS}", timeout_s=ANSWER_S)["events"]
    return Seen(status, series, events)


class Watch:
    """The screen until `q`."""

    def __init__(self, client: Client, painter: Painter, terminal: Terminal) -> None:
        self._client = client
        self._painter = painter
        self._terminal = terminal
        self._choice = Choice()
        self._seen = look(client)
        self._doing: Callable[[str], None] | None = None

    def run(self, every_s: float) -> None:
        """Draw, take keys, look again every `every_s` seconds."""
        due_s = time.monotonic() + every_s
        while True:
            self._terminal.draw(lines(self._seen, self._choice, self._painter))
            key = self._terminal.key(due_s - time.monotonic())
            if key == "q" and not self._choice.prompt:
                return
            if key:
                self._key(key)
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + every_s
                if not self._choice.is_held:
                    self._look()

    def _look(self) -> None:
        try:
            self._seen = look(self._client)
        except CommandError as exc:
            old = self._seen
            self._seen = Seen(old.status, old.series, old.events, fault=f"old: {exc.what}: {exc.why}")

    def _key(self, key: str) -> None:
        choice = self._choice
        choice.told = ""
        if choice.prompt:
            self._type(key)
            return
        names = [node["name"] for node in arranged(self._seen.status["nodes"], choice)]
        match key:
            case "up" | "k":
                choice.move(names, -1)
            case "down" | "j":
                choice.move(names, 1)
            case "s":
                choice.next_sort()
            case "r":
                choice.reverse = not choice.reverse
            case "e":
                choice.has_events = not choice.has_events
            case " ":
                choice.is_held = not choice.is_held
            case "d" | "u":
                self._ask("drain" if key == "d" else "undrain")
            case _:
                choice.told = HELP

    def _ask(self, verb: str) -> None:
        """Say what it would come to and ask for a reason."""
        node = self._choice.node
        if not node:
            self._choice.told = "choose a node with the arrow keys first"
            return
        try:
            planned = self._client.post(f"/v1/nodes/{node}/{verb}", {"dry_run": True}, timeout_s=ANSWER_S)
        except CommandError as exc:
            self._choice.told = f"{exc.what}; arv-balance nodes {verb} {node} --force does it all the same"
            return
        if not planned["changed"]:
            self._choice.told = f"{node}: {planned['consequence']}"
            return
        what = f" ({planned['consequence']})" if planned["consequence"] else ""
        self._choice.prompt, self._choice.typed = f"{verb} {node}{what}. Reason, Enter to do it, Esc to leave:", ""
        self._doing = lambda reason: self._do(node, verb, reason)

    def _type(self, key: str) -> None:
        choice = self._choice
        match key:
            case "enter" if self._doing is not None:
                choice.prompt = ""
                self._doing(choice.typed.strip())
            case "escape":
                choice.prompt, choice.told = "", "nothing was changed"
            case "back":
                choice.typed = choice.typed[:-1]
            case _ if len(key) == 1 and key.isprintable() and len(choice.typed) < REASON:
                choice.typed += key
            case _:
                return  # a key that writes nothing

    def _do(self, node: str, verb: str, reason: str) -> None:
        try:
            done = self._client.post(f"/v1/nodes/{node}/{verb}", {"reason": reason}, timeout_s=ANSWER_S)
        except CommandError as exc:
            self._choice.told = f"{exc.what} {exc.why}"
            return
        self._choice.told = f"{node} is {done['state']}"
        self._look()
