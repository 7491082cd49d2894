"""An upgrade in words: the plan, a line a node while it goes on, what it came to."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from balancer.cli.output import Color, Painter, table
from balancer.cli.progress import Progress
from balancer.durations import spell

Document = dict[str, Any]

_SIGNS = {"done": ("✓", "good"), "running": ("◐", "warn"), "failed": ("✗", "bad"), "unknown": ("?", "bad")}


_WORDS = {"ready": "healthy", "undrain": "traffic", "resume": "release"}  # what a step came to, where that says more


class Teller:
    """Prints a line for steps in a row at one node, and meanwhile how far the present one is. Use it as a context."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._progress = Progress(quiet=quiet)
        self._painter = Painter(Color.AUTO)
        self._node = ""
        self._parts: list[str] = []  # of the line that is not printed yet
        self._open = ""  # the step under way

    def __enter__(self) -> "Teller":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._open and kind is not None:
            self._parts.append(f"{self._open} {self._painter.paint('bad', '✗')}")
        self._flush(is_whole=kind is None)
        self._progress.__exit__()

    def begins(self, step: Document) -> None:
        """See runner.Teller."""
        if self._parts and (step["node"] != self._node or not step["node"]):
            self._flush(is_whole=True)
        self._node, self._open = step["node"], step["do"]
        self._show("")

    def waits(self, text: str) -> None:
        """See runner.Teller."""
        self._show(text)

    def ended(self, step: Document, note: str) -> None:
        """See runner.Teller."""
        word = _WORDS.get(step["do"], step["do"])
        took = f" {spell(step['took_s'])}" if step["took_s"] is not None else ""
        changed = f"{note} → " if "⇒" in note else ""
        said = f" ({note})" if note and not changed and not step["node"] else ""
        self._parts.append(f"{changed}{word}{took}{said}")
        self._open = ""

    def _show(self, text: str) -> None:
        before = self._parts if self._progress.is_live else []  # in a log the lines above tell
        self._progress.show(f"{self._node}  {' → '.join([*before, self._open])} …  {text}".strip())

    def _flush(self, *, is_whole: bool) -> None:
        if self._parts and not self._quiet:
            self._progress.__exit__()
            sign = f" {self._painter.paint('good', '✓')}" if is_whole else ""
            print(f"{self._node or 'all':<5} {' → '.join(self._parts)}{sign}", flush=True)
        self._parts = []


def name(step: Document) -> str:
    """Return what a step is, in two words."""
    return f"{step['do']} {step['node']}".strip()


def plan_lines(planned: Document, *, whole: bool) -> Iterator[str]:
    """Yield the plan: one line, or each step; then what is to be known before."""
    nodes, mode = planned["nodes"], planned["mode"]
    how = "all down at once while requests wait" if mode == "stop-all" else "one at a time"
    yield f"Plan: {len(nodes)} nodes ({', '.join(nodes)}), {how}, {len(planned['steps'])} steps."
    if planned["kept"]:
        yield f"Drained before, and they stay so: {', '.join(planned['kept'])}."
    if whole:
        yield from _table(planned["steps"])
    for warning in planned["warnings"]:
        yield f"note: {warning}"


def left_lines(document: Document, what: str) -> list[str]:
    """Return the steps that are left of an upgrade which would `what`, and what they leave."""
    over = {"done", "failed"} if document["phase"] == "aborting" else {"done"}
    steps = [step for step in document["steps"][document["abort_from"] :] if step["state"] not in over]
    head = f"upgrade {document['id']} would {what}: {len(steps)} step{'' if len(steps) == 1 else 's'}"
    notes = [
        f"note: the migration is {step['state']}; it is not run again by itself: --migration done, or --migration again"
        for step in steps
        if step["do"] == "migrate" and step["state"] in {"failed", "unknown"}
    ]
    return [head, *(_table(steps) if steps else ()), *notes, *_left(document)]


def _table(steps: list[Document]) -> list[str]:
    rows = [[str(step["number"] + 1), step["do"], step["node"], step["text"]] for step in steps]
    return table(["STEP", "DO", "NODE", "COMMAND"], rows, right=["STEP"])


def lines(document: Document) -> list[str]:
    """Return the upgrade as it stands."""
    if document["phase"] == "none":
        return ["no upgrade was made yet"]
    painter = Painter(Color.AUTO)
    done = sum(step["state"] == "done" for step in document["steps"])
    head = (
        f"upgrade {document['id']}  {document['mode']}  {document['phase']}  {done} of {len(document['steps'])} steps"
    )
    at = f"{datetime.fromisoformat(document['at']):%Y-%m-%d %H:%M:%S}"
    by = f"begun by {document['who']} at {at} UTC: {document['plan']}"
    found = [head, by, ""]
    for step in document["steps"]:
        sign, style = _SIGNS.get(step["state"], ("·", "dim"))
        took = f"{step['took_s']:.1f} s" if step["took_s"] is not None else ""
        found.append(
            f" {painter.paint(style, sign)} {name(step):<18} {took:>8}  {step['why'] or step['text']}".rstrip()
        )
    if document["open"]:
        driver = f"driven by a command of {document['driver']}" if document["driver"] else "no command drives it"
        found += ["", f"{driver}. Go on: arv-balance upgrade resume. Give up: arv-balance upgrade abort"]
    return [*found, *_left(document), *_totals(document)]


def summary(document: Document) -> list[str]:
    """Return what a finished upgrade came to."""
    nodes = len(document["nodes"])
    took_s = sum(step["took_s"] or 0.0 for step in document["steps"])
    what = f"Upgraded {nodes} of {nodes} nodes" if document["phase"] == "finished" else "Aborted"
    return [f"{what} in {took_s:.1f} s.", *_totals(document), *_left(document)]


def _totals(document: Document) -> list[str]:
    totals = document["totals"]
    if totals is None:
        return ["  the counters began anew meanwhile: requests were not counted"] if document["phase"] != "none" else []
    p99 = "" if totals["p99_s"] is None else f"   p99 {spell(totals['p99_s'])}"
    if p99 and totals["p99_before_s"] is not None:
        p99 += f" (before: {spell(totals['p99_before_s'])})"
    if totals.get("slowest_s"):
        p99 += f"   slowest {spell(totals['slowest_s'])}"
    retried = f"retried (hidden from clients) {totals['retried']}"
    return [f"  requests {totals['requests']}   failed {totals['failed']}   {retried}{p99}"]


def _left(document: Document) -> list[str]:
    return [f"  left: {sentence}" for sentence in document["left"]]
