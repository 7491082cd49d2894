"""The designation in a database whose primary dies: a promoted standby goes on, and no epoch is given twice."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from apiserver.launcher import LocalServer, find_binaries
from balancer.control.designation_row import PostgresStore
from balancer.errors import StateError
from tests.control.harness import until
from tests.control.test_designations import CLUSTER, OneBalancer
from tests.support.postgres import FAST
from tests.support.programs import lacking

pytestmark = [pytest.mark.pg, pytest.mark.slow, pytest.mark.timeout(120)]


class Pair:
    """A primary and its streaming standby. `confirmed`: each commit waits until the standby shows it."""

    def __init__(self, folder: Path, *, confirmed: bool) -> None:
        folder.chmod(0o755)  # the server's user has to get in
        binaries = find_binaries()
        if not (binaries.folder / "pg_basebackup").exists():
            lacking("pg_basebackup is missing: make system-packages installs a PostgreSQL that has it")
        options = [option for option in FAST if not option.startswith("synchronous_commit")]
        waiting = ["synchronous_commit=remote_apply", "synchronous_standby_names=*"] if confirmed else []
        self.primary = LocalServer(folder / "primary", binaries, options + waiting)
        self.standby = LocalServer(folder / "standby", binaries, options)
        self.primary.start()
        self.standby._prepare()
        self.standby._bring_programs()
        source = ["-h", str(self.primary.socket_folder), "-U", "postgres"]
        copied = self.standby._run(
            "pg_basebackup", *source, "-D", str(self.standby.data), "--write-recovery-conf", "--checkpoint=fast"
        )
        assert copied.returncode == 0, copied.stdout
        self.standby.start()

    @property
    def dsn(self) -> str:
        """Whichever of the two takes writes."""
        hosts = f"{self.primary.socket_folder},{self.standby.socket_folder}"
        return f"postgresql:///postgres?host={hosts}&user=postgres&target_session_attrs=read-write"

    async def lag(self) -> int | None:
        """How far the standby is behind, in bytes."""
        connection = await asyncpg.connect(self.primary.dsn())
        found = await connection.fetchval(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint FROM pg_stat_replication"
        )
        await connection.close()
        return None if found is None else int(found)

    async def cut(self) -> None:
        """The standby has all, and hears no more from now on."""

        async def has_all() -> bool:
            return await self.lag() == 0

        async def hears_nothing() -> bool:
            return await self.lag() is None

        await until(has_all)
        await asyncio.to_thread(self._forget_primary)
        await until(hears_nothing)

    def _forget_primary(self) -> None:
        with (self.standby.data / "postgresql.auto.conf").open("a") as file:
            file.write("primary_conninfo = ''\n")
        assert self.standby._pg_ctl("reload").returncode == 0

    async def lose_primary(self) -> None:
        await asyncio.to_thread(self.primary.stop, immediate=True)

    async def promote(self) -> None:
        promoted = await asyncio.to_thread(self.standby._pg_ctl, "promote", "-w")
        assert promoted.returncode == 0, promoted.stdout


@asynccontextmanager
async def running(*, confirmed: bool) -> AsyncIterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="arv-test-pair-"))  # not below pytest's, which is closed to others
    pair = await asyncio.to_thread(Pair, folder, confirmed=confirmed)
    try:
        yield pair
    finally:
        for server in (pair.standby, pair.primary):
            await asyncio.to_thread(server.stop, immediate=True)
        await asyncio.to_thread(shutil.rmtree, folder)


async def test_a_promoted_standby_goes_on_with_the_designation() -> None:
    async with running(confirmed=True) as pair:
        one, two = OneBalancer(PostgresStore(CLUSTER, pair.dsn)), OneBalancer(PostgresStore(CLUSTER, pair.dsn))
        await one.look()
        await two.look()
        await one.look("api1")
        assert (one.believed[-1].node, one.believed[-1].epoch) == ("api2", 2)
        await pair.lose_primary()
        with pytest.raises(StateError):
            await one.store.read("dns")
        await one.look("api2")  # it cannot be written down, so it is not done
        assert one.believed[-1].epoch == 2
        await pair.promote()
        read = await two.store.read("dns")
        assert read is not None
        assert (read.node, read.epoch) == ("api2", 2)
        assert not await two.store.swap("dns", 1, replace(read, node="api3"))  # older than what stands
        await one.look("api2")
        await two.look("api2")
        assert one.believed[-1] == two.believed[-1]
        assert (two.believed[-1].node, two.believed[-1].epoch) == ("api1", 3)
        await one.store.close()
        await two.store.close()


async def test_an_epoch_that_the_standby_never_heard_of_is_not_given_again() -> None:
    async with running(confirmed=False) as pair:
        one, other = OneBalancer(PostgresStore(CLUSTER, pair.dsn)), PostgresStore(CLUSTER, pair.dsn)
        await one.look()
        await pair.cut()
        await one.look("api1")
        assert (one.believed[-1].node, one.believed[-1].epoch) == ("api2", 2)
        await pair.lose_primary()
        await pair.promote()
        lost = await other.read("dns")
        assert lost is not None
        assert lost.epoch == 1  # the negative control: epoch 2 is not there, and would be given again
        await one.look("api1")
        restored = await other.read("dns")
        assert restored is not None
        assert (restored.node, restored.epoch) == ("api2", 2)
        await one.look("api1", "api2")
        assert (one.believed[-1].node, one.believed[-1].epoch) == ("api3", 3)
        await one.store.close()
        await other.close()
