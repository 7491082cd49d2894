"""Sites that are upgraded: three nodes that commands stop and start, their operator, and what may die meanwhile."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from apiserver.discovery import REVISION
from tests.support import apictl
from tests.support.api import MANAGEMENT, start_config
from tests.support.api import ROOT as ROOT_TOKEN
from tests.support.nodectl import ROOT
from tests.support.site import LoadResult, Site
from tests.support.waiting import until

NAMES = ("api1", "api2", "api3")


class UpgradeSite(Site):
    """Three example nodes of version 1 that commands stop and start, and their operator."""

    control = ROOT / "tests/support/nodectl.py"

    def __init__(self, **config: Any) -> None:
        super().__init__(
            versions={"path": "/discovery/v1/apis/arvados/v1/rest"}, drain={"timeout": "10s", "tunnel_grace": "0s"},
            park={"release": "2000/s", "max_per_client": 0}, **config,
        )  # fmt: skip
        self.operator = self.folder / "operator"
        self.version = 1

    def start(self) -> None:
        self.install()
        self.write()
        for name in self.nodes:
            subprocess.run([sys.executable, "-P", str(self.control), str(self.folder), "start", name], check=True)
        self.serve()
        self.until_healthy(len(self.nodes))

    def install(self) -> None:
        """Put what the commands read into the folder."""
        (self.folder / "ports.json").write_text(json.dumps({name: node.port for name, node in self.nodes.items()}))
        for name in self.nodes:
            (self.folder / f"{name}.version").write_text("1")

    def renew(self) -> None:
        """Begin another test: the next version is out, nothing was done yet."""
        self.version += 1
        (self.folder / "next").write_text(str(self.version))
        (self.folder / "actions").unlink(missing_ok=True)

    def close(self) -> None:
        for name in NAMES:  # before the folder goes, which holds their pids
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGKILL)
        super().close()

    def plan(self, mode: str, **more: Any) -> Path:
        def command(action: str) -> str:
            return f"{sys.executable} -P {self.control} {self.folder} {action} {{node}}"

        actions = {action: command(action) for action in ("stop", "upgrade", "migrate", "start")}
        path = self.folder / f"{mode}.yml"
        path.write_text(yaml.safe_dump({"mode": mode, "expect": self.expect(), **actions, **more}))
        return path

    def expect(self) -> dict[str, str]:
        """What a node of the next release says of itself."""
        return {"revision": str(self.version)}

    def actions(self) -> list[str]:
        path = self.folder / "actions"
        return path.read_text().splitlines() if path.exists() else []

    def command(self, *words: str, path: Path | None = None) -> "subprocess.Popen[str]":
        """Start a command of the operator. `path`: a folder of programs that stand before all others."""
        return self.script(sys.executable, "-P", "-m", "balancer", "upgrade", *words, path=path)

    def script(self, *command: str | Path, path: Path | None = None) -> "subprocess.Popen[str]":
        """Start a program of the operator, who has `arv-balance` and its socket at hand."""
        programs = [str(path)] if path else []
        environment = {
            **os.environ,
            "ARV_BALANCE_ADMIN": f"unix:{self.folder}/admin.sock",
            "XDG_STATE_HOME": str(self.operator),
            "PATH": ":".join([*programs, str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        return subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def upgrade(self, *words: str, code: int = 0, path: Path | None = None) -> str:
        """Run a command to its end; returns what it printed."""
        with self.command(*words, path=path) as process:
            output, talk = process.communicate(timeout=90)
        assert process.returncode == code, (process.returncode, output, talk)
        return output + talk

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = self.admin("GET", "/v1/upgrade")
        return found

    def version_word(self) -> str:
        """The version as nodes of the next release tell it."""
        return f"version=v1 revision={self.version}"

    def assert_migrated(self) -> None:
        assert self.actions().count("migration-applied") == 1

    def assert_upgraded(self) -> None:
        """All nodes run the next version and serve; the migration was applied once, in stop-all with all down."""
        until(lambda: list(self.states().values()) == ["healthy"] * 3, 20, "all serve")
        nodes = self.admin("GET", "/v1/nodes")["nodes"]
        assert {node["version"] for node in nodes} == {self.version_word()}
        self.assert_migrated()
        document = self.document()
        assert (document["open"], document["phase"]) == (False, "finished")
        if document["mode"] == "stop-all":
            assert "migration-began up=" in self.actions()
        assert not self.admin("GET", "/v1/pause")["paused"]
        assert not [item for item in self.admin("GET", "/v1/status")["intents"] if item["kind"] == "drain"]


def victims(site: UpgradeSite, process: "subprocess.Popen[str]") -> dict[str, Callable[[], Any]]:
    def parent() -> None:
        site.kill_parent()
        site.serve()

    return {
        "command": process.kill,
        "parent": parent,
        "control": lambda: site.kill(site.control_pid()),
        "worker": lambda: site.kill(site.worker_pids()[0]),
    }


def done(site: UpgradeSite, before: str) -> int:
    """How many steps of the present upgrade are done, -1 while that is still the one before."""
    document = site.document()
    return -1 if document["id"] == before else sum(step["state"] == "done" for step in document["steps"])


def interrupted(site: UpgradeSite, mode: str, who: str, seed: int, kinds: tuple[str, ...]) -> LoadResult:
    """Upgrade under load, kill `who` at a random step, and resume until it is over; returns what clients saw."""
    chance, before = random.Random(seed), site.document()["id"]
    at = chance.randrange(20)
    with site.load("--kinds", *kinds) as load, site.command("run", str(site.plan(mode)), "--yes") as process:
        until(lambda: done(site, before) >= at, 60, f"{at} steps are done")
        time.sleep(chance.random() * 0.3)
        victims(site, process)[who]()
        output = process.communicate(timeout=90)
        for _ in range(3):
            if site.document()["open"]:
                with site.command("resume", "--force") as again:
                    again.communicate(timeout=90)
        result = load.stop()
    assert not site.document()["open"], (site.document(), output)
    return result


class ApiUpgradeSite(UpgradeSite):
    """Three real API nodes on one database, in release 1. The load knows the token by its environment."""

    control = ROOT / "tests/support/apictl.py"

    def __init__(self, database_url: str) -> None:
        super().__init__(health={"token": {"env": "API_HEALTH_TOKEN"}})
        self.database_url = database_url
        self.environment = {"API_HEALTH_TOKEN": MANAGEMENT, "LOAD_TOKEN": ROOT_TOKEN}

    def install(self) -> None:
        (self.folder / "names.json").write_text(json.dumps(list(self.nodes)))
        apictl.make_release(self.folder, 1, contract=False)
        config = start_config(self.database_url)
        for name, node in self.nodes.items():
            (self.folder / f"{name}.yml").write_text(json.dumps({**config, "listen": [f"127.0.0.1:{node.port}"]}))
            (self.folder / f"{name}.release").write_text("1")

    def next_release(self, *, contract: bool) -> None:
        """Begin another test: the next release is out. `contract`: its migration shuts programs before it out."""
        self.version += 1
        apictl.make_release(self.folder, self.version, contract=contract)
        (self.folder / "next").write_text(str(self.version))
        (self.folder / "actions").unlink(missing_ok=True)

    def expect(self) -> dict[str, str]:
        return {"packageVersion": f"0.1.{self.version}"}

    def version_word(self) -> str:
        word = f"0.1.{self.version}"
        return f"packageVersion={word} source_version={word} sourceVersion={word} version=v1 revision={REVISION}"

    def assert_migrated(self) -> None:
        """The step was applied once, whoever was killed meanwhile, and its output is kept."""
        found = self.sql("SELECT count(*) FROM schema_version WHERE name = $1", f"release_{self.version}")
        assert found == [(1,)]

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database itself."""

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return [tuple(row) for row in await connection.fetch(statement, *values)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def assert_writes(self, result: LoadResult) -> None:
        """Every acknowledged write is there, and none is there twice."""
        rows = self.sql("SELECT name, count(*) FROM collections WHERE name LIKE 'load-%' GROUP BY 1")
        found = dict(rows)
        assert set(result.keys) <= set(found)
        assert max(found.values()) == 1
