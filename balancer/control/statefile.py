"""A small JSON document under the state directory that is either its old or its new self, never a mixture."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancer.errors import StateError

VERSION = 1

Document = dict[str, Any]


class Disk:
    """The four calls by which a document reaches the disk; tests give one that fails where they like."""

    def write(self, path: Path, data: bytes) -> None:
        """Write `data` to a new file and wait until it is on the disk."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Rename over `target`."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """Wait until the directory's entries are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `StateFile.load` found. `damage`: why a file that was there could not be used; it was kept as `aside`."""

    document: Document | None
    damage: str = ""
    aside: Path | None = None


class StateFile:
    """One document. `save` returns after file and directory are synced, so that what it holds may take effect."""

    def __init__(self, path: Path, *, disk: Disk | None = None, stamp: Callable[[], str]) -> None:
        """`stamp` gives a text for the name under which an unreadable file is kept."""
        self.path = path
        self._disk = disk or Disk()
        self._stamp = stamp

    def load(self) -> Loaded:
        """Read the document; an unreadable one is moved aside and reported, never a reason not to start."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Loaded(None)
        except OSError as exc:
            return Loaded(None, f"{self.path}: {exc.strerror or exc}")
        try:
            return Loaded(decode(data))
        except StateError as exc:
            aside = self.path.with_name(f"{self.path.name}.bad-{self._stamp()}")
            with contextlib.suppress(OSError):  # it cannot be moved: the report below still names it
                self.path.rename(aside)
                return Loaded(None, f"{self.path}: {exc}", aside)
            return Loaded(None, f"{self.path}: {exc}")

    def save(self, document: Document) -> None:
        """Replace the document. Raises StateError when the disk refuses; the old one is then still whole."""
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            self._disk.write(fresh, encode(document))
            self._disk.replace(fresh, self.path)
            self._disk.sync_directory(self.path.parent)
        except OSError as exc:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise StateError(f"{self.path} could not be written: {exc.strerror or exc}") from exc


def encode(document: Document) -> bytes:
    """Return the file's text: the document with its version and checksum."""
    body = {"version": VERSION, "checksum": _checksum(document), "document": document}
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def decode(data: bytes) -> Document:
    """Return the document in `data`. Raises StateError when it is damaged or of another version."""
    try:
        body = json.loads(data)
        version, checksum, document = body["version"], body["checksum"], body["document"]
    except (ValueError, KeyError, TypeError) as exc:
        raise StateError("is damaged: it is not the document that was written") from exc
    if version != VERSION:
        raise StateError(f"has version {version}, this program reads {VERSION}")
    if not isinstance(document, dict) or checksum != _checksum(document):
        raise StateError("is damaged: its checksum does not fit")
    return document


def _checksum(document: Document) -> str:
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
