"""What an operator's commands do to a node, for the example nodes: the commands of plans in tests.

    python -P tests/support/nodectl.py FOLDER stop|upgrade|migrate|start NODE

FOLDER holds ports.json (name to port), NODE.version and NODE.pid, and in `next` what `upgrade` installs; each action
adds a line to FOLDER/actions. What is in FOLDER/fail (such as `start api2`) fails once.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0


def note(folder: Path, text: str) -> None:
    """Add a line, in one write."""
    fd = os.open(folder / "actions", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def start(folder: Path, name: str) -> None:
    """Start a node and return when it listens."""
    port = json.loads((folder / "ports.json").read_text())[name]
    version = (folder / f"{name}.version").read_text().strip()
    if is_up(port):
        return
    command = [sys.executable, "-P", str(ROOT / "examples/echo_node.py"), "--name", name, "--port", str(port)]
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--keepalive", "1", "--version", version],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (folder / f"{name}.pid").write_text(str(process.pid))
    deadline = time.monotonic() + WAIT_S
    while not is_up(port):
        if time.monotonic() > deadline or process.poll() is not None:
            raise SystemExit(f"{name} does not listen")
        time.sleep(0.02)


def stop(folder: Path, name: str) -> None:
    """End a node at once, open requests included."""
    pid = int((folder / f"{name}.pid").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    port = json.loads((folder / "ports.json").read_text())[name]
    while is_up(port):
        time.sleep(0.02)


def is_up(port: int) -> bool:
    """Whether somebody listens."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def up(folder: Path) -> list[str]:
    """Nodes that listen."""
    return [name for name, port in json.loads((folder / "ports.json").read_text()).items() if is_up(port)]


def main() -> None:
    """Do one thing."""
    folder, action, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    note(folder, f"{action} {name}")
    fail = folder / "fail"
    if fail.exists() and fail.read_text().strip() == f"{action} {name}":
        fail.unlink()
        sys.stdout.write(f"{action} of {name} was told to fail\n")
        raise SystemExit(3)
    match action:
        case "stop":
            stop(folder, name)
        case "upgrade":
            (folder / f"{name}.version").write_text((folder / "next").read_text())
        case "migrate":
            note(folder, f"migration-began up={','.join(up(folder))}")
            time.sleep(0.3)
            note(folder, "migration-applied")
            sys.stdout.write("== 20261124 AddColumn: migrated\n")
        case "start":
            start(folder, name)
        case _:
            raise SystemExit(f"{action} means nothing")


if __name__ == "__main__":
    main()
