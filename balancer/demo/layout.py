"""Where everything of a demo is: folders, ports, names."""

import itertools
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from balancer.errors import BalanceError

CLUSTER = "xdemo"
DOMAIN = "xdemo.example"
HTTP_PORT, HTTPS_PORT, ADMIN_PORT, DNS_PORT, NODE_PORT = 8080, 8443, 8081, 5353, 9001
TRIES = 200


class Ports:
    """Gives out loopback ports: the wished one where it is free, else one further on.

    All lie below the ephemeral range, so that no outgoing connection of the demo takes one meanwhile. Two demos that
    start at once get different ones: what was given is claimed by a name in the abstract socket namespace.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def take(self, wished: int) -> int:
        """Return a port that is free for TCP and UDP. Raises BalanceError."""
        for port in itertools.chain([wished], range(wished + 1000, wished + 1000 + TRIES)):
            if _is_free(port) and self._claim(port):
                return port
        raise BalanceError(f"no free port near {wished} on 127.0.0.1")

    def _claim(self, port: int) -> bool:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0arv-balance-demo-{port}")
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True

    def close(self) -> None:
        """Give all up."""
        for claim in self._claims:
            claim.close()


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


@dataclass(slots=True)
class Node:
    """A node of the demo. `release`: which packages it runs, "" for those of this program."""

    name: str
    port: int
    release: str = ""

    @property
    def url(self) -> str:
        """Where the balancer finds it."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(slots=True)
class Layout:
    """Paths, ports and nodes. `folder` is what people look into; `scratch` has a short path, for sockets."""

    folder: Path
    scratch: Path
    echo: bool
    http: int
    https: int
    admin: int
    dns: int
    nodes: dict[str, Node]
    ports: Ports = field(repr=False)

    @property
    def config(self) -> Path:
        """The balancer's configuration file."""
        return self.folder / "arv-balance.yml"

    @property
    def admin_socket(self) -> Path:
        """The admin API's Unix socket."""
        return self.scratch / "admin.sock"

    @property
    def remote(self) -> Path:
        """The socket by which scenes ask the running demo for things."""
        return self.scratch / "demo.sock"

    @property
    def logs(self) -> Path:
        """One log a process; the balancer's is the access log."""
        return self.folder / "logs"

    @property
    def access_log(self) -> Path:
        """The balancer's access log."""
        return self.logs / "access.log"

    @property
    def secrets(self) -> Path:
        """Tokens, keys, and the database's address."""
        return self.folder / "secrets"

    @property
    def certificate(self) -> Path:
        """The certificate that clients have to trust."""
        return self.folder / "ca.pem"

    @property
    def database(self) -> Path:
        """Of the PostgreSQL server."""
        return self.scratch / "pg"

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.http}"

    @property
    def secure_url(self) -> str:
        """Where clients go that speak https only."""
        return f"https://127.0.0.1:{self.https}"

    def node_file(self, name: str) -> Path:
        """The configuration file of an API node."""
        return self.folder / f"{name}.yml"

    def next_node(self) -> Node:
        """Make room for one more node."""
        number = next(n for n in itertools.count(1) if f"api{n}" not in self.nodes)
        return self.nodes.setdefault(f"api{number}", Node(f"api{number}", self.ports.take(NODE_PORT + number - 1)))


def plan(folder: Path, nodes: int, *, echo: bool) -> Layout:
    """Choose folders and free ports, the well-known ones where they are free."""
    ports = Ports()
    http, https, admin, dns = (ports.take(wished) for wished in (HTTP_PORT, HTTPS_PORT, ADMIN_PORT, DNS_PORT))
    scratch = Path(tempfile.mkdtemp(prefix="arv-demo-"))
    scratch.chmod(0o711)  # root runs the database as another user, who has to come through
    found = Layout(folder, scratch, echo, http, https, admin, dns, {}, ports)
    for _ in range(nodes):
        found.next_node()
    return found


def claim(folder: Path) -> None:
    """Make the folder, in the place of an earlier demo's. Raises BalanceError while one runs in it."""
    pid_file = folder / "pid"
    if pid_file.exists():
        pid = pid_file.read_text().strip()
        if pid.isdecimal() and is_running(int(pid)):
            raise BalanceError(f"a demo already runs here (pid {pid}): stop it first, or use --folder")
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise BalanceError(f"{folder} is not empty and no demo's; a demo removes its folder at the end: use --folder")
    for path in (folder, folder / "logs", folder / "secrets"):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    pid_file.write_text(f"{os.getpid()}\n")


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
