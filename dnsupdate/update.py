"""One UPDATE message as plain values, and the same as an nsupdate script. Pure; RFC 2136 section 2."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from dnsupdate.plan import Change, Guard, Policy
from dnsupdate.rdata import quote_txt
from dnsupdate.records import FENCE_LABEL, MARKER_LABEL

FENCE_TTL = 0


class Present(NamedTuple):
    """The record set is there with exactly this data (RFC 2136 section 2.4.2)."""

    name: str
    rdtype: str
    rdatas: tuple[str, ...]


class NoRRset(NamedTuple):
    """There is no such record set (section 2.4.3)."""

    name: str
    rdtype: str


class NoName(NamedTuple):
    """The name is not in use (section 2.4.5)."""

    name: str


class Delete(NamedTuple):
    """Delete a record set (section 2.5.2)."""

    name: str
    rdtype: str


class Add(NamedTuple):
    """Add records (section 2.5.1)."""

    name: str
    rdtype: str
    ttl: int
    rdatas: tuple[str, ...]


Prerequisite = Present | NoRRset | NoName
Operation = Delete | Add


@dataclass(frozen=True, slots=True)
class Update:
    """A message to one zone. Without operations it is a probe: nothing changes, the serial neither.

    `octets`: the message as it was written ahead of time, kept here by the one who writes it; a copy has none.
    """

    zone: str
    prerequisites: tuple[Prerequisite, ...] = ()
    operations: tuple[Operation, ...] = ()
    octets: list[bytes] = field(default_factory=list, init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The record by which the server tells the one sender from former ones (RFC 2136 section 5.5).

    Each owner has its own, so that two clusters may share a zone.
    """

    owner: str
    epoch: int
    holder: str = ""
    since: str = ""

    def text(self) -> str:
        """Return the TXT data."""
        fields = {"cluster": self.owner, "epoch": self.epoch, "holder": self.holder, "since": self.since}
        return quote_txt("v=1 " + " ".join(f"{name}={value}" for name, value in fields.items() if value != ""))


def fence_name(owner: str, zone: str) -> str:
    """Return the name of the fence record."""
    return f"{owner}.{FENCE_LABEL}{zone}"


def fence_epoch(data: str) -> int | None:
    """Return the epoch that a fence record names, None when it is not one."""
    fields = dict(part.split("=", 1) for part in data.strip('"').split() if "=" in part)
    epoch = fields.get("epoch", "")
    return int(epoch) if fields.get("v") == "1" and epoch.isdecimal() else None


def marker_name(name: str) -> str:
    """Return where a name's marker is."""
    return MARKER_LABEL + name


@lru_cache(maxsize=16)
def marker_text(owner: str) -> str:
    """Return the TXT data of our markers."""
    return quote_txt(f"v=1 o={owner}")


def raise_fence(zone: str, found: tuple[str, ...], fence: Fence) -> Update:
    """Return the update that sets the fence if it is still as it was found."""
    name = fence_name(fence.owner, zone)
    before: Prerequisite = Present(name, "TXT", found) if found else NoRRset(name, "TXT")
    return Update(zone, (before,), (Delete(name, "TXT"), Add(name, "TXT", FENCE_TTL, (fence.text(),))))


def apply_changes(zone: str, changes: Iterable[Change], fence: Fence, policy: Policy, marker_ttl: int) -> Update:
    """Return the update that makes the changes if the fence is still ours and every guard holds."""
    prerequisites: list[Prerequisite] = [Present(fence_name(fence.owner, zone), "TXT", (fence.text(),))]
    operations: list[Operation] = []
    for change in changes:
        prerequisites += guards(change, policy)
        operations += _operations(change, policy, marker_ttl)
    return Update(zone, tuple(prerequisites), tuple(operations))


def unfenced(zone: str, changes: Iterable[Change], policy: Policy, marker_ttl: int) -> Update:
    """Return the same without the fence: for people who send it by hand."""
    changes = tuple(changes)
    prerequisites = tuple(needed for change in changes for needed in guards(change, policy))
    return Update(zone, prerequisites, tuple(made for one in changes for made in _operations(one, policy, marker_ttl)))


def probe(change: Change, policy: Policy) -> Update:
    """Return a message that only asks whether the guard of one change holds."""
    return Update(change.zone, tuple(guards(change, policy)))


def guards(change: Change, policy: Policy) -> list[Prerequisite]:
    """Return the prerequisites of one change."""
    match change.guard:
        case Guard.ABSENT:
            return [NoName(change.name)]
        case Guard.MARKER:
            return [Present(marker_name(change.name), "TXT", (marker_text(policy.owner),))]
        case Guard.VALUE:
            return [Present(change.name, rrset.rdtype, rrset.rdatas) for rrset in change.expected]
        case Guard.NONE:
            return []


def _operations(change: Change, policy: Policy, marker_ttl: int) -> list[Operation]:
    """Deletes first: some servers ignore an added record with another TTL, some delete before they add anyway."""
    is_new = change.guard is Guard.ABSENT
    made: list[Operation] = [] if is_new else [Delete(change.name, kind) for kind in change.types]
    made += [Add(change.name, *rrset) for rrset in change.after if rrset[0] in change.types]
    if change.mark:
        marker = marker_name(change.name)
        if not is_new or change.deletes:
            made.append(Delete(marker, "TXT"))
        if not change.deletes:
            made.append(Add(marker, "TXT", marker_ttl, (marker_text(policy.owner),)))
    return made


def nsupdate_script(updates: Iterable[Update], *, server: str = "", port: int = 53) -> str:
    """Return the same as a script for nsupdate, to be read or pasted."""
    lines = [f"server {server} {port}"] if server else []
    for update in updates:
        lines.append(f"zone {update.zone}")
        for needed in update.prerequisites:
            lines += _prerequisite_lines(needed)
        for made in update.operations:
            lines += _operation_lines(made)
        lines.append("send")
    return "\n".join(lines) + "\n"


def _prerequisite_lines(needed: Prerequisite) -> list[str]:
    match needed:
        case Present():
            return [f"prereq yxrrset {needed.name} IN {needed.rdtype} {data}" for data in needed.rdatas]
        case NoRRset():
            return [f"prereq nxrrset {needed.name} IN {needed.rdtype}"]
        case NoName():
            return [f"prereq nxdomain {needed.name}"]


def _operation_lines(made: Operation) -> list[str]:
    match made:
        case Delete():
            return [f"update delete {made.name} {made.rdtype}"]
        case Add():
            return [f"update add {made.name} {made.ttl} IN {made.rdtype} {data}" for data in made.rdatas]
