"""The demo as a newcomer runs it: all scenes, what the README shows of them, and nothing left behind."""

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from balancer.demo.actions import Action, Document, served
from balancer.demo.layout import NODE_PORT, Ports
from balancer.demo.scenes import Scene, intents, played
from balancer.demo.stage import AccessLog, Printer, Stage, serving
from balancer.errors import BalanceError
from tests.support.officialclient import ROOT, client_python
from tests.support.waiting import until

__all__ = ["client_python"]
pytestmark = [pytest.mark.pg, pytest.mark.e2e, pytest.mark.timeout(300)]
SHOWN = re.compile(r"<!-- demo -->\n+```console\n(.*?)```", re.DOTALL)
COMMAND = [sys.executable, "-P", "-m", "balancer", "demo"]
SOME = b" req/s "


class Demo:
    """A demo that runs in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.output = folder, folder.with_suffix(".out")
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "--folder", str(folder), *options], stdout=out, stderr=out, cwd=ROOT, start_new_session=True
            )

    def until_up(self) -> None:
        """Wait for the first line of counts."""
        until(lambda: SOME in self.output.read_bytes() or self.process.poll() is not None, 90, "the demo is up")
        assert self.process.poll() is None, self.output.read_text()

    def play(self, scene: str) -> "subprocess.CompletedProcess[str]":
        """Play a scene from another terminal."""
        return subprocess.run(
            [*COMMAND, scene, "--folder", str(self.folder)], capture_output=True, text=True, timeout=120, check=False
        )

    @property
    def scratch(self) -> Path:
        return Path((self.folder / "remote").read_text()).parent

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def processes_of(*folders: Path) -> dict[int, str]:
    """Command line and environment of all processes that know one of the folders, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if any(str(folder).encode() in words for folder in folders):
                found[int(entry.name)] = words.decode(errors="replace")
    return found


