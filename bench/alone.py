"""Becomes one worker without parent and control process: `python -P -m bench.alone SETTINGS.json`.

For profiling the byte path and for machines where only it is of interest. It hands over what a parent does: sockets,
scoreboard, snapshot. All nodes are declared healthy for an hour.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

from balancer.model import AccessLog, Health, Limits, Listener, ListenerTls, Node, Snapshot, Timeouts
from balancer.scoreboard import C_HEALTH, C_HEALTHY_SINCE_NS, C_VERDICT_NS, Scoreboard, control_cell
from balancer.snapshot import encode

_HOUR_NS = 3600 * 10**9


def snapshot(port: int, tls_port: int, nodes: list[int]) -> Snapshot:
    """Return what the worker runs on: a plain and a TLS listener and nodes on 127.0.0.1."""
    return Snapshot(
        generation=1,
        cluster="bench",
        listeners=(
            Listener(slot=0, bind=f"127.0.0.1:{port}"),
            Listener(slot=1, bind=f"127.0.0.1:{tls_port}", tls=ListenerTls(certificates=(((), 0),))),
        ),
        nodes=tuple(Node(name=f"n{port}", slot=slot, host="127.0.0.1", port=port) for slot, port in enumerate(nodes)),
        access_log=AccessLog(path="-"),
        timeouts=Timeouts(keepalive_s=3600, upstream_idle_s=3600),
        limits=Limits(),
    )


def main(settings_path: str) -> None:
    """Open everything and exec the worker."""
    settings = json.loads(Path(settings_path).read_text())
    ports = (settings["port"], settings["tls_port"])
    listeners = [_listening(port) for port in ports]
    snapshot_fd = _memfd("snapshot", encode(snapshot(*ports, settings["nodes"])))
    pem_fd = _memfd("pem", Path(settings["pem"]).read_bytes())
    now = time.monotonic_ns()
    board = Scoreboard.create(now)
    for slot in range(len(settings["nodes"])):
        first = control_cell(slot)
        board.cells[first + C_HEALTHY_SINCE_NS] = now - _HOUR_NS if now > _HOUR_NS else 1
        board.cells[first + C_VERDICT_NS] = now + _HOUR_NS
        board.cells[first + C_HEALTH] = Health.HEALTHY
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    child = {
        "role": "worker",
        "slot": 0,
        "run_dir": str(Path(settings_path).parent),
        "scoreboard": board.fd,
        "wake": wake,
        "wakes": [wake],
        "listeners": {str(slot): [listener.fileno()] for slot, listener in enumerate(listeners)},
        "snapshot": [snapshot_fd, pem_fd],
        "log_fd": 1,
    }
    for fd in (board.fd, wake, snapshot_fd, pem_fd, *(listener.fileno() for listener in listeners)):
        os.set_inheritable(fd, True)
    os.environ["ARV_BALANCE_CHILD"] = json.dumps(child)
    argv = [sys.executable, "-P", *settings.get("python", []), "-m", "balancer.worker"]
    os.execv(sys.executable, argv)  # noqa: S606 - no shell is wanted


def _listening(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


def _memfd(name: str, data: bytes) -> int:
    fd = os.memfd_create(name)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


if __name__ == "__main__":
    main(sys.argv[1])
