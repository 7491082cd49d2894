"""A directory of files, one a host, that a name server includes. Blocking: call it in a thread.

Files appear whole (temporary file, fsync, rename, fsync of the directory) or not at all, and a burst of changes can be
taken back.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from dnsupdate.errors import CommandFailedError
from dnsupdate.names import STRICT, Rules, hostname

RESTART = "restart.txt"
_MODE = 0o644


def digest(content: str) -> str:
    """Return what identifies a content."""
    return hashlib.sha256(content.encode()).hexdigest()


class Folder:
    """The directory; `suffix` of the files in it, `rules` for host names."""

    def __init__(self, path: Path, suffix: str = ".conf", rules: Rules = STRICT) -> None:
        self.path, self._suffix, self._rules = path, suffix, rules

    def file(self, name: str) -> Path:
        """Return a host's file. A name that is no host name never becomes a path."""
        return self.path / (hostname(name, self._rules) + self._suffix)

    def read(self, names: Iterable[str]) -> dict[str, str | None]:
        """Return the contents of hosts' files; None: there is none."""
        found: dict[str, str | None] = {}
        for name in names:
            try:
                found[name] = self.file(name).read_text(encoding="utf-8")
            except FileNotFoundError:
                found[name] = None
        return found

    def write(self, contents: Mapping[str, str | None]) -> None:
        """Write files, or delete those whose content is None.

        Raises:
            CommandFailedError: the directory cannot be written.
        """
        try:
            for name, content in contents.items():
                if content is None:
                    self.file(name).unlink(missing_ok=True)
                else:
                    self._put(self.file(name), content)
            self._sync()
        except OSError as exc:
            raise CommandFailedError(f"{self.path}: {exc.strerror}") from exc

    def ask_for_reload(self, command: str) -> None:
        """Write `restart.txt`, which a local watcher takes and executes; its content is data, nothing here runs it."""
        try:
            self._put(self.path / RESTART, command + "\n")
            self._sync()
        except OSError as exc:
            raise CommandFailedError(f"{self.path / RESTART}: {exc.strerror}") from exc

    def _put(self, path: Path, content: str) -> None:
        # Not the file's own name and more: the longest host name leaves no room for that.
        descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=".new-", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, _MODE)  # noqa: PTH101 -- a name, not a Path, came from mkstemp
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
