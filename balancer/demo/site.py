"""A site in one folder: example nodes, a balancer configuration, and the processes that run them."""

import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from balancer.errors import BalanceError

STOP_GRACE_S = 10.0
PREFERRED_BALANCER_PORT = 8080
PREFERRED_NODE_PORT = 9001


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of the demo is. All paths lie under `folder`."""

    folder: Path
    balancer_port: int
    node_ports: Mapping[str, int]

    @property
    def config(self) -> Path:
        """The balancer's configuration file."""
        return self.folder / "arv-balance.yml"

    @property
    def admin_socket(self) -> Path:
        """The admin API's Unix socket."""
        return self.folder / "admin.sock"

    @property
    def log(self) -> Path:
        """What the processes print, access log included."""
        return self.folder / "demo.log"

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.balancer_port}"


def plan(folder: Path, nodes: int) -> Layout:
    """Choose free loopback ports, the well-known ones where they are free."""
    taken: set[int] = set()
    ports = {f"api{i}": _free_port(PREFERRED_NODE_PORT + i - 1, taken) for i in range(1, nodes + 1)}
    return Layout(folder=folder, balancer_port=_free_port(PREFERRED_BALANCER_PORT, taken), node_ports=ports)


def _free_port(preferred: int, taken: set[int]) -> int:
    # Below the ephemeral range, so that no outgoing connection of the demo takes it meanwhile.
    for port in itertools.chain([preferred], range(preferred + 1000, preferred + 1200)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            taken.add(port)
            return port
    raise BalanceError(f"no free port near {preferred} on 127.0.0.1")


def write(layout: Layout) -> None:
    """Make the folder (an old demo's is replaced) with the configuration and an `env` file for another terminal.

    Raises BalanceError when an earlier demo still runs in it.
    """
    pid_file = layout.folder / "pid"
    if pid_file.exists() and _alive(int(pid_file.read_text() or "0")):
        raise BalanceError(f"a demo already runs here (pid {pid_file.read_text()}); stop it first, or use --folder")
    shutil.rmtree(layout.folder, ignore_errors=True)
    layout.folder.mkdir(parents=True, mode=0o700)
    pid_file.write_text(str(os.getpid()))
    layout.config.write_text(_config(layout))
    bin_dir = Path(sys.executable).parent
    (layout.folder / "env").write_text(
        f'export ARV_BALANCE_ADMIN="unix:{layout.admin_socket}"\n'
        f'export ARV_BALANCE_CONFIG="{layout.config}"\n'
        f'export PATH="{bin_dir}:$PATH"\n'
    )


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _config(layout: Layout) -> str:
    nodes = "\n".join(f'  {name}: {{url: "http://127.0.0.1:{port}"}}' for name, port in layout.node_ports.items())
    order = ", ".join(layout.node_ports)
    return f"""\
version: 1
cluster: xdemo
preset: arvados
listen:
  - {{bind: "127.0.0.1:{layout.balancer_port}"}}
nodes:
{nodes}
designated:
  dns: {{order: [{order}], failover: automatic, failback: manual}}
health: {{path: /_health/ping, token: null, expect: {{json: {{health: OK}}}}, interval: 1s, timeout: 900ms}}
balance: {{policy: least_requests, slow_start: 3s}}
workers: auto
admin: {{socket: {json.dumps(str(layout.admin_socket))}}}
state: {{dir: {json.dumps(str(layout.folder / "state"))}}}
log: {{access: json}}
"""


def example_node() -> Path:
    """The example node's program: beside the package when installed, in `examples/` of a checkout."""
    packaged = Path(str(files("balancer") / "_examples" / "echo_node.py"))
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "examples" / "echo_node.py"


def node_command(name: str, port: int) -> list[str]:
    """Command line of one example node."""
    return [sys.executable, "-P", str(example_node()), "--name", name, "--port", str(port)]


def balancer_command(layout: Layout) -> list[str]:
    """Command line of the balancer."""
    return [sys.executable, "-P", "-m", "balancer", "serve", "--config", str(layout.config)]


async def start(layout: Layout, command: list[str]) -> asyncio.subprocess.Process:
    """Start a process in a group of its own (Ctrl-C reaches the demo alone), its output going to the log."""
    log = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    finally:
        os.close(log)


async def stop(process: asyncio.subprocess.Process) -> None:
    """End a process: politely, then not."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
