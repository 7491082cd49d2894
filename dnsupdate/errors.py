"""Everything that this package raises on purpose."""

from dataclasses import dataclass


class DnsUpdateError(Exception):
    """A DNS update cannot be made."""


class BadNameError(DnsUpdateError, ValueError):
    """A host name, record name or address is not fit to be published."""


class RenderError(DnsUpdateError):
    """A template does not give a record for this host."""


class NoReverseZoneError(RenderError):
    """No configured reverse zone holds this address."""

    def __init__(self, message: str, family: int = 0) -> None:
        super().__init__(message)
        self.family = family


class StoreError(DnsUpdateError):
    """The database does not answer, or its tables are of another version."""


class LeaseLostError(DnsUpdateError):
    """Another process is the sender of this target now."""


class KeyFileError(DnsUpdateError):
    """A TSIG key file cannot be used."""


class CommandFailedError(DnsUpdateError):
    """A check, update or reload command failed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in the `dns:` section.

    `path`: keys and indexes below `dns`. `line`, `column`: from 1; 0 when the document's positions are not known.
    """

    path: tuple[str | int, ...]
    message: str
    line: int = 0
    column: int = 0
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.line}:{self.column}: " if self.line else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{dotted(self.path)}: {self.message}{hint}"


class SettingsError(DnsUpdateError):
    """The `dns:` section is not valid; `faults` has all that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def dotted(path: tuple[str | int, ...]) -> str:
    """Return a path as an operator writes it: `dns.templates.compute.records[2]`."""
    return "dns" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
