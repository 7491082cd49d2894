"""`arv-balance nodes`: see them, add, drain, weigh, remove; each returns when it is true."""

import sys
from typing import Annotated, Any

import typer

from balancer.cli import options
from balancer.cli.asking import confirm
from balancer.cli.client import Client, connect
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import Color, Painter, emit, say
from balancer.cli.progress import NotInTimeError, remaining, wait_for_node
from balancer.cli.screen import seconds, show_nodes

Document = dict[str, Any]

HEALTHY_S = 30.0  # until an undrained or added node serves; a site with slow checks gives --timeout

app = typer.Typer(no_args_is_help=True, help="See nodes, add, drain, weigh and remove them.")


def register(root: typer.Typer) -> None:
    """Add the group."""
    root.add_typer(app, name="nodes", rich_help_panel="Operate")


def node_names(context: typer.Context, incomplete: str) -> list[str]:
    """Complete node names; a balancer that does not answer at once completes nothing."""
    try:
        found = connect(context.params.get("admin")).get("/v1/nodes", timeout_s=0.2)["nodes"]
    except CommandError:
        return []
    return [node["name"] for node in found if node["name"].startswith(incomplete)]


NodeArgument = Annotated[str, typer.Argument(metavar="NODE", autocompletion=node_names, help="Name of the node.")]


