"""A real PostgreSQL for tests: one private server a test process, one database a test.

A test module imports the fixtures it uses: `postgres_server` (session) and `database` (an empty database), and
marks itself `pytest.mark.pg`. The server is removed when the test process ends, also when it is killed: a watcher
reads a pipe whose other end only the test process holds.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from apiserver.launcher import LocalServer, find_binaries

# Durability is switched off here and nowhere else: a crash of the machine may cost a test run.
FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=150",
    "jit=off",
    "autovacuum_naptime=10s",
    "log_lock_waits=on",
    "deadlock_timeout=300ms",
)

_WATCHER = """
import shutil, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
pid_file, folder = sys.argv[1:]
try:
    import os
    os.kill(int(open(pid_file).readline()), signal.SIGQUIT)
except (OSError, ValueError):
    pass
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass
class TestServer:
    """A running server; `dsn(name)` is the address of a database of it."""

    __test__ = False
    local: LocalServer
    _numbers: Iterator[int] = field(default_factory=count)

    def dsn(self, database: str = "postgres") -> str:
        return self.local.dsn(database)

    def _processes(self) -> list[int]:
        main = int((self.local.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *map(int, children)]

    def freeze(self) -> None:
        """Stop all its processes, as a machine that hangs: connections stay open, nothing is answered."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def create(self, template: str = "template1") -> str:
        """Make a database of its own out of a template; return its name."""
        name = f"test_{next(self._numbers)}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    async def drop(self, name: str) -> None:
        """Drop a database with all its sessions."""
        await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def new_database(self, template: str = "template1") -> AsyncIterator[str]:
        """Make a database, yield its address, drop it."""
        name = await self.create(template)
        try:
            yield self.dsn(name)
        finally:
            await self.drop(name)

    async def make_template(self, name: str) -> str:
        """Make an empty database that will serve as a template; return its address."""
        await self._execute(f'CREATE DATABASE "{name}"')
        return self.dsn(name)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[TestServer]:
    # Not below pytest's own folder: that one is closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="arv-test-pg-"))
    local = LocalServer(folder / "server", find_binaries(), FAST)
    folder.chmod(0o755)
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCHER, str(local.data / "postmaster.pid"), str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        local.start()
        yield TestServer(local)
    finally:
        local.stop(immediate=True)
        watcher.communicate(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database(postgres_server: TestServer) -> AsyncIterator[str]:
    """The address of an empty database."""
    async with postgres_server.new_database() as dsn:
        yield dsn


async def until(condition: object, deadline_s: float = 30.0) -> None:
    """Wait until a callable returns something true; fail when it does not within the deadline."""
    assert callable(condition)
    async with asyncio.timeout(deadline_s):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.02)
