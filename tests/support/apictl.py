"""What an operator's commands do to a real API node: the commands of plans in tests.

    python -P tests/support/apictl.py FOLDER stop|upgrade|migrate|start NODE

FOLDER holds NODE.yml (the node's file), NODE.release (the release it runs), NODE.pid, releases/N (the packages of
release N), and in `next` the release that `upgrade` installs; each action adds a line to FOLDER/actions. A release
differs from the one before by its version and by one migration.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("apiserver", "balancer", "dnsupdate")
WAIT_S = 30.0


def make_release(folder: Path, number: int, *, contract: bool) -> None:
    """Make the packages of a release; 1 is what is in this tree. `contract`: programs before it may not go on."""
    made = folder / "releases" / str(number)
    source = folder / "releases" / str(number - 1) if number > 1 else ROOT
    for package in PACKAGES:
        shutil.copytree(source / package, made / package, ignore=shutil.ignore_patterns("__pycache__", "_templates"))
    if number == 1:
        return
    init = made / "balancer/__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "0.1.{number}"', init.read_text()))
    steps = made / "apiserver/store/migrations"
    level = len(list(steps.glob("*.sql"))) + 1
    rule = f"-- min-app: {level}\n" if contract else ""
    (steps / f"{level:04d}_release_{number}.sql").write_text(
        f"{rule}CREATE TABLE release_{number} AS SELECT uuid FROM collections;\nSELECT pg_sleep(0.3);\n"
    )


def program(folder: Path, name: str) -> dict[str, Any]:
    """Return what starts the program in the release that is installed for a node."""
    release = (folder / f"{name}.release").read_text().strip()
    return {
        "args": [sys.executable, "-P", "-m", "balancer", "api", "--config", str(folder / f"{name}.yml")],
        "env": {**os.environ, "PYTHONPATH": str(folder / "releases" / release)},
        "cwd": folder,
        "stdin": subprocess.DEVNULL,
    }


def start(folder: Path, name: str) -> None:
    """Start a node, without migrating, and return when it says that it is ready."""
    if is_alive(folder, name):
        return
    command, ready = program(folder, name), folder / f"{name}.ready"
    command["args"].append("--no-migrate")
    with (folder / f"{name}.log").open("ab") as log, ready.open("wb") as out:
        process = subprocess.Popen(**command, stdout=out, stderr=log, start_new_session=True)
    (folder / f"{name}.pid").write_text(str(process.pid))
    deadline = time.monotonic() + WAIT_S
    while not ready.read_text().endswith("\n"):
        if time.monotonic() > deadline or process.poll() is not None:
            raise SystemExit(f"{name} does not get ready: {(folder / f'{name}.log').read_text()[-2000:]}")
        time.sleep(0.02)


def stop(folder: Path, name: str) -> None:
    """Kill a node: what is open in it is lost."""
    if is_alive(folder, name):
        os.kill(pid_of(folder, name), signal.SIGKILL)
    while is_alive(folder, name):
        time.sleep(0.02)


def pid_of(folder: Path, name: str) -> int:
    """The process of a node, 0 before its first start."""
    path = folder / f"{name}.pid"
    return int(path.read_text()) if path.exists() else 0


def is_alive(folder: Path, name: str) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid_of(folder, name)}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def migrate(folder: Path, name: str) -> None:
    """Run the migrations of the node's release, with their output."""
    up = [other for other in json.loads((folder / "names.json").read_text()) if is_alive(folder, other)]
    note(folder, f"migration-began up={','.join(up)}")
    command = program(folder, name)
    command["args"].insert(-2, "migrate")
    subprocess.run(**command, check=True)


def note(folder: Path, text: str) -> None:
    """Add a line to the actions, in one write."""
    fd = os.open(folder / "actions", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def main() -> None:
    """Do one thing."""
    folder, action, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    note(folder, f"{action} {name}")
    match action:
        case "stop":
            stop(folder, name)
        case "upgrade":
            (folder / f"{name}.release").write_text((folder / "next").read_text())
        case "migrate":
            migrate(folder, name)
        case "start":
            start(folder, name)
        case _:
            raise SystemExit(f"{action} means nothing")


if __name__ == "__main__":
    main()