Begin = Callable[..., Demo]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start demos that end with the test."""
    made: list[Demo] = []

    def start(*options: str) -> Demo:
        made.append(Demo(tmp_path / "demo", *options))
        return made[-1]

    yield start
    for demo in made:
        demo.end()
        until(lambda demo=demo: not demo.folder.exists(), 30, "the folder is removed")  # type: ignore[misc]


def shape(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, blanks, folders."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"arv-demo-\w+", "arv-demo", text)
    text = re.sub(r"login#\S+", "login", text)
    text = re.sub(r"\d+(\.\d+)?m?s\b", "1s", text)  # 906ms, 1.2s
    return [re.sub(r"\d+(\.\d+)?", "N", " ".join(line.split())) for line in text.splitlines() if line.strip()]


def readme_blocks() -> list[str]:
    """What the README shows of the demo; the first is `make demo`, the others are scenes."""
    return SHOWN.findall((ROOT / "README.md").read_text())


def not_printed(blocks: list[str], demo: Demo) -> list[str]:
    """The lines of blocks of the README that a demo did not print."""
    printed = shape(demo.output.read_text().replace(str(demo.folder), ".demo"))
    shown = [line for block in blocks for line in shape(block)]
    assert shown
    return [line for line in shown if line not in printed and not line.startswith(("$ make", "…"))]


def test_every_scene_keeps_its_promise_as_the_readme_shows_it(client_python: Path, begin: Begin) -> None:
    demo = begin("--script", "--client", str(client_python.parent.parent))
    demo.process.wait(280)
    assert demo.process.returncode == 0, demo.output.read_text()
    assert not_printed(readme_blocks()[1:], demo) == [], demo.output.read_text()
    assert not demo.folder.exists()


def test_a_demo_looks_as_in_the_readme_and_leaves_nothing_when_it_is_killed(client_python: Path, begin: Begin) -> None:
    demo = begin("--client", str(client_python.parent.parent))
    demo.until_up()
    assert not_printed(readme_blocks()[:1], demo) == [], demo.output.read_text()
    folders = (demo.folder, demo.scratch)
    assert len(processes_of(*folders)) > 8  # nodes, the balancer's, the database's, the sender, the keeper
    os.kill(demo.process.pid, signal.SIGKILL)
    demo.process.wait()
    until(lambda: not processes_of(*folders), 40, "all processes ended")
    until(lambda: not any(folder.exists() for folder in folders), 10, "all folders are removed")


@pytest.mark.parametrize("options", [(), ("--echo",)])
def test_the_doctor_finds_nothing_wrong_with_a_demo(begin: Begin, options: tuple[str, ...]) -> None:
    demo = begin(*options)
    demo.until_up()
    exports = re.findall(r'^export (ARV_BALANCE_\w+)="(.*)"$', (demo.folder / "env").read_text(), re.MULTILINE)
    doctor = [sys.executable, "-P", "-m", "balancer", "doctor", "--strict", "--json"]
    ran = subprocess.run(doctor, capture_output=True, text=True, env={**os.environ, **dict(exports)}, check=False)
    found = json.loads(ran.stdout)
    assert (found["findings"], ran.returncode) == ([], 0)


def test_a_scene_that_breaks_leaves_the_site_as_it_found_it(begin: Begin) -> None:
    demo = begin("--echo")
    demo.until_up()
    stage = Stage(demo.folder, Printer(io.StringIO(), lambda _style, text: text, 80))

    def breaks(stage: Stage) -> None:
        stage.run("nodes", "drain", "api2", "--quiet")
        stage.ask("kill", node="api3")
        stage.until(lambda: not serving(stage.status()), "no node serves")
        stage.run("pause", "--yes")
        raise BalanceError("as told")

    stage.run("nodes", "drain", "api1", "--quiet")  # by somebody else: stays
    with pytest.raises(BalanceError, match="as told"):
        played(Scene("Break", breaks), stage)
    assert intents(stage.status()) == {("drain", "api1")}
    assert serving(stage.status()) == ["api2", "api3"]


def test_ctrl_c_ends_and_removes_all(begin: Begin) -> None:
    demo = begin("--echo")
    demo.until_up()
    folders = (demo.folder, demo.scratch)
    os.killpg(demo.process.pid, signal.SIGINT)  # as a terminal sends it
    assert demo.process.wait(60) == 0, demo.output.read_text()
    assert "0 failed" in demo.output.read_text().splitlines()[-1]
    assert not any(folder.exists() for folder in folders)
    assert processes_of(*folders) == {}


def test_demos_that_start_at_once_get_different_ports() -> None:
    with closing(Ports()) as one, closing(Ports()) as other:
        taken = [ports.take(NODE_PORT) for ports in (one, other, one, other)]
    assert len(set(taken)) == 4


def test_ctrl_c_breaks_a_start_off_and_removes_all(begin: Begin) -> None:
    demo = begin()
    until((demo.folder / "remote").exists, 30, "the database runs, nodes are starting")
    folders = (demo.folder, demo.scratch)
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.process.wait(60) == 130, demo.output.read_text()
    assert "Traceback" not in demo.output.read_text()
    assert "everything is up" not in demo.output.read_text()
    assert not any(folder.exists() for folder in folders)
    assert processes_of(*folders) == {}


def test_a_script_whose_balancer_is_killed_ends_with_1(begin: Begin) -> None:
    demo = begin("--script", "--echo")
    until(lambda: b"demo scale-out" in demo.output.read_bytes(), 60, "the first scene is played")
    folders = (demo.folder, demo.scratch)
    for part in ("supervisor", "worker", "control"):  # the supervisor first: it would start the others again
        for pid, words in processes_of(*folders).items():
            if f"balancer.{part}" in words.split("\0"):
                os.kill(pid, signal.SIGKILL)
    assert demo.process.wait(100) == 1, demo.output.read_text()
    assert "error: the demo is not as promised" in demo.output.read_text()
    assert not any(folder.exists() for folder in folders)


@pytest.mark.parametrize(
    ("seen", "writes", "cut_writes", "is_good"),
    [
        ({}, {}, False, True),
        ({"failed": 1}, {}, False, False),
        ({"failed": 1}, {}, True, False),
        ({"resent": 1}, {}, False, False),
        ({"resent": 1}, {}, True, True),
        ({}, {"missing": 1}, True, False),
        ({}, {"doubled": 1}, True, False),
    ],
)
async def test_a_scene_is_good_only_if_nothing_failed_and_each_write_is_there_once(
    tmp_path: Path, seen: dict[str, int], writes: dict[str, int], cut_writes: bool, is_good: bool
) -> None:
    before = {"done": 10, "failed": 0, "resent": 0, "slowest_s": 0.1, "failures": []}
    answers: dict[str, Document] = {
        "about": {"echo": False},
        "mark": before,
        "seen": {**before, "done": 20, **seen},
        "writes": {"acknowledged": 5, "missing": 0, "doubled": 0, **writes},
    }

    def answering(document: Document) -> Action:
        async def answer(_: Document) -> Document:
            return document

        return answer

    (tmp_path / "remote").write_text(str(tmp_path / "s"))
    printed = io.StringIO()
    async with served(tmp_path / "s", {name: answering(document) for name, document in answers.items()}):
        stage = await asyncio.to_thread(Stage, tmp_path, Printer(printed, lambda _style, text: text, 80))
        await asyncio.to_thread(stage.verdict, cut_writes=cut_writes)
    assert stage.is_good is is_good
    assert ("✗" in printed.getvalue()) is not is_good


@pytest.mark.parametrize("torn", [1, 9, 16])
def test_a_log_whose_size_fell_within_a_line_is_read_from_the_next_one_on(tmp_path: Path, torn: int) -> None:
    path, lines = tmp_path / "access.log", [b'{"line": %d}\n' % number for number in range(3)]
    path.write_bytes((lines[0] + lines[1])[:torn])
    log, everything = AccessLog(path), AccessLog(path, after=0)
    path.write_bytes(b"".join(lines) + b'{"not')
    first = 1 if torn < len(lines[0]) else 2
    assert [entry["line"] for entry in log.entries()] == list(range(first, 3))
    assert [entry["line"] for entry in everything.entries()] == [0, 1, 2]


def test_a_log_is_read_from_the_line_that_begins_at_its_size(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b'{"line": 0}\n')
    log = AccessLog(path)
    with path.open("ab") as more:
        more.write(b'{"line": 1}\n')
    assert [entry["line"] for entry in log.entries()] == [1]


def test_a_folder_that_is_not_a_demo_s_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("three years")
    done = subprocess.run([*COMMAND, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, kept.read_text()) == (1, "three years")
    assert "is not empty and no demo's" in done.stderr
    absent = subprocess.run([*COMMAND, "drain", "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert absent.returncode == 1
    assert "start one with `make demo`" in absent.stderr
