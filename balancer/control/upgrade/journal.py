"""The journal of an upgrade: one checksummed line a record, on the disk before what it says takes effect."""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancer.errors import StateError

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """What a journal holds. `whole_bytes`: up to where it is sound; what is behind was cut by a crash."""

    records: tuple[Record, ...] = ()
    whole_bytes: int = 0
    damage: str = ""


class Journal:
    """One file. `append` returns after the record is on the disk; call from a thread in asyncio code."""

    def __init__(self, path: Path, *, fsync: Callable[[int], None] = os.fsync) -> None:
        """`fsync` is what waits for the disk; tests give one that fails."""
        self.path = path
        self._fsync = fsync

    def load(self) -> Read:
        """Read all records. A last line without its end is what a crash leaves; other damage is told."""
        try:
            return parsed(self.path.read_bytes())
        except FileNotFoundError:
            return Read()
        except OSError as exc:
            return Read(damage=f"{self.path}: {exc.strerror or exc}")

    def append(self, record: Record) -> None:
        """Add a record. Raises StateError when the disk refuses; it is then not in the journal."""
        line = spelled(record)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._write(fd, line)
            finally:
                os.close(fd)
        except OSError as exc:
            raise StateError(f"{self.path} could not be written: {exc.strerror or exc}") from exc

    def _write(self, fd: int, line: bytes) -> None:
        size = os.lseek(fd, 0, os.SEEK_END)
        whole = parsed(os.pread(fd, size, 0)).whole_bytes
        try:
            os.ftruncate(fd, whole)
            view, at = memoryview(line), whole
            while view:
                count = os.pwrite(fd, view, at)
                view, at = view[count:], at + count
            self._fsync(fd)
            self._sync_folder()
        except OSError:
            with suppress(OSError):  # a whole line that was never synced must not stand there as if it were
                os.ftruncate(fd, whole)
            raise

    def set_aside(self, suffix: str) -> Path | None:
        """Move the file away, in front of a new upgrade or because it cannot be read; None when there was none."""
        aside = self.path.with_name(f"{self.path.name}.{suffix}")
        try:
            self.path.rename(aside)
            self._sync_folder()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StateError(f"{self.path} could not be moved: {exc.strerror or exc}") from exc
        return aside

    def _sync_folder(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fsync(fd)
        finally:
            os.close(fd)


def spelled(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record: CRC-32 of the JSON text in hex, a blank, the text."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def parsed(data: bytes) -> Read:
    """Return the records in `data`."""
    records: list[Record] = []
    whole = 0
    while whole < len(data):
        end = data.find(b"\n", whole)
        record = _record(data[whole:end]) if end >= 0 else None
        if record is None:
            is_last = end < 0 or end == len(data) - 1
            line = len(records) + 1
            return Read(tuple(records), whole, "" if is_last else f"line {line} is damaged and others follow it")
        records.append(record)
        whole = end + 1
    return Read(tuple(records), whole)


def _record(line: bytes) -> Record | None:
    checksum, _, text = line.partition(b" ")
    try:
        found = json.loads(text) if checksum == b"%08x" % zlib.crc32(text) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
