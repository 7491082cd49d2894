"""What is in files on this machine: the database's address, tokens."""

from pathlib import Path

from dnsupdate.errors import DnsUpdateError
from dnsupdate.settings import Settings


class LocalFileError(DnsUpdateError):
    """A file that the settings name cannot be read."""


def database(settings: Settings) -> str:
    """Return the address of the database with our tables.

    Raises:
        LocalFileError: none is configured, or its file cannot be read.
    """
    if settings.database_file is not None:
        return secret(settings.database_file, "dns.database_file")
    if settings.database is None:
        raise LocalFileError("dns.database (or dns.database_file) is missing: the address of a PostgreSQL database")
    return settings.database


def secret(path: Path, key: str) -> str:
    """Return the first line of a file that a key of the settings names.

    Raises:
        LocalFileError: it cannot be read or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as exc:
        raise LocalFileError(f"{key}: {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise LocalFileError(f"{key}: {path} is not text") from None
    if not text:
        raise LocalFileError(f"{key}: {path} is empty")
    return text
