"""The journal: what was written is there after a crash, what was cut is not, and a full disk changes nothing."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.control.upgrade.journal import Journal, parsed, spelled
from balancer.errors import StateError

RECORDS: list[dict[str, Any]] = [
    {"kind": "run", "id": "x"},
    {"kind": "step", "number": 0, "text": "zwölf\n"},
    {"kind": "end"},
]


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "upgrade.jsonl")
    assert journal.load().records == ()
    for record in RECORDS:
        journal.append(record)
    assert list(journal.load().records) == RECORDS
    assert (tmp_path / "upgrade.jsonl").stat().st_mode & 0o777 == 0o600


@given(cut=st.integers(0, 10_000))
def test_wherever_a_crash_cuts_the_file_whole_records_are_left(cut: int) -> None:
    lines = [spelled(record) for record in RECORDS]
    data = b"".join(lines)
    found = parsed(data[: cut % (len(data) + 1)])
    assert found.damage == ""
    assert list(found.records) == RECORDS[: len(found.records)]
    assert found.whole_bytes == sum(map(len, lines[: len(found.records)]))


def test_the_next_record_replaces_a_line_that_was_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "upgrade.jsonl")
    journal.append(RECORDS[0])
    with journal.path.open("ab") as file:
        file.write(spelled(RECORDS[1])[:-7])
    journal.append(RECORDS[2])
    assert list(journal.load().records) == [RECORDS[0], RECORDS[2]]


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_never_taken_for_a_record(at: int, bit: int) -> None:
    data = bytearray(b"".join(spelled(record) for record in RECORDS))
    data[at % len(data)] ^= 1 << bit
    found = parsed(bytes(data))
    assert list(found.records) == RECORDS[: len(found.records)]
    assert len(found.records) < len(RECORDS)


def test_damage_with_records_behind_it_is_told() -> None:
    lines = [spelled(record) for record in RECORDS]
    assert parsed(lines[0] + b"rubbish\n" + lines[2]).damage == "line 2 is damaged and others follow it"


def test_a_record_that_the_disk_refuses_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "upgrade.jsonl"
    Journal(path).append(RECORDS[0])

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StateError, match="No space left"):
        Journal(path, fsync=full).append(RECORDS[1])
    assert list(Journal(path).load().records) == [RECORDS[0]]