@app.command("list")
def list_(
    output: options.FormOption = options.Form.TABLE,
    as_json: options.JsonOption = False,
    color: options.ColorOption = Color.AUTO,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """List the nodes with their state and traffic."""
    client = connect(admin, admin_token_file)
    show_nodes(client.get("/v1/nodes"), options.form(output, as_json=as_json), Painter(color))


@app.command(epilog="Example: `arv-balance nodes drain api2 --reason 'disk swap' --for 2h`")
def drain(
    node: NodeArgument,
    reason: options.ReasonOption = "",
    for_: options.ForOption = None,
    cut: Annotated[bool, typer.Option("--cut", help="End by force what is left after drain.timeout.")] = False,
    force: options.ForceOption = False,
    dry_run: options.DryRunOption = False,
    no_wait: options.NoWaitOption = False,
    timeout: options.TimeoutOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Give a node no new request; return when nothing is in flight there."""
    client = connect(admin, admin_token_file)
    body = {"reason": reason, "for": for_, "cut": cut, "force": force, "dry_run": dry_run}
    answer = _act(client, node, "drain", body)
    if dry_run or no_wait:
        _told(answer, as_json, f"{node} {'would be drained' if dry_run else answer['state']}: {answer['consequence']}")
        return
    found, took_s = _emptied(client, node, "drain", answer, timeout, quiet=quiet or as_json)
    text = f"{node}  drained in {took_s:.1f} s. Safe to stop. {_left(client)}"
    _told(answer | {"state": found["state"]}, as_json, text)
    if not as_json:
        say(f"Undo: arv-balance nodes undrain {node}")


@app.command()
def undrain(
    node: NodeArgument,
    reason: options.ReasonOption = "",
    dry_run: options.DryRunOption = False,
    no_wait: options.NoWaitOption = False,
    timeout: options.TimeoutOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Let a drained or removed node serve again; return when its checks say that it does."""
    client = connect(admin, admin_token_file)
    answer = _act(client, node, "undrain", {"reason": reason, "dry_run": dry_run})
    if dry_run or no_wait:
        _told(answer, as_json, f"{node} {'would serve again' if dry_run else answer['state']}")
        return
    found, took_s = _serving(client, node, timeout, quiet=quiet or as_json)
    text = f"{node}  {found['state']} after {took_s:.1f} s. {_left(client)}"
    _told(answer | {"state": found["state"]}, as_json, text)


@app.command()
def weight(
    node: NodeArgument,
    value: Annotated[int, typer.Argument(metavar="WEIGHT", min=0, max=1000, help="0 to 1000; 0 takes nothing.")],
    reason: options.ReasonOption = "",
    for_: options.ForOption = None,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Give a node another share of the requests."""
    body = {"weight": value, "reason": reason, "for": for_, "dry_run": dry_run}
    answer = _act(connect(admin, admin_token_file), node, "weight", body)
    would = "would be" if dry_run else "is"
    _told(answer, as_json, f"{node}  weight {would} {answer['weight']} (was {answer['was']})")


@app.command(epilog="Example: `arv-balance nodes add http://10.0.0.14:8003 --name api4`")
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="http://HOST:PORT, https://HOST:PORT or unix:/path.")],
    name: Annotated[str, typer.Option("--name", help="Its name. (default: the host)")] = "",
    weight: Annotated[int, typer.Option("--weight", min=0, max=1000, help="Share of the requests.")] = 100,
    capacity: Annotated[int, typer.Option("--capacity", min=0, help="Requests at once; 0: no limit.")] = 0,
    reason: options.ReasonOption = "",
    for_: options.ForOption = None,
    dry_run: options.DryRunOption = False,
    no_wait: options.NoWaitOption = False,
    timeout: options.TimeoutOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Add a node that the configuration does not hold; return when it serves."""
    client = connect(admin, admin_token_file)
    body: Document = {"url": url, "weight": weight, "capacity": capacity, "reason": reason, "for": for_}
    answer = client.post("/v1/nodes", {**body, "dry_run": dry_run} | ({"name": name} if name else {}))
    node = answer["node"]
    if dry_run or no_wait:
        _told(answer, as_json, f"{node} {'would be added' if dry_run else 'added'} at {url}")
        return
    found, took_s = _serving(client, node, timeout, quiet=quiet or as_json)
    _told(answer | {"state": found["state"]}, as_json, f"{node}  added, {found['state']} after {took_s:.1f} s")
    if not as_json:
        say(f"It is kept over restarts; write it into the configuration, or undo: arv-balance nodes remove {node}")


@app.command(epilog="Example: `arv-balance nodes remove api2 --now --reason 'disk full'`")
def remove(
    node: NodeArgument,
    reason: options.ReasonOption = "",
    now: Annotated[bool, typer.Option("--now", help="End by force what is under way there, at once.")] = False,
    force: options.ForceOption = False,
    yes: options.YesOption = False,
    dry_run: options.DryRunOption = False,
    no_wait: options.NoWaitOption = False,
    timeout: options.TimeoutOption = None,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Drain a node and let go of it. One of the configuration stays away until `nodes forget`."""
    client = connect(admin, admin_token_file)
    body = {"reason": reason, "force": force, "now": now}
    planned = _act(client, node, "remove", body | {"dry_run": True})
    consequence = planned["consequence"]
    if now:
        consequence += f"; {_busy(client.get(_path(node)))} under way there end by force"
    if dry_run:
        _told(planned, as_json, f"{node} would be removed: {consequence}")
        return
    confirm(f"Remove {node}: {consequence}.", yes=yes, is_machine=as_json, word=_worst(client, force))
    answer = _act(client, node, "remove", body)
    if no_wait:
        _told(answer, as_json, f"{node} {answer['state']}: {answer['consequence']}")
        return
    took_s = _gone(client, node, answer, timeout, quiet=quiet or as_json)
    _told(answer | {"state": "removed"}, as_json, f"{node}  removed in {took_s:.1f} s. {_left(client)}")


@app.command()
def forget(
    node: NodeArgument,
    reason: options.ReasonOption = "",
    force: options.ForceOption = False,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
    admin: options.AdminOption = None,
    admin_token_file: options.TokenOption = None,
) -> None:
    """Drop what operators changed about a node: it is as the configuration says, or gone."""
    client = connect(admin, admin_token_file)
    answer = _act(client, node, "forget", {"reason": reason, "force": force, "dry_run": dry_run})
    would = "would be dropped" if dry_run else "dropped"
    changes = {0: "nothing was changed", 1: f"1 change {would}"}.get(
        answer["dropped"], f"{answer['dropped']} changes {would}"
    )
    _told(answer, as_json, f"{node}  {changes}; it is {answer['state']}")


def _path(node: str) -> str:
    from urllib.parse import quote

    return f"/v1/nodes/{quote(node, safe='')}"


def _act(client: Client, node: str, verb: str, body: Document) -> Document:
    sent = {name: value for name, value in body.items() if value not in (None, "")}
    return client.post(f"{_path(node)}/{verb}", sent)


def _told(answer: Document, as_json: bool, text: str) -> None:
    if as_json:
        emit(answer)
    else:
        print(text)


def _emptied(
    client: Client, node: str, verb: str, answer: Document, timeout: str | None, *, quiet: bool
) -> tuple[Document, float]:
    """Wait until nothing is in flight at a node; what remains is named when that is not in time."""
    at_first: list[int] = []

    def describe(found: Document) -> str:
        at_first.append(_busy(found))
        return f"{node}  {found['state']}   in flight {at_first[0]} -> {at_first[-1]}"

    def is_empty(found: Document) -> bool:
        return found["state"] in {"drained", "removed"}

    limit_s = seconds(timeout, float(answer["timeout_s"]))
    try:
        return wait_for_node(client, node, is_empty, timeout_s=limit_s, describe=describe, quiet=quiet)
    except NotInTimeError as exc:
        raise CommandError(
            f"{node} is still {exc.node['state']} after {limit_s:g} s: {_busy(exc.node)} in flight",
            why="\n".join([*remaining(exc.node), "  it stays like that and takes nothing new"]).strip(),
            hint=f"arv-balance nodes {verb} {node} (waits again), or arv-balance nodes undrain {node}",
            code=Exit.DEADLINE,
        ) from exc
    except KeyboardInterrupt:
        say(f"\n{node} stays {answer['state']} and takes nothing new. Undo: arv-balance nodes undrain {node}")
        raise


def _busy(node: Document) -> int:
    return int(node["in_flight"] + node["tunnels"])


def _gone(client: Client, node: str, answer: Document, timeout: str | None, *, quiet: bool) -> float:
    """Wait until a node is removed; an added one is then not known any more."""
    try:
        return _emptied(client, node, "remove", answer, timeout, quiet=quiet)[1]
    except CommandError as exc:
        if getattr(exc, "document", {}).get("status") == 404:
            return 0.0
        raise


def _serving(client: Client, node: str, timeout: str | None, *, quiet: bool) -> tuple[Document, float]:
    limit_s = seconds(timeout, HEALTHY_S)

    def describe(found: Document) -> str:
        return f"{node}  {found['state']}   {found['check']['text']}"

    def is_serving(found: Document) -> bool:
        return bool(found["serving"])

    try:
        return wait_for_node(client, node, is_serving, timeout_s=limit_s, describe=describe, quiet=quiet)
    except NotInTimeError as exc:
        raise CommandError(
            f"{node} is {exc.node['state']} after {limit_s:g} s and takes nothing yet",
            why=exc.node["check"]["text"],
            hint="arv-balance status -w; it serves as soon as its checks succeed",
            code=Exit.DEADLINE,
        ) from exc


def _left(client: Client) -> str:
    serving = sum(node["serving"] for node in client.get("/v1/nodes")["nodes"])
    return f"{serving} node{'' if serving == 1 else 's'} serve{'s' if serving == 1 else ''}."


def _worst(client: Client, force: bool) -> str:
    """Going below the guard is the worst: then the cluster's name has to be typed."""
    return str(client.get("/v1/status")["cluster"]) if force and sys.stdin.isatty() else ""
