"""Commands outlive who asked for them, run once, and what nobody knows about them is told as that."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from balancer.control.upgrade.hand import ADVISORY_KEY
from balancer.control.upgrade.hands import Found, Hands, How
from balancer.control.upgrade.machine import Do
from balancer.control.upgrade.plan import Order
from balancer.control.upgrade.traffic import Terms
from tests.support.postgres import database, postgres_server
from tests.support.waiting import until

__all__ = ["database", "postgres_server"]  # fixtures


@pytest.fixture
def hands(tmp_path: Path) -> Hands:
    made = Hands(tmp_path / "run")
    made.keep({}, Terms())
    return made


def shell(text: str, timeout_s: float = 20.0) -> Order:
    return Order(("/bin/sh", "-c", text), timeout_s)


def ended(hands: Hands, token: str) -> Found:
    until(lambda: hands.look(token, hands.where).how is not How.RUNNING, 20)
    return hands.look(token, hands.where)


def log_of(hands: Hands, token: str) -> str:
    path = hands.folder / f"{token}.log"
    return path.read_text() if path.exists() else ""


def pid_of(hands: Hands, token: str) -> int:
    """The process that runs a command, by the lock file that it holds open."""
    lock = str(hands.folder / f"{token}.lock")
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(str(fd.readlink()) == lock for fd in (entry / "fd").iterdir()) and b"-P" in words:
                    return int(entry.name)
            except OSError:
                continue
    return 0


def test_a_command_ends_with_its_code_and_its_output_is_kept(hands: Hands) -> None:
    hands.start("a", shell("echo out; echo err >&2; exit 3"), is_migration=False)
    assert ended(hands, "a") == Found(How.ENDED, 3, "exit code 3", "out\nerr\n")
    assert hands.look("b", hands.where).how is How.NEVER


def test_a_command_goes_on_when_who_asked_for_it_is_killed(hands: Hands, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from balancer.control.upgrade.hands import Hands;"
        "from balancer.control.upgrade.plan import Order;"
        "Hands(Path(sys.argv[1])).start('a', Order(('/bin/sh', '-c', sys.argv[2]), 20.0), is_migration=True);"
        "print('started', flush=True); import time; time.sleep(60)"
    )
    text = f"sleep 1; echo once >> {tmp_path}/effects"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(hands.folder), text], stdout=subprocess.PIPE, text=True
    ) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == "started\n"
        asker.kill()
    assert hands.look("a", hands.where).how is How.RUNNING
    hands.start("a", shell(text), is_migration=True)  # as a second one would that does not look
    assert ended(hands, "a").exit == 0
    hands.start("a", shell(text), is_migration=True)
    assert ended(hands, "a").exit == 0
    assert (tmp_path / "effects").read_text() == "once\n"


def test_a_migration_counts_as_running_while_any_part_of_it_lives_and_is_lost_then(
    hands: Hands, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    os.mkfifo(go_on)
    hands.start("a", shell(f"echo begun; read line < {go_on}"), is_migration=True)
    until(lambda: hands.look("a", hands.where).how is How.RUNNING and "begun" in log_of(hands, "a"), 10)
    os.kill(until(lambda: pid_of(hands, "a"), 10) or 0, signal.SIGKILL)
    time.sleep(0.2)  # whatever the kernel has to do about the dead one is done
    assert hands.look("a", hands.where).how is How.RUNNING
    go_on.write_text("\n")
    assert ended(hands, "a").how is How.LOST


def test_a_command_that_takes_too_long_is_ended_with_all_its_children(hands: Hands, tmp_path: Path) -> None:
    hands.start("a", shell(f"(sleep 3; echo late > {tmp_path}/late) & wait", timeout_s=0.3), is_migration=False)
    found = ended(hands, "a")
    assert (found.how, found.why) == (How.ENDED, "not done within 0.3 s: it was ended")
    assert not (tmp_path / "late").exists()


def test_a_program_that_there_is_not_is_told(hands: Hands) -> None:
    hands.start("a", Order(("/does/not/exist",), 5.0), is_migration=False)
    assert ended(hands, "a") == Found(How.ENDED, None, "/does/not/exist: No such file or directory", "")


def test_on_another_machine_nobody_knows(hands: Hands) -> None:
    hands.start("a", shell("true"), is_migration=False)
    assert ended(hands, "a").exit == 0
    assert hands.look("a", "elsewhere:/x").how is How.LOST


def test_what_is_executed_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    hands = Hands(tmp_path / "state" / "run")
    orders = {(Do.STOP, "api1"): shell("x"), (Do.MIGRATE, "api1"): Order(("m",), 5.0, {"file": "/dsn"})}
    hands.keep(orders, Terms(expect={"revision": "2"}))
    assert hands.kept() == (orders, Terms(expect={"revision": "2"}))
    assert hands.folder.stat().st_mode & 0o777 == 0o700
    assert (hands.folder / "orders.json").stat().st_mode & 0o777 == 0o600
    assert Hands(tmp_path / "other").kept() is None


@pytest.mark.pg
async def test_a_migration_waits_for_the_advisory_lock_and_holds_it(
    hands: Hands, database: str, tmp_path: Path
) -> None:
    dsn = database
    secret = tmp_path / "dsn"
    secret.write_text(dsn)
    secret.chmod(0o600)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({ADVISORY_KEY})")
        where = {"file": str(secret)}
        await asyncio.to_thread(hands.start, "a", Order(("/bin/echo", "ran"), 1.0, where), is_migration=True)
        found = await asyncio.to_thread(ended, hands, "a")
        assert (found.exit, found.output) == (None, "")
        assert "somebody else holds the advisory lock" in found.why
        await connection.execute(f"SELECT pg_advisory_unlock({ADVISORY_KEY})")
        seen = tmp_path / "seen"
        waits = ("/bin/sh", "-c", 'until [ -e "$0" ]; do sleep 0.05; done', str(seen))
        await asyncio.to_thread(hands.start, "b", Order(waits, 30.0, where), is_migration=True)

        async def is_held() -> bool:
            locks = (
                "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database WHERE datname = current_database()"
            )
            return bool(await connection.fetchval(f"{locks} AND locktype = 'advisory' AND granted"))

        deadline = time.monotonic() + 30
        while not await is_held():
            assert time.monotonic() < deadline
        seen.touch()
        assert (await asyncio.to_thread(ended, hands, "b")).exit == 0
        while await is_held():  # the server ends the session a moment after its client is gone
            assert time.monotonic() < deadline
    finally:
        await connection.close()


def test_the_dsn_reaches_no_file_and_no_message(hands: Hands, tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://u:s3cr3t@127.0.0.1:1/none")
    secret.chmod(0o600)
    hands.start("a", Order(("/bin/echo", "ran"), 5.0, {"file": str(secret)}), is_migration=True)
    found = ended(hands, "a")
    assert "no advisory lock, so nothing was run" in found.why
    kept = "".join(path.read_text() for path in hands.folder.iterdir() if path.suffix != ".lock")
    assert "s3cr3t" not in kept + json.dumps(found.why)
