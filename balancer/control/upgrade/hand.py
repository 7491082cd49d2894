"""Runs one command of an upgrade to its end, whatever becomes of the program that asked for it.

    python -P -m balancer.control.upgrade.hand BASE LOCK

BASE.order.json says what to run, BASE.log gets its output, BASE.result.json how it ended. The open descriptor LOCK
holds BASE.lock while this process lives, so that others can tell "still running" from "nobody knows how it ended".
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from balancer.control.upgrade.hands import write
from balancer.errors import BalanceError, StateError

TERM_S = 5.0  # between SIGTERM and SIGKILL
CONNECT_S = 10.0
# All balancers ask for the same lock of a database; it is not the one that migration tools take themselves.
ADVISORY_KEY = int.from_bytes(hashlib.sha256(b"arv-balance upgrade migrate").digest()[:8], "big", signed=True)

Document = dict[str, Any]


async def carried_out(order: Document, log_path: Path, lock_fd: int) -> Document:
    """Run an order and return how it ended: `exit` (None: it never ran), `why` when it failed."""
    try:
        async with advisory_lock(order["database"], float(order["timeout_s"])):
            return await _run(order, log_path, lock_fd)
    except (BalanceError, OSError, TimeoutError) as exc:
        return {"exit": None, "why": str(exc) or "not in time"}


@contextlib.asynccontextmanager
async def advisory_lock(database: Document | None, timeout_s: float) -> AsyncIterator[None]:
    """Hold the database's advisory lock; nothing without a database. Raises StateError."""
    if database is None:
        yield
        return
    import asyncpg

    from balancer.config.secrets import reveal
    from balancer.config.section import Secret

    broken = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    try:
        connection = await asyncpg.connect(reveal(Secret(**database)), timeout=CONNECT_S)
    except (*broken, ValueError, OverflowError) as exc:
        raise StateError(f"no advisory lock, so nothing was run: {type(exc).__name__}") from exc  # its text has the DSN
    try:
        try:
            await connection.execute(f"SELECT pg_advisory_lock({ADVISORY_KEY})", timeout=timeout_s)
        except TimeoutError as exc:
            raise StateError("somebody else holds the advisory lock of the database, so nothing was run") from exc
        except broken as exc:
            raise StateError(f"no advisory lock, so nothing was run: {type(exc).__name__}") from exc
        yield
    finally:
        connection.terminate()  # the lock goes with the session


async def _run(order: Document, log_path: Path, lock_fd: int) -> Document:
    keep = (lock_fd,) if order["holds_lock"] else ()
    with log_path.open("ab") as log:
        try:
            process = await asyncio.create_subprocess_exec(
                *order["arguments"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=keep,
            )
        except OSError as exc:
            return {"exit": None, "why": f"{order['arguments'][0]}: {exc.strerror or exc}"}
    try:
        async with asyncio.timeout(float(order["timeout_s"])):
            code = await process.wait()
    except TimeoutError:
        await _end(process)
        return {"exit": process.returncode, "why": f"not done within {order['timeout_s']:g} s: it was ended"}
    return {"exit": code, "why": "" if code == 0 else _reason(code)}


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERM_S):
                await process.wait()
                return


def _reason(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def main() -> None:
    """Carry one order out, once."""
    base, lock_fd = sys.argv[1], int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    result = Path(f"{base}.result.json")
    if not result.exists():
        order = json.loads(Path(f"{base}.order.json").read_bytes())
        write(result, asyncio.run(carried_out(order, Path(f"{base}.log"), lock_fd)))


if __name__ == "__main__":
    main()
