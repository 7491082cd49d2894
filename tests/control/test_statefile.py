"""A document of the state directory is whole or was never written, whatever happens in between."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.control.intents import Intent, Intents, IntentStore, Kind, from_document, to_document
from balancer.control.statefile import Disk, StateFile, decode, encode
from balancer.errors import StateError

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
OLD = {"intents": [{"kind": "drain", "node": "api1"}]}
NEW = {"intents": [{"kind": "drain", "node": "api2"}, {"kind": "weight", "node": "api3"}]}


def file(path: Path, disk: Disk | None = None) -> StateFile:
    return StateFile(path, disk=disk, stamp=lambda: "now")


class Full(Disk):
    """A disk that is full from the given call on; what was begun is cut in the middle."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at

    def write(self, path: Path, data: bytes) -> None:
        if self.fails_at == "write":
            path.write_bytes(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        super().write(path, data)

    def replace(self, source: Path, target: Path) -> None:
        if self.fails_at == "replace":
            raise OSError(28, "No space left on device")
        super().replace(source, target)

    def sync_directory(self, path: Path) -> None:
        if self.fails_at == "sync":
            raise OSError(5, "Input/output error")
        super().sync_directory(path)


@pytest.mark.parametrize("fails_at", ["write", "replace"])
def test_a_full_disk_leaves_the_old_document_whole(tmp_path: Path, fails_at: str) -> None:
    path = tmp_path / "intents.json"
    file(path).save(OLD)
    with pytest.raises(StateError, match="No space left"):
        file(path, Full(fails_at)).save(NEW)
    assert file(path).load().document == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["intents.json"]


def test_a_directory_that_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        file(tmp_path / "intents.json", Full("sync")).save(NEW)


@given(data=st.data())
def test_a_damaged_file_is_never_taken_for_a_document(data: st.DataObject) -> None:
    whole = bytearray(encode(NEW))
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "swap"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        del whole[at:]
    elif kind == "flip":
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "insert":
        whole[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        whole[at : at + 4] = whole[at : at + 4][::-1]
    try:
        found = decode(bytes(whole))
    except StateError:
        return
    assert found == NEW  # a change in white space alone, or none


def test_an_unreadable_file_is_kept_aside_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "intents.json"
    path.write_bytes(encode(OLD)[:-20])
    loaded = file(path).load()
    assert loaded.document is None
    assert "damaged" in loaded.damage
    assert loaded.aside == tmp_path / "intents.json.bad-now"
    assert loaded.aside.exists()
    assert not path.exists()


WRITER = """
import sys
from pathlib import Path
from balancer.control.statefile import StateFile
file = StateFile(Path(sys.argv[1]), stamp=lambda: "now")
number = 0
print("go", flush=True)
while True:
    number += 1
    file.save({"number": number, "filling": "x" * 20000})
    print(number, flush=True)
"""
CARELESS = """
import json, sys
from pathlib import Path
path, number = Path(sys.argv[1]), 0
print("go", flush=True)
while True:
    number += 1
    with path.open("w", buffering=1) as file:
        for part in json.dumps({"number": number, "filling": ["x" * 500] * 40}, indent=1).splitlines(True):
            file.write(part)
    print(number, flush=True)
"""


def killed_while_writing(program: str, path: Path, after_s: float) -> int:
    """Run a writer, kill -9 it in the middle of its work; return the last number that it said was written."""
    command = [sys.executable, "-P", "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        said = [int(line) for line in process.stdout.read().splitlines() if line.strip().isdigit()]
    return said[-1] if said else 0


def test_kill_9_in_the_middle_of_a_write_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "intents.json"
    for round_ in range(8):
        said = killed_while_writing(WRITER, path, 0.02 + 0.011 * round_)
        loaded = file(path).load()
        assert not loaded.damage
        assert loaded.document is not None or said == 0
        if loaded.document is not None:
            assert loaded.document["number"] >= said


def test_the_kill_does_hit_a_writer_that_takes_no_care(tmp_path: Path) -> None:
    """The negative control of the test above: without the rename a kill leaves half a file within 20 rounds."""
    path = tmp_path / "careless.json"
    for round_ in range(20):
        killed_while_writing(CARELESS, path, 0.02 + 0.003 * round_)
        if not path.read_bytes().rstrip().endswith(b"}"):
            return
    raise AssertionError("no kill ever hit a write")


moments = st.integers(0, 10 * 365 * 86400).map(lambda seconds: NOW + timedelta(seconds=seconds))
made = st.builds(
    Intent,
    kind=st.sampled_from(Kind),
    who=st.text(max_size=10),
    at=moments,
    node=st.sampled_from(["", "api1", "api2", "api3"]),
    reason=st.text(max_size=20),
    until=st.none() | moments,
    settings=st.dictionaries(st.sampled_from(["weight", "url"]), st.integers(0, 9) | st.text(max_size=5)),
)


@given(st.lists(made, max_size=8))
def test_intents_come_back_as_they_were(items: list[Intent]) -> None:
    intents = Intents()
    for item in items:
        intents = intents.with_(item)
    assert from_document(decode(encode(to_document(intents)))) == intents
    assert len({item.key for item in intents}) == len(intents.items)


@given(st.lists(made, max_size=8), moments)
def test_what_has_expired_is_what_is_not_later_than_now(items: list[Intent], now: datetime) -> None:
    intents = Intents(tuple(items))
    assert all(item.until is not None and item.until <= now for item in intents.expired(now))
    ends = intents.next_expiry()
    assert (ends is not None and ends <= now) == bool(intents.expired(now))


async def test_intents_stay_as_they_were_when_the_disk_refuses(tmp_path: Path) -> None:
    store = IntentStore(file(tmp_path / "intents.json", Full("write")))
    with pytest.raises(StateError):
        await store.save(Intents((Intent(Kind.DRAIN, "root", NOW, "api1", until=NOW + timedelta(hours=1)),)))
    assert store.current == Intents()


def test_a_file_that_others_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "intents.json"
    file(path).save(OLD)
    assert path.stat().st_mode & 0o077 == 0
