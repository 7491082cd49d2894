"""The classic strategy: a file a host, checked before it is loaded, taken back when it is bad."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dnsupdate import commands
from dnsupdate.enqueue import enqueue, remove, states
from dnsupdate.errors import BadNameError, CommandFailedError, RenderError
from dnsupdate.files import Files, FilesConfig, FileTemplate
from dnsupdate.folder import Folder
from dnsupdate.loader import load
from dnsupdate.names import Rules
from dnsupdate.records import Renderer
from dnsupdate.sender import Sender, SenderConfig
from dnsupdate.service import Designation, checked_template
from dnsupdate.store import Store
from tests.dnsupdate.builders import SECTION, host
from tests.dnsupdate.site import Waker

pytestmark = pytest.mark.pg
CLASSIC = (
    '  local-data: "%{hostname} IN A %{ip_address}"\n'
    '  local-data: "%{hostname}.%{uuid_prefix} IN A %{ip_address}"\n'
    '  local-data-ptr: "%{ip_address} %{hostname}.%{uuid_prefix}"\n'
)
LOG = "import sys,pathlib; p=pathlib.Path(sys.argv[1]); p.open('a').write(' '.join(sys.argv[2:])+chr(10))"
# Fails when any file has the word in it, as a name server's check does for a bad line.
CHECK = "import sys,pathlib; sys.exit(any('192.0.2.66' in f.read_text() for f in pathlib.Path(sys.argv[1]).glob('*f')))"


@dataclass
class Classic:
    folder: Path
    calls: Path
    db: "asyncpg.Connection[asyncpg.Record]"
    sender: Sender
    designation: Designation
    store: Store
    other: Any

    async def ping(self, *hosts: Any) -> None:
        async with self.db.transaction():
            await enqueue(self.db, *hosts)

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await self.sender.cycle()

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.folder.iterdir())}

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    async def state(self, name: str) -> str:
        return (await states(self.db, [f"xarv1-7ekkf-{name}"]))[f"xarv1-7ekkf-{name}"].targets[0].text()


@asynccontextmanager
async def classic(
    dsn: str, tmp_path: Path, names: dict[str, bool] | None = None, **more: Any
) -> AsyncIterator[Classic]:
    folder, calls = tmp_path / "unbound.conf.d", tmp_path / "calls"
    folder.mkdir()
    (tmp_path / "unbound.template").write_text(CLASSIC)
    target = {
        "kind": "files", "dir": str(folder), "template": str(tmp_path / "unbound.template"), "debounce": "1ms",
        "check": [sys.executable, "-c", CHECK, str(folder)], "retry": {"first": "10ms", "most": "20ms"},
        "reload": "/etc/init.d/unbound reload",
        "reload_command": [sys.executable, "-c", LOG, str(calls), "reload"], **more,
    }  # fmt: skip
    section = {**SECTION, "zones": [], "templates": {}, "targets": {"local": target}}
    settings = load({**section, "names": names or {}})
    async with Store.open(dsn) as store:
        db = await asyncpg.connect(dsn)
        await store.register("local", "files")

        def make(designation: Designation, where: Path = folder) -> Sender:
            loop = asyncio.get_running_loop()
            found = FileTemplate(CLASSIC, is_classic=True)
            work = Files(
                config=FilesConfig("local", settings.targets["local"], found, "xarv1"),
                renderer=Renderer(settings),
                store=store,
                folder=Folder(where, rules=settings.rules),
                clock=loop.time,
            )
            holder = f"node-{id(work)}"
            config = SenderConfig(
                target="local", settings=settings.targets["local"], holder=holder, designation=designation.epoch
            )
            return Sender(config, store=store, work=work, waker=Waker(), random=lambda: 1.0)

        designation = Designation()
        designation.grant(1)
        sender = make(designation)
        try:
            yield Classic(folder, calls, db, sender, designation, store, make)
        finally:
            await sender._stop()
            await db.close()


async def test_a_name_with_an_underscore_has_a_file_where_the_site_allows_it(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path, names={"allow_underscore": True}) as one:
        rules = Rules(allow_underscore=True)
        async with one.db.transaction():
            await enqueue(one.db, host("compute_1", "192.0.2.1"), rules=rules)
        await one.steps(3)
        assert "compute_1.conf" in one.files()


async def test_a_burst_is_one_file_a_host_and_one_reload(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)))
        await one.steps(3)
        files = one.files()
        assert files.pop("restart.txt") == "/etc/init.d/unbound reload\n"
        assert files["compute7.conf"] == (
            '  local-data: "compute7 IN A 192.0.2.7"\n'
            '  local-data: "compute7.xarv1 IN A 192.0.2.7"\n'
            '  local-data-ptr: "192.0.2.7 compute7.xarv1"\n'
        )
        assert len(files) == 20
        assert one.called() == ["reload"]
        assert await one.state("compute7") == "published"
        await one.steps(3)
        assert one.called() == ["reload"]


async def test_a_file_that_the_check_refuses_is_taken_back_and_the_others_stay(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 5)))
        await one.steps(2)
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n + 62}") for n in range(1, 9)))
        await one.steps(2)
        files = one.files()
        assert '"compute4 IN A 192.0.2.4"' in files["compute4.conf"]
        assert '"compute5 IN A 192.0.2.67"' in files["compute5.conf"]
        assert '"compute1 IN A 192.0.2.63"' in files["compute1.conf"]
        assert "status 1" in await one.state("compute4")
        assert not list(one.folder.glob(".*"))


async def test_removed_and_renamed_hosts_lose_their_file_or_get_the_placeholder(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "192.0.2.2"))
        await one.steps(2)
        await one.ping(host("computex", "192.0.2.1", uuid="xarv1-7ekkf-compute1"))
        async with one.db.transaction():
            await remove(one.db, "xarv1-7ekkf-compute2")
        await one.steps(2)
        assert set(one.files()) == {"computex.conf", "restart.txt"}


async def test_an_unused_name_keeps_a_file_with_the_placeholder(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path, absent={"placeholder": "127.40.4.0"}, prefill="compute[1-3]") as one:
        await one.store.sweep(missing_after_s=None, prefill=["compute1", "compute2", "compute3"], domain="")
        await one.ping(host("compute1", "192.0.2.1"))
        await one.steps(3)
        assert '"compute1 IN A 192.0.2.1"' in one.files()["compute1.conf"]
        assert '"compute3 IN A 127.40.4.0"' in one.files()["compute3.conf"]
        await one.ping(host("computex", "192.0.2.1", uuid="xarv1-7ekkf-compute1"))
        await one.steps(3)
        assert '"compute1 IN A 127.40.4.0"' in one.files()["compute1.conf"]
        assert '"computex IN A 192.0.2.1"' in one.files()["computex.conf"]


async def test_a_file_that_somebody_changed_or_deleted_is_written_again(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path, reconcile="1ms") as one:
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "192.0.2.2"))
        await one.steps(2)
        before = one.files()
        (one.folder / "compute1.conf").write_text("nonsense")
        (one.folder / "compute2.conf").unlink()
        (one.folder / "foreign.conf").write_text("mine")
        await one.steps(3)
        assert one.files() == {**before, "foreign.conf": "mine"}


async def test_a_reload_that_fails_is_tried_again(dsn: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = "import sys,pathlib; sys.exit(not pathlib.Path(sys.argv[1]).exists())"
    async with classic(dsn, tmp_path, reload_command=[sys.executable, "-c", script, str(flag)]) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.steps(3)
        assert "restart.txt" not in one.files()
        assert "status 1" in str(one.sender.status.error)
        flag.touch()
        await one.steps(2)
        assert "restart.txt" in one.files()


async def test_the_update_command_gets_each_value_as_one_argument(dsn: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    update = f"{sys.executable} -c \"{LOG}\" {calls} update %{{hostname}} '%{{ip_address}} %%'"
    async with classic(dsn, tmp_path, update=update) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.steps(2)
        assert "update compute1 192.0.2.1 %" in one.called()


async def test_only_the_designated_node_writes_and_a_newer_designation_takes_over(dsn: str, tmp_path: Path) -> None:
    async with classic(dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.steps(2)
        elsewhere = tmp_path / "other-node"
        elsewhere.mkdir()
        nobody, newer = Designation(), Designation()
        undesignated = one.other(nobody, elsewhere)
        await undesignated.cycle()
        assert list(elsewhere.iterdir()) == []
        newer.grant(2)
        second = one.other(newer, elsewhere)
        for _ in range(4):
            await second.cycle()
        assert (elsewhere / "compute1.conf").exists()
        await one.ping(host("compute2", "192.0.2.2"))
        await one.steps(3)
        for _ in range(3):
            await second.cycle()
        assert not (one.folder / "compute2.conf").exists()
        assert (elsewhere / "compute2.conf").exists()
        await second._stop()
        await one.steps(3)
        assert not (one.folder / "compute2.conf").exists()


def test_no_host_name_becomes_a_path(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("../etc/passwd", "a/b", "", "a\x00b", "a b", ".."):
        with pytest.raises(BadNameError):
            folder.write({name: "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_leaves_nothing_half_done(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="No such file"):
        Folder(tmp_path / "gone").write({"compute1": "x"})


@pytest.mark.parametrize("value", ["$(id)", "; rm -rf /", "a b", "'", "%{hostname}"])
def test_a_value_is_never_more_than_one_argument(value: str) -> None:
    assert commands.filled(["echo", "x%{hostname}"], {"hostname": value}) == ["echo", "x" + value]


def test_a_value_never_becomes_an_option() -> None:
    with pytest.raises(RenderError):
        commands.filled(["echo", "%{hostname}"], {"hostname": "--help"})


async def test_a_command_that_hangs_is_killed_and_one_that_fails_says_why() -> None:
    with pytest.raises(CommandFailedError, match=r"not done after 0\.2 s"):
        await commands.run(["sleep", "30"], variables={}, timeout_s=0.2)
    script = [sys.executable, "-c", "import sys; print('no good'); sys.exit(3)"]
    with pytest.raises(CommandFailedError, match="status 3: no good"):
        await commands.run(script, variables={}, timeout_s=20)
    with pytest.raises(CommandFailedError, match="No such file"):
        await commands.run(["/nonexistent"], variables={}, timeout_s=1)


def test_a_template_file_is_checked_before_anything_starts(tmp_path: Path) -> None:
    settings = load({**SECTION, "templates": {}})
    bad = tmp_path / "a.template"
    bad.write_text("ok %{hostname}\n%{hostnme}\n")
    with pytest.raises(RenderError, match=r"a\.template: template line 2: '%\{hostnme\}' is not known"):
        checked_template(bad, settings)
    (tmp_path / "a.j2").write_text("{{ hostname }} {{ nonsense }}")
    with pytest.raises(RenderError, match="'nonsense' is undefined"):
        checked_template(tmp_path / "a.j2", settings)
