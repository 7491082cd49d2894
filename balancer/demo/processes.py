"""Starting and ending the processes of a demo, and the keeper that sees to their end when the demo cannot."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from balancer.demo.layout import Layout

PYTHON = [sys.executable, "-P"]
STOP_GRACE_S = 15.0


def python(module: str, *words: str) -> list[str]:
    """Return the command that runs a module of ours."""
    return [*PYTHON, "-m", module, *words]


class Processes:
    """Starts processes in groups of their own, so that Ctrl-C reaches the demo alone; the keeper knows them all."""

    def __init__(self, layout: Layout, keeper: Process) -> None:
        self._layout, self._keeper = layout, keeper

    async def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, *, stdout: int | None = None
    ) -> Process:
        """Start a process; what it prints goes to the log of that name. `stdout`: PIPE for one that is read."""
        log = await asyncio.to_thread(_append_to, self._layout.logs / f"{name}.log")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        finally:
            os.close(log)
        assert self._keeper.stdin is not None  # noqa: S101 - it was opened with a pipe
        self._keeper.stdin.write(b"%d\n" % process.pid)
        return process


@asynccontextmanager
async def kept(layout: Layout) -> AsyncIterator[Processes]:
    """Run a keeper: at the end it removes what is left, and it does so too when this process is killed."""
    command = python("balancer.demo.keeper", str(layout.folder), str(layout.scratch))
    keeper = await asyncio.create_subprocess_exec(*command, stdin=PIPE, start_new_session=True)
    try:
        yield Processes(layout, keeper)
    finally:
        if keeper.stdin is not None:
            keeper.stdin.close()
        await keeper.wait()


async def stop(process: Process) -> None:
    """End a process: politely, then with all its group."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        await kill(process)


async def kill(process: Process) -> None:
    """End a process group at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def tail(path: Path, lines: int = 15) -> str:
    """Return the end of a log, for a message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as exc:
        return f"(no log: {exc})"


def _append_to(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
