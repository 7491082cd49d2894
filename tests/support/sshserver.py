"""An OpenSSH server on loopback whose hosts are nodes: what the commands of a plan do there is given by a table."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.ports import free_port
from tests.support.programs import lacking, need
from tests.support.waiting import until

SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
AcceptEnv ARV_NODE
ForceCommand {python} -P {folder}/remote.py
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""

CLIENT = """
Host {host}
  HostName 127.0.0.1
  HostKeyAlias {host}
  Port {port}
  IdentityFile {folder}/user_key
  UserKnownHostsFile {folder}/known_hosts
  SetEnv ARV_NODE={node}
"""

REMOTE = """
import os, sys
table = {table!r}
arguments = table.get(os.environ.get("SSH_ORIGINAL_COMMAND"))
if arguments is None:
    sys.exit("this host does not know: " + os.environ.get("SSH_ORIGINAL_COMMAND", "no command"))
arguments = [word.replace("NODE", os.environ["ARV_NODE"]) for word in arguments]
os.execv(arguments[0], arguments)
"""


class SshServer:
    """Runs until `close`. `path` is what PATH has to begin with for `ssh` to know its hosts.

    `hosts`: node by host name; `table`: what is executed for a command line that arrives, NODE stands for the node.
    """

    def __init__(self, folder: Path, hosts: Mapping[str, str], table: Mapping[str, Sequence[str]]) -> None:
        if os.geteuid() != 0:
            lacking("plans log in as root by ssh, so only root can run this test")
        self.folder, self.port = folder, free_port()
        server, client = need("sshd"), need("ssh")
        self.path = folder / "bin"
        self.path.mkdir(parents=True)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, empty; its package makes it at boot
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        key = (folder / "host_key.pub").read_text()
        (folder / "known_hosts").write_text("".join(f"{host} {key}" for host in hosts))
        facts = {"port": self.port, "folder": folder, "python": sys.executable}
        (folder / "sshd_config").write_text(SERVER.format(**facts))
        (folder / "config").write_text(
            "".join(CLIENT.format(host=host, node=node, **facts) for host, node in hosts.items())
        )
        (folder / "remote.py").write_text(REMOTE.format(table=dict(table)))
        script = self.path / "ssh"
        script.write_text(f'#!/bin/sh\nexec {client} -F {shlex.quote(str(folder / "config"))} "$@"\n')
        script.chmod(0o755)
        with (folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen([server, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        until(self.is_up, 30, "sshd listens")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log()
        return "Server listening" in self.log()

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text()

    def close(self) -> None:
        """End it; sessions under way end by themselves."""
        self.process.terminate()
        self.process.wait(10)
