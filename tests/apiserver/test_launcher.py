"""A local server starts once for all who ask, as root too, and refuses another version's data."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from apiserver.errors import LauncherError
from apiserver.launcher import SOCKET_PATH_BYTES, Binaries, LocalServer, find_binaries
from tests.support.postgres import FAST, until
from tests.support.programs import lacking

pytestmark = pytest.mark.pg

_START = """
import sys
from pathlib import Path
from apiserver.launcher import LocalServer, find_binaries
print(LocalServer(Path(sys.argv[1]), find_binaries(), tuple(sys.argv[2:])).start())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="arv-test-launcher-"))
    parent.chmod(0o755)
    yield parent / "server"
    LocalServer(parent / "server", find_binaries()).stop(immediate=True)
    shutil.rmtree(parent)


def _started_at(dsn: str) -> str:
    async def ask() -> str:
        connection = await asyncpg.connect(dsn)
        try:
            return str(await connection.fetchval("SELECT pg_postmaster_start_time()::text"))
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_root_starts_a_server_whose_programs_only_root_may_reach(folder: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        lacking("only root runs the server as another user")
    found, hidden = find_binaries(), tmp_path / "root"
    for tree in (found.top, Path(f"{found.top}.libs")):
        if tree.is_dir():
            shutil.copytree(tree, hidden / tree.name, symlinks=True)
    hidden.chmod(0o700)
    programs = hidden / found.folder.relative_to(found.top.parent)
    server = LocalServer(folder, find_binaries({"ARV_API_PG_BIN": str(programs)}), FAST)
    assert _started_at(server.start())
    server.stop(immediate=True)


def test_three_starters_at_once_end_on_one_server(folder: Path) -> None:
    starters = [
        subprocess.Popen([sys.executable, "-c", _START, str(folder), *FAST], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    printed = {starter.communicate(timeout=60)[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0, 0, 0]
    assert len(printed) == 1
    dsn = printed.pop()
    assert _started_at(dsn)
    if os.geteuid() == 0:
        assert (folder / "data").stat().st_uid != 0


def test_a_second_start_reaches_the_running_server(folder: Path) -> None:
    server = LocalServer(folder, find_binaries(), FAST)
    first = _started_at(server.start())
    assert _started_at(server.start()) == first


def test_data_of_another_major_version_is_refused_and_kept(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(LauncherError, match=r"made by PostgreSQL 9.*pg_upgrade"):
        LocalServer(folder, find_binaries()).start()
    assert (folder / "data" / "PG_VERSION").read_text() == "9\n"
    shutil.rmtree(folder)


def test_a_long_path_gets_a_short_socket_folder() -> None:
    server = LocalServer(Path("/tmp") / ("x" * 120), Binaries(Path("/nowhere"), 18))  # noqa: S108
    assert len(os.fsencode(server.socket_folder / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES


def test_a_link_that_another_user_left_for_us_is_not_followed(tmp_path: Path) -> None:
    theirs, long = tmp_path / "theirs", tmp_path / ("x" * 120)
    theirs.mkdir(mode=0o700)
    before = theirs.stat()
    server = LocalServer(long, find_binaries())
    server.socket_folder.symlink_to(theirs)
    try:
        with pytest.raises(LauncherError, match="not a folder of this user"):
            server.start()
    finally:
        server.socket_folder.unlink()
    assert (theirs.stat().st_uid, list(theirs.iterdir())) == (before.st_uid, [])


def test_the_lock_of_a_servers_folder_is_not_looked_for_behind_a_link(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    folder.mkdir(mode=0o700)
    (folder / "lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        LocalServer(folder, find_binaries(), FAST).start()
    assert precious.read_text() == "kept"


def test_binaries_named_in_the_environment_come_first(tmp_path: Path) -> None:
    real = find_binaries().folder
    for name in ("initdb", "pg_ctl", "postgres"):
        (tmp_path / name).symlink_to(real / name)
    assert find_binaries({"ARV_API_PG_BIN": str(tmp_path)}).folder == tmp_path


def test_the_test_server_goes_away_with_a_killed_test_process() -> None:
    code = (
        "import os, signal, sys; from tests.support import postgres as p\n"
        "server = p.postgres_server.__wrapped__() if hasattr(p.postgres_server, '__wrapped__') "
        "else p.postgres_server._get_wrapped_function()()\n"
        "print(next(server).local.folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    folder = Path(done.stdout.strip())
    assert folder.name == "server"
    asyncio.run(until(lambda: not folder.parent.exists()))
