"""Where a scene happens: what it prints, the commands that it runs, and whether its promise held."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from balancer.demo import remote
from balancer.demo.processes import python
from balancer.errors import BalanceError

INDENT = "   "
WIDEST = 100  # times stand no further to the right
WITHIN_S = 60.0
LOOK_S = 0.1
Paint = Callable[[str, str], str]  # style (good, bad, dim, bold) and text
Document = dict[str, Any]


class Printer:
    """Prints lines: what was done, with the time it took at the right; commands and what they print."""

    def __init__(self, out: TextIO, paint: Paint, columns: int) -> None:
        self._out, self.paint, self._columns = out, paint, columns
        self.is_live = out.isatty()
        self._is_over = False  # the cursor is behind a line that may be replaced

    def line(self, text: str = "") -> None:
        """Print one line."""
        self._out.write(("\n" if self._is_over else "") + text + "\n")
        self._out.flush()
        self._is_over = False

    def overwrite(self, text: str, part: str, style: str) -> None:
        """Print a line in the place of the one that was printed so before, cut to the width; `part` gets a style."""
        text = text[: self._columns - 1].replace(part, self.paint(style, part), 1)
        self._out.write(f"\r\x1b[K{text}")
        self._out.flush()
        self._is_over = True

    def title(self, text: str) -> None:
        """Begin a part."""
        self.line(f"\n{self.paint('bold', text)}")

    def done(self, text: str, seconds: float | None = None, *, good: bool = True) -> None:
        """Print that something was done, or was not."""
        sign = self.paint("good", "✓") if good else self.paint("bad", "✗")
        took = "" if seconds is None else f"{seconds:.1f} s"
        gap = " " * max(2, min(self._columns, WIDEST) - 4 - len(text) - len(took)) if took else ""
        self.line(f" {sign} {text}{gap}{self.paint('dim', took)}")

    def command(self, words: str) -> None:
        """Print a command before it runs."""
        self.line(f" {self.paint('bold', '$ ' + words)}")


class AccessLog:
    """Reads what the balancer logs, from byte `after` on; None: from now on.

    A size may fall within a line, for a write of many pages is seen page by page: that line is not read.
    """

    def __init__(self, path: Path, after: int | None = None) -> None:
        self._path, self._from = path, path.stat().st_size if after is None else after

    def entries(self) -> Iterator[Document]:
        """Yield the lines so far."""
        with self._path.open("rb") as log:
            if self._from:
                log.seek(self._from - 1)
                log.readline()
            for line in log:
                if line.endswith(b"\n"):
                    yield json.loads(line)


class Stage:
    """One scene's view of the running demo."""

    def __init__(self, folder: Path, printer: Printer) -> None:
        """Raises BalanceError when no demo runs in the folder."""
        self.folder, self.say = folder, printer
        self._socket = remote.find(folder)
        self.about = self.ask("about")
        self._before = self.ask("mark")
        self.is_good = True

    def ask(self, do: str, **more: Any) -> Document:
        """Ask the demo for something. Raises BalanceError."""
        return remote.ask(self._socket, do, **more)

    @property
    def socket(self) -> Path:
        """By which the demo is asked."""
        return self._socket

    def status(self) -> Document:
        """Return what the balancer says of itself."""
        return self.ask("status")

    def log(self) -> AccessLog:
        """Return what will be logged from now on."""
        return AccessLog(Path(self.about["access_log"]))

    def run(self, *words: str, quiet: bool = False) -> None:
        """Run a command of ours as an operator does, and show it; `quiet`: without its talk.

        Raises BalanceError when it fails.
        """
        shown = " ".join(f"'{word}'" if " " in word else word for word in words)
        self.say.command(f"arv-balance {shown.replace(str(self.folder), _short(self.folder))}")
        environment = {
            **os.environ,
            "ARV_BALANCE_ADMIN": f"unix:{self.about['admin_socket']}",
            "ARV_BALANCE_CONFIG": str(self.folder / "arv-balance.yml"),
            "XDG_STATE_HOME": str(self.folder / "operator"),
        }
        with subprocess.Popen(
            python("balancer", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process:
            for line in process.stdout or ():
                self.say.line(f"{INDENT}{line.rstrip()}")
            talk = process.stderr.read() if process.stderr else ""
        if process.returncode:
            raise BalanceError(f"arv-balance {words[0]} ended with {process.returncode}\n{talk}".strip())

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait until something is true; return how long that took. Raises BalanceError after a minute."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > WITHIN_S:
                raise BalanceError(f"not within {WITHIN_S:.0f} s: {what}")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def until_answers(self, count: int) -> None:
        """Wait until clients have got so many more answers."""
        begin = self.ask("seen")["done"]
        self.until(lambda: bool(self.ask("seen")["done"] >= begin + count), f"{count} more answers")

    def until_serving(self, name: str) -> float:
        """Wait until a node serves."""
        return self.until(lambda: name in serving(self.status()), f"{name} serves")

    def promise(self, text: str, held: bool) -> None:  # noqa: FBT001 - a sentence and whether it is true
        """Print what was promised, and note whether it held."""
        self.is_good = self.is_good and held
        self.say.done(text, good=held)

    def verdict(self, *, cut_writes: bool = False) -> None:
        """Print what clients saw of the scene. `cut_writes`: writes may have lost their answer."""
        if not self.about["echo"]:
            found = self.ask("writes")
            text = f"{found['acknowledged']} writes acknowledged, each in PostgreSQL exactly once"
            if found["missing"] or found["doubled"]:
                faults = f"{found['missing']} are missing, {found['doubled']} are there twice"
                text = f"of {found['acknowledged']} writes {faults}"
            self.promise(text, not found["missing"] and not found["doubled"])
        after, before = self.ask("seen"), self._before
        done, failed, resent = (after[name] - before[name] for name in ("done", "failed", "resent"))
        again = f", {resent} writes lost their answer and were sent again with the same key" if resent else ""
        text = f"{failed} of {done} requests failed{again}; the slowest took {after['slowest_s']:.1f} s"
        self.promise(text, failed == 0 and (cut_writes or resent == 0))
        if not self.is_good:
            for failure in after["failures"][-5:]:
                self.say.line(f"{INDENT}{failure}")


def serving(status: Document) -> list[str]:
    """Return the names of the nodes that serve."""
    return [node["name"] for node in status["nodes"] if node["serving"]]


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
