"""A zone in memory that takes updates (RFC 2136 section 3) and remembers its last changes for IXFR. No I/O."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset
import dns.update

_IN, _NONE, _ANY = dns.rdataclass.IN, dns.rdataclass.NONE, dns.rdataclass.ANY
_META = (dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.MAILA, dns.rdatatype.MAILB)
_JOURNAL = 200

Record = tuple[dns.name.Name, int, dns.rdata.Rdata]
Sets = dict[dns.name.Name, dict[dns.rdatatype.RdataType, dns.rdataset.Rdataset]]


class Refused(Exception):  # noqa: N818 -- an answer, not a fault
    """The update is answered with a code and changes nothing."""

    def __init__(self, rcode: dns.rcode.Rcode) -> None:
        super().__init__(dns.rcode.to_text(rcode))
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class _Step:
    """What one update did, for IXFR."""

    before: int
    after: int
    removed: tuple[Record, ...]
    added: tuple[Record, ...]


class Zone:
    """An apex with SOA and NS, and what updates put into it."""

    def __init__(self, origin: str, *, nameserver: str = "localhost.", serial: int = 1, negative_ttl: int = 5) -> None:
        self.origin = dns.name.from_text(origin)
        self._sets: Sets = {}
        self._steps: deque[_Step] = deque(maxlen=_JOURNAL)
        self._put(self._sets, self.origin, 60, _rdata("NS", nameserver))
        soa = f"{nameserver} hostmaster.{self.origin} {serial} 3600 600 86400 {negative_ttl}"
        self._put(self._sets, self.origin, 60, _rdata("SOA", soa))

    @property
    def serial(self) -> int:
        """The SOA serial."""
        return self._soa().serial

    def _soa(self) -> dns.rdtypes.ANY.SOA.SOA:
        found = self._sets[self.origin][dns.rdatatype.SOA][0]
        if not isinstance(found, dns.rdtypes.ANY.SOA.SOA):
            raise TypeError("the apex has no SOA")
        return found

    def soa_rrset(self) -> dns.rrset.RRset:
        """The SOA as a record set."""
        return dns.rrset.from_rdata(self.origin, 60, self._soa())

    def records(self) -> Iterator[Record]:
        """All records but the SOA."""
        for name in sorted(self._sets):
            for rdataset in self._sets[name].values():
                if rdataset.rdtype != dns.rdatatype.SOA:
                    yield from ((name, rdataset.ttl, rdata) for rdata in rdataset)

    def lookup(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> tuple[list[dns.rrset.RRset], bool]:
        """Return the answer to a query, and whether the name exists (also as a parent of others)."""
        here = self._sets.get(name, {})
        if rdtype == dns.rdatatype.ANY:
            found = list(here.values())
        elif dns.rdatatype.CNAME in here and rdtype not in here:
            found = [here[dns.rdatatype.CNAME]]
        else:
            found = [here[rdtype]] if rdtype in here else []
        exists = bool(here) or any(other.is_subdomain(name) for other in self._sets)
        return [dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset)) for rdataset in found], exists

    def texts(self) -> set[str]:
        """All records but SOA and NS of the apex, as text, for tests and `dns show`."""
        return {
            f"{name} {ttl} {dns.rdatatype.to_text(rdata.rdtype)} {rdata.to_text()}"
            for name, ttl, rdata in self.records()
            if name != self.origin
        }

    def update(self, message: dns.update.UpdateMessage) -> bool:
        """Apply an update as a whole; return whether anything changed.

        Raises:
            Refused: nothing was changed.
        """
        self._check(message)
        self._prescan(message)
        after = self._draft({rrset.name for rrset in message.update})
        for rrset in message.update:
            self._apply(after, rrset)
        return self._commit(after)

    def _draft(self, names: Iterable[dns.name.Name]) -> Sets:
        """Return what is at these names, to be changed."""
        return {name: dict(self._sets.get(name, {})) for name in names}

    def put(self, text_name: str, ttl: int, rdtype: str, text: str) -> None:
        """Add a record by hand, as an administrator would."""
        after = self._draft([dns.name.from_text(text_name)])
        self._put(after, dns.name.from_text(text_name), ttl, _rdata(rdtype, text))
        self._commit(after)

    def drop(self, text_name: str, rdtype: str | None = None) -> None:
        """Delete a record set or a name by hand."""
        after = self._draft([dns.name.from_text(text_name)])
        here = after[dns.name.from_text(text_name)]
        for found in list(here):
            if rdtype is None or found == dns.rdatatype.from_text(rdtype):
                del here[found]
        self._commit(after)

    def copy(self) -> Sets:
        """Return the content, to be given to `restore`: a backup."""
        return {name: dict(sets) for name, sets in self._sets.items()}

    def restore(self, content: Sets) -> None:
        """Put an old copy back, its old serial included; what IXFR knew is gone."""
        self._sets = {name: dict(sets) for name, sets in content.items()}
        self._steps.clear()

    def transfer(self, serial: int | None) -> list[Record]:
        """Return the records of a transfer: since a serial if that is known, else of the whole zone."""
        soa = (self.origin, 60, self._soa())
        if serial == self.serial:
            return [soa]
        steps = list(self._steps)
        start = next((at for at, step in enumerate(steps) if step.before == serial), None)
        if serial is None or start is None:
            return [soa, *self.records(), soa]
        found: list[Record] = [soa]
        for step in steps[start:]:
            found += [self._soa_with(step.before), *step.removed, self._soa_with(step.after), *step.added]
        return [*found, soa]

    def _soa_with(self, serial: int) -> Record:
        return self.origin, 60, self._soa().replace(serial=serial)

    def _check(self, message: dns.update.UpdateMessage) -> None:
        """Prerequisites. Source: RFC 2136 section 3.2."""
        exact: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], set[dns.rdata.Rdata]] = {}
        for rrset in message.prerequisite:
            self._inside(rrset.name)
            here = self._sets.get(rrset.name, {})
            if rrset.deleting == _ANY and rrset.rdtype == dns.rdatatype.ANY:
                _must(bool(here), dns.rcode.NXDOMAIN)
            elif rrset.deleting == _ANY:
                _must(rrset.rdtype in here, dns.rcode.NXRRSET)
            elif rrset.deleting == _NONE and rrset.rdtype == dns.rdatatype.ANY:
                _must(not here, dns.rcode.YXDOMAIN)
            elif rrset.deleting == _NONE:
                _must(rrset.rdtype not in here, dns.rcode.YXRRSET)
            else:
                exact.setdefault((rrset.name, rrset.rdtype), set()).update(rrset)
        for (name, rdtype), wanted in exact.items():
            _must(set(self._sets.get(name, {}).get(rdtype, ())) == wanted, dns.rcode.NXRRSET)

    def _prescan(self, message: dns.update.UpdateMessage) -> None:
        """Source: RFC 2136 section 3.4.1."""
        for rrset in message.update:
            self._inside(rrset.name)
            if rrset.rdtype in _META or (rrset.rdtype == dns.rdatatype.ANY and rrset.deleting != _ANY):
                raise Refused(dns.rcode.FORMERR)

    def _inside(self, name: dns.name.Name) -> None:
        if not name.is_subdomain(self.origin):
            raise Refused(dns.rcode.NOTZONE)

    def _apply(self, sets: Sets, rrset: dns.rrset.RRset) -> None:
        """Source: RFC 2136 section 3.4.2."""
        if rrset.deleting is None:
            for rdata in rrset:
                self._add(sets, rrset.name, rrset.ttl, rdata)
            return
        here = sets.get(rrset.name, {})
        apex = rrset.name == self.origin
        if rrset.deleting == _ANY:
            for rdtype in [rrset.rdtype] if rrset.rdtype != dns.rdatatype.ANY else list(here):
                if not (apex and rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS)):
                    here.pop(rdtype, None)
        elif rrset.rdtype in here and not (apex and rrset.rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS)):
            left = [rdata for rdata in here[rrset.rdtype] if rdata not in rrset]
            ttl = here.pop(rrset.rdtype).ttl
            for rdata in left:
                self._put(sets, rrset.name, ttl, rdata)

    def _add(self, sets: Sets, name: dns.name.Name, ttl: int, rdata: dns.rdata.Rdata) -> None:
        here = sets.get(name, {})
        if rdata.rdtype == dns.rdatatype.SOA:
            return  # the serial is ours
        if rdata.rdtype == dns.rdatatype.CNAME:
            if any(found != dns.rdatatype.CNAME for found in here):
                return  # silently, as the RFC wants it
            here.pop(dns.rdatatype.CNAME, None)
        elif dns.rdatatype.CNAME in here:
            return
        self._put(sets, name, ttl, rdata)

    def _put(self, sets: Sets, name: dns.name.Name, ttl: int, rdata: dns.rdata.Rdata) -> None:
        here = sets.setdefault(name, {})
        old = list(here[rdata.rdtype]) if rdata.rdtype in here else []
        here[rdata.rdtype] = dns.rdataset.from_rdata_list(ttl, [*(one for one in old if one != rdata), rdata])

    def _commit(self, after: Sets) -> bool:
        """Take over what was changed at some names; raise the serial if it differs."""
        before = set(_flat({name: self._sets.get(name, {}) for name in after}))
        now = set(_flat(after))
        if before == now:
            return False
        serial = (self.serial + 1) % 2**32 or 1
        self._steps.append(_Step(self.serial, serial, tuple(before - now), tuple(now - before)))
        soa = self._soa().replace(serial=serial)
        for name, sets in after.items():
            if sets:
                self._sets[name] = sets
            else:
                self._sets.pop(name, None)
        self._sets[self.origin][dns.rdatatype.SOA] = dns.rdataset.from_rdata_list(60, [soa])
        return True


def _flat(sets: Sets) -> Iterator[Record]:
    for name, found in sets.items():
        for rdataset in found.values():
            if rdataset.rdtype != dns.rdatatype.SOA:
                yield from ((name, rdataset.ttl, rdata) for rdata in rdataset)


def _must(holds: bool, rcode: dns.rcode.Rcode) -> None:  # noqa: FBT001 -- reads as a sentence
    if not holds:
        raise Refused(rcode)


def _rdata(rdtype: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, dns.rdatatype.from_text(rdtype), text, relativize=False)
