"""What a hook could not hand on at once: one small file an entry, in order, until the database has it.

An entry carries the database's time at which it was true, so that one that comes late does not undo a newer one that
took another way.
"""

import asyncio
import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dnsupdate.enqueue import Connection, enqueue
from dnsupdate.errors import BadNameError, DnsUpdateError
from dnsupdate.host import Host, checked
from dnsupdate.names import Rules

_CLOCK = "clock.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One call of a hook. `ip` None: the host has none any more."""

    hostname: str
    ip: str | None
    at: datetime
    uuid: str = ""
    domain: str = ""

    def host(self) -> Host:
        """Return the host that the entry describes; without a uuid its name is its identity."""
        return Host(
            uuid=self.uuid or f"hook:{self.hostname.lower()}",
            hostname=self.hostname,
            domain=self.domain,
            ips=(self.ip,) if self.ip else (),
        )


class SpoolError(DnsUpdateError):
    """The spool cannot be used."""


class Spool:
    """The directory. `rules`: the site's rules for names and addresses. Blocks; small files only."""

    def __init__(self, folder: Path, rules: Rules) -> None:
        self._folder, self._rules = folder, rules

    def check(self, entry: Entry) -> None:
        """Refuse what can never be published.

        Raises:
            BadNameError: with the reason.
        """
        if not entry.hostname:
            raise BadNameError("host name is empty")
        checked(entry.host(), self._rules)

    def put(self, entry: Entry) -> Path:
        """Keep an entry, durably.

        Raises:
            SpoolError: the directory cannot be written.
        """
        name = f"{entry.at.timestamp():020.6f}-{secrets.token_hex(4)}.json"
        fields = {
            "hostname": entry.hostname,
            "ip": entry.ip,
            "at": entry.at.isoformat(),
            "uuid": entry.uuid,
            "domain": entry.domain,
        }
        self._write(self._folder / name, json.dumps(fields))
        return self._folder / name

    def entries(self) -> list[tuple[Path, Entry]]:
        """Return what is kept, oldest first; what cannot be read is set aside under another name."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            if path.name == _CLOCK:
                continue
            try:
                fields = json.loads(path.read_text(encoding="utf-8"))
                entry = Entry(**{**fields, "at": datetime.fromisoformat(fields["at"])})
                self.check(entry)
            except (OSError, ValueError, TypeError, KeyError):
                path.rename(path.with_suffix(".bad"))
                continue
            found.append((path, entry))
        return found

    def note_clock(self, database_now: datetime) -> None:
        """Remember how our clock stands to the database's, for the time when it does not answer."""
        offset = (database_now - datetime.now(UTC)).total_seconds()
        with suppress(SpoolError):
            self._write(self._folder / _CLOCK, json.dumps({"offset_s": offset}))

    def estimated_now(self) -> datetime:
        """Return the database's time as well as it is known here."""
        try:
            offset = float(json.loads((self._folder / _CLOCK).read_text(encoding="utf-8"))["offset_s"])
        except (OSError, ValueError, KeyError, TypeError):
            offset = 0.0
        return datetime.now(UTC) + timedelta(seconds=offset)

    def lock(self) -> int | None:
        """Take the right to hand entries on; return the descriptor that holds it, None when another process has it.

        The caller closes it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise SpoolError(f"{self._folder}: {exc.strerror}") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _write(self, path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise SpoolError(f"{self._folder}: {exc.strerror}") from exc


async def hand_on(spool: Spool, connection: Connection, rules: Rules) -> int:
    """Give all kept entries to the database, oldest first; return how many. Called inside no transaction.

    An entry's file goes only after its commit: a crash in between hands it on twice, which changes nothing.
    """
    descriptor = await asyncio.to_thread(spool.lock)
    if descriptor is None:
        return 0
    done = 0
    try:
        for path, entry in await asyncio.to_thread(spool.entries):
            with suppress(BadNameError):
                await enqueue_one(connection, entry, rules)
            await asyncio.to_thread(path.unlink, missing_ok=True)
            done += 1
    finally:
        os.close(descriptor)
    return done


async def enqueue_one(connection: Connection, entry: Entry, rules: Rules) -> bool:
    """Enqueue an entry in a transaction of its own; return whether it changed anything."""
    await connection.execute("BEGIN")
    try:
        changed = await enqueue(connection, entry.host(), rules=rules, source_time=entry.at)
    except BaseException:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return bool(changed)
