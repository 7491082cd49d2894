"""The unmodified official client through HAProxy as `render-haproxy` writes it, in front of three real API nodes."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancer.render import programs
from balancer.render.engine import ENGINES
from tests.support.api import MANAGEMENT, ROOT, api_template
from tests.support.apisite import ApiSite, env, started
from tests.support.client import Client
from tests.support.officialclient import SCRIPTS, client_python, run
from tests.support.ports import free_port
from tests.support.postgres import TestServer, postgres_server
from tests.support.programs import lacking
from tests.support.site import ROOT as REPOSITORY
from tests.support.waiting import until

__all__ = ["api_template", "client_python", "env", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(180)]
RESOURCES = ("groups", "collections", "logs", "nodes", "users", "container_requests", "containers")


class HaproxySite(ApiSite):
    """The same site with HAProxy in the balancer's place."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.extra["limits"] = {"connections": 1000}  # as many as any machine has descriptors for

    def serve(self) -> None:
        """Render what `serve` would read, and start HAProxy on it."""
        program = programs.find(ENGINES["haproxy"]) or lacking(programs.advice(ENGINES["haproxy"]))
        # The report says so: the key is read from the certificate's name with .key behind it.
        (self.folder / "cert.pem.key").symlink_to(self.folder / "key.pem")
        environment = {**os.environ, **self.environment}
        command = [sys.executable, "-P", "-m", "balancer", "render-haproxy", "-c", str(self.config_path), "--check"]
        target = self.folder / "haproxy.cfg"
        options = [f"--option=socket={self.folder}/haproxy.sock", f"--option=statistics-port={free_port()}"]
        done = subprocess.run(
            [*command, "-o", str(target), *options], cwd=REPOSITORY, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with (self.folder / "access.log").open("wb") as log:
            running = programs.command(ENGINES["haproxy"].run, program, target)
            self.process = subprocess.Popen(running, stdout=log, stderr=log, cwd=self.folder, env=environment)

    def until_healthy(self, count: int, within_s: float = 20.0) -> None:
        """Wait until so many nodes pass the rendered check, by what HAProxy's socket says."""
        until(lambda: self.checked().count("UP") >= count, within_s, f"{count} nodes are up: {self.checked()}")

    def checked(self) -> list[str]:
        """The state of each node in the backend of all."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as end:
            end.settimeout(2)
            end.connect(str(self.folder / "haproxy.sock"))
            end.sendall(b"show stat\n")
            with end.makefile() as lines:
                rows = [line.split(",") for line in lines]
            # Before its first check a server is "UP 1/3".
            return [row[17] for row in rows if row[0] == "api" and row[1] not in ("BACKEND", "FRONTEND")]
        return []


@pytest.fixture(scope="module")
def site(postgres_server: TestServer, api_template: str) -> Iterator[HaproxySite]:
    """Three nodes on one database behind HAProxy."""
    with started(HaproxySite, postgres_server, api_template) as made:
        yield made


async def test_every_resource_is_listed(client_python: Path, env: dict[str, str]) -> None:
    script = SCRIPTS / "resources.py"
    printed = await run(env, client_python, script, json.dumps(RESOURCES), "0")
    assert set(RESOURCES) <= set(json.loads(printed))


async def test_files_are_put_and_got(client_python: Path, env: dict[str, str], tmp_path: Path) -> None:
    tools = client_python.parent
    (tmp_path / "data.txt").write_text("hello\n")
    uuid = (await run(env, tools / "arv-put", "--no-progress", "--no-cache", tmp_path / "data.txt")).strip()
    assert await run(env, tools / "arv-get", f"{uuid}/data.txt") == "hello\n"


async def test_events_come_over_a_websocket(client_python: Path, env: dict[str, str]) -> None:
    printed = await run(env, client_python, SCRIPTS / "events.py", "wss")
    assert "Poll" not in printed


def test_a_request_id_comes_back_and_the_log_tells_nodes_and_no_tokens(site: HaproxySite) -> None:
    trust = ssl.create_default_context(cafile=str(site.ca))
    plain = socket.create_connection(("127.0.0.1", site.port), 5)
    with Client(trust.wrap_socket(plain, server_hostname="127.0.0.1")) as client:
        for number in range(6):
            mark = f"req-seen{number}"
            fields = (f"Authorization: Bearer {ROOT}", f"X-Request-Id: {mark}")
            found = client.get(f"/arvados/v1/users/current?api_token={ROOT}", *fields)
            assert (found.status, found.one("X-Request-Id")) == (200, mark)
            assert json.loads(found.body)["uuid"].startswith("zzzzz-tpzed-")
    log = site.folder / "access.log"
    until(lambda: "req-seen5" in log.read_text(), 5, "the log has the last request")
    said = log.read_text()
    lines = [json.loads(line) for line in said.splitlines() if "req-seen" in line]
    assert {line["arv.node"] for line in lines} == set(site.nodes)
    assert ROOT not in said
    assert MANAGEMENT not in said + (site.folder / "haproxy.cfg").read_text()
