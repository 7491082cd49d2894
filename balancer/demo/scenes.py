"""The scenes: what an operator does to a site that serves, each with a promise that is checked."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from balancer.demo.processes import PYTHON
from balancer.demo.stage import INDENT, Document, Stage, serving
from balancer.errors import BalanceError

SOME = 60  # answers to wait for before something is concluded from them


def scale_out(stage: Stage) -> None:
    """One more node while traffic goes on."""
    began = time.monotonic()
    made = stage.ask("add")
    stage.say.done(f"{made['name']} {made['url']} started", time.monotonic() - began)
    stage.run("nodes", "add", made["url"], "--name", made["name"], "--reason", "more load", "--quiet")
    stage.until_answers(3 * SOME)  # the slow start is over
    log = stage.log()
    stage.until_answers(3 * SOME)
    nodes = Counter(entry["arv.node"] for entry in log.entries())
    share = nodes[made["name"]] / max(1, sum(nodes.values()))
    stage.promise(f"{made['name']} answers {share:.0%} of the requests", share > 0.1)
    stage.verdict()


def drain(stage: Stage) -> None:
    """A node is taken out for work on its disk, and comes back."""
    stage.run("nodes", "drain", "api2", "--reason", "disk swap", "--quiet")
    log = stage.log()
    stage.until_answers(SOME)
    stray = [entry["request_id"] for entry in log.entries() if entry["arv.node"] == "api2"]
    stage.promise(f"{len(stray)} requests reached api2 since", not stray)
    stage.run("nodes", "undrain", "api2", "--quiet")
    stage.verdict()


def kill(stage: Stage) -> None:
    """A node dies without a word."""
    log = stage.log()
    pid = stage.ask("kill", node="api3")["pid"]
    stage.say.done(f"api3 (pid {pid}) was killed with SIGKILL")
    took_s = stage.until(lambda: "api3" not in serving(stage.status()), "api3 is taken out")
    stage.say.done("the balancer has taken it out", took_s)
    stage.until_answers(SOME)
    repeated = [entry["request_id"] for entry in log.entries() if entry["arv.attempts"] > 1]
    stage.say.done(f"{len(repeated)} requests were repeated on other nodes; their clients saw nothing of it")
    for request_id in repeated[:1]:
        stage.run("trace", request_id, "--collect", f"cat {shlex.quote(str(stage.folder))}/logs/{{node}}.log")
    began = time.monotonic()
    stage.ask("start", node="api3")
    stage.until_serving("api3")
    stage.say.done("api3 was started again and serves", time.monotonic() - began)
    stage.verdict(cut_writes=True)


def pause(stage: Stage) -> None:
    """The database goes away while requests wait for it."""
    stage.run("pause", "--for", "1m", "--reason", "database restart", "--yes")
    began = time.monotonic()
    if not stage.about["echo"]:
        stage.ask("restart-database")
        stage.say.done("PostgreSQL was restarted: all connections to it broke", time.monotonic() - began)
    names = list(stage.about["nodes"])
    stage.until(lambda: set(names) <= set(serving(stage.status())), "all nodes are healthy")
    waiting = stage.status()["traffic"]["parked"]
    stage.promise(f"{waiting} requests wait in their sockets", waiting > 0)
    stage.run("resume", "--reason", "database is back")
    stage.until(lambda: stage.status()["traffic"]["parked"] == 0, "no request waits any more")
    stage.verdict()


def upgrade(stage: Stage) -> None:
    """Another version on all nodes, with a change of the database: all are down at once, requests wait."""
    if stage.about["echo"]:
        raise BalanceError("example nodes have no database to upgrade: run the demo without --echo")
    made = stage.ask("release")
    stage.say.done(f"release {made['version']} with one migration is in {made['folder']}")
    plan = stage.folder / "upgrade.yml"
    commands = {
        do: [*PYTHON, "-m", "balancer.demo.hand", str(stage.socket), word, "{node}"]
        for do, word in (("stop", "stop"), ("upgrade", "install"), ("migrate", "migrate"), ("start", "start"))
    }
    document = {"mode": "stop-all", **commands, "expect": {"packageVersion": made["version"]}}
    plan.write_text(json.dumps(document, indent=1) + "\n")
    stage.run("upgrade", "run", str(plan), "--yes", quiet=True)
    applied = stage.ask("applied", migration=made["migration"])["count"]
    stage.promise(f"migration {made['migration']} was applied {applied} time", applied == 1)
    found = {node["version"] for node in stage.status()["nodes"]}
    same = len(found) == 1 and made["version"] in found.pop()
    stage.promise(f"all {len(stage.about['nodes'])} nodes say that they run {made['version']}", same)
    stage.verdict()


@dataclass(frozen=True, slots=True)
class Scene:
    """What may be played."""

    title: str
    play: Callable[[Stage], None]


SCENES: Mapping[str, Scene] = {
    "scale-out": Scene("Scale out: one more node under load", scale_out),
    "drain": Scene("Drain: a node is taken out and comes back", drain),
    "kill": Scene("Kill: a node dies", kill),
    "pause": Scene("Pause: the database is restarted, requests wait", pause),
    "upgrade": Scene("Upgrade: all nodes to the next release, migrated once", upgrade),
}


def playable(*, echo: bool) -> list[str]:
    """Return the names of the scenes; example nodes have no database to upgrade."""
    return [name for name in SCENES if not (echo and name == "upgrade")]


def play(name: str, stage: Stage) -> bool:
    """Play a scene; return whether its promise held."""
    return played(SCENES[name], stage)


def played(scene: Scene, stage: Stage) -> bool:
    """Play a scene; one that breaks leaves the site as it found it, so that the next one does not fail for that too."""
    stage.say.title(scene.title)
    before = intents(stage.status())
    try:
        scene.play(stage)
    except BaseException:
        with suppress(BalanceError):  # why the scene broke is what is told
            restore(stage, before)
        raise
    return stage.is_good


def intents(status: Document) -> set[tuple[str, str]]:
    """Return kind and node of what operators have changed."""
    return {(item["kind"], item["node"]) for item in status["intents"]}


def restore(stage: Stage, before: set[tuple[str, str]]) -> None:
    """Start nodes that do not run, and undo drains and pauses that were not there before. Raises BalanceError."""
    stage.say.line(f"{INDENT}the scene broke; what it had begun is undone")
    if (stage.status()["upgrade"] or {"open": False})["open"]:
        with suppress(BalanceError):  # it restores what it can; the rest is done here
            stage.run("upgrade", "abort", "--yes", quiet=True)
    for name in stage.ask("about")["nodes"]:
        stage.ask("start", node=name)
    left = intents(stage.status()) - before
    if ("pause", "") in left:
        stage.run("resume", "--reason", "the scene broke")
    for name in sorted(node for kind, node in left if kind == "drain"):
        stage.run("nodes", "undrain", name, "--quiet")
    resting = {node for kind, node in before if kind in {"drain", "remove"}}
    known = {node["name"] for node in stage.status()["nodes"]}
    stage.until(lambda: known - resting <= set(serving(stage.status())), "all nodes serve again")
