"""UPDATE and query messages as octets: written here, signed and read by dnspython.

The writer is our own because a batch of 250 hosts is 1 500 records: it takes a tenth of the time of building the same
message from dnspython's objects (`bench/dns.py --only build` has the numbers), and time counts while the server waits.
"""

import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.rrset
import dns.tsig

from dnsupdate.keys import Key
from dnsupdate.rdata import NAMES_ONLY
from dnsupdate.update import Add, Delete, NoName, NoRRset, Operation, Prerequisite, Present, Update

MAX_BYTES = 65535
_SIGNATURE_ROOM = 600  # a key name of 255 octets, an algorithm name, a sha512 code
_UPDATE = 5 << 11
_IN, _NONE, _ANY = 1, 254, 255
_TYPE_ANY, _TYPE_SOA, _TYPE_TSIG = 255, 6, 250
_ZONE_POINTER = b"\xc0\x0c"  # the zone's name is the first thing after the header
_MAX_POINTER = 0x3FFF
_HEADER = struct.Struct("!HHHHHH")
_RR = struct.Struct("!HHIH")
_POINTER = struct.Struct("!H")
_NOT_IN_USE = _RR.pack(_TYPE_ANY, _NONE, 0, 0)

Clock = Callable[[], float]


class TooBigError(Exception):
    """The message does not fit into 65535 octets."""


@dataclass(frozen=True, slots=True)
class Request:
    """A message ready to be sent once. `mac` is what the answer's signature covers."""

    wire: bytes
    id: int
    key: Key | None
    mac: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `signed`: its signature is right and it is about this request; without that it is hearsay."""

    rcode: str
    signed: bool
    tsig_error: str = ""
    server_time_s: float | None = None  # when the server signed it, or what it says in a BADTIME answer
    message: dns.message.Message | None = field(default=None, compare=False, repr=False)

    def data(self, rdtype: str) -> tuple[str, ...]:
        """Return the data of that type in the answer section, canonical and sorted; aliases are not followed."""
        found = [rdata.to_text() for rrset in self._sets(rdtype) for rdata in rrset]
        return tuple(sorted(text.lower() if rdtype in NAMES_ONLY else text for text in found))

    def ttl(self, rdtype: str) -> int:
        """Return the TTL of that type in the answer section."""
        return next((rrset.ttl for rrset in self._sets(rdtype)), 0)

    def _sets(self, rdtype: str) -> list[dns.rrset.RRset]:
        if self.message is None or not self.message.question:
            return []
        name, wanted = self.message.question[0].name, dns.rdatatype.from_text(rdtype)
        return [rrset for rrset in self.message.answer if rrset.name == name and rrset.rdtype == wanted]


@lru_cache(maxsize=16384)
def _record(rdtype: str, ttl: int, text: str) -> bytes:
    """Return what follows the name."""
    data = _rdata_wire(rdtype, text)
    return _RR.pack(_type(rdtype), _IN, ttl, len(data)) + data


def _rdata_wire(rdtype: str, text: str) -> bytes:
    if rdtype == "A":
        return socket.inet_aton(text)
    if rdtype == "AAAA":
        return socket.inet_pton(socket.AF_INET6, text)
    wire = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), text, relativize=False).to_wire()
    return wire or b""


@lru_cache(maxsize=256)
def _type(rdtype: str) -> int:
    return int(dns.rdatatype.from_text(rdtype))


def _labels(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.rstrip(".").split(".") if label)


class _Writer:
    """The zone's name stands at octet 12; a name's second use, or its parent's, points to the first."""

    def __init__(self, zone: str) -> None:
        self.wire = bytearray(_HEADER.size) + _labels(zone) + b"\x00" + struct.pack("!HH", _TYPE_SOA, _IN)
        self.seen: dict[str, bytes] = {zone: _ZONE_POINTER}

    def write(self, made: Iterable[Prerequisite | Operation]) -> int:
        """Append all; return how many records they are."""
        wire, seen, count = self.wire, self.seen, 0
        for one in made:
            for record in _records(one):
                wire += seen.get(one[0]) or self._first(one[0])
                wire += record
                count += 1
        return count

    def _first(self, name: str) -> bytes:
        if len(self.wire) <= _MAX_POINTER:
            self.seen[name] = _POINTER.pack(0xC000 | len(self.wire))
        head, _, rest = name.partition(".")
        parent = self.seen.get(rest)
        return _labels(name) + b"\x00" if parent is None else bytes((len(head),)) + head.encode() + parent


def update_wire(update: Update, message_id: int) -> bytes:
    """Return an unsigned UPDATE message.

    Raises:
        TooBigError: it has more than 65535 octets.
    """
    if not update.octets:
        write_ahead(update)
    return message_id.to_bytes(2, "big") + update.octets[0][2:]


def write_ahead(update: Update) -> None:
    """Write a message now, when there is time, and not when it is to be sent; id and signature come then.

    Raises:
        TooBigError: it has more than 65535 octets.
    """
    writer = _Writer(update.zone)
    needed, made = writer.write(update.prerequisites), writer.write(update.operations)
    _HEADER.pack_into(writer.wire, 0, 0, _UPDATE, 1, needed, made, 0)
    if len(writer.wire) > MAX_BYTES - _SIGNATURE_ROOM:
        raise TooBigError(f"{len(writer.wire)} octets")
    update.octets[:] = [bytes(writer.wire)]


def _records(one: Prerequisite | Operation) -> Sequence[bytes]:
    """Return its records without their name."""
    match one:
        case Add(_, rdtype, ttl, rdatas):
            return [_record(rdtype, ttl, data) for data in rdatas]
        case NoName():
            return (_NOT_IN_USE,)
        case Present(_, rdtype, rdatas):
            return [_record(rdtype, 0, data) for data in rdatas]
        case NoRRset(_, rdtype):
            return (_RR.pack(_type(rdtype), _NONE, 0, 0),)
        case Delete(_, rdtype):
            return (_RR.pack(_type(rdtype), _ANY, 0, 0),)


def update_request(update: Update, message_id: int, *, key: Key | None, fudge_s: int, clock: Clock) -> Request:
    """Return a freshly signed UPDATE; made anew for each attempt and server."""
    return _signed(update_wire(update, message_id), message_id, key, fudge_s, clock)


def query_request(name: str, rdtype: str, message_id: int, *, key: Key | None, fudge_s: int, clock: Clock) -> Request:
    """Return a signed query that asks this server only, not whom it may ask in turn."""
    question = (_labels(name) + b"\x00") + struct.pack("!HH", _type(rdtype), _IN)
    return _signed(_HEADER.pack(message_id, 0, 1, 0, 0, 0) + question, message_id, key, fudge_s, clock)


@lru_cache(maxsize=16)
def dns_key(key: Key) -> dns.tsig.Key:
    """Return the key as dnspython wants it; its repr has the secret, so it goes nowhere else."""
    algorithm = "HMAC-MD5.SIG-ALG.REG.INT" if key.algorithm == "hmac-md5" else key.algorithm
    return dns.tsig.Key(dns.name.from_text(key.name), key.secret, algorithm)


def _signed(wire: bytes, message_id: int, key: Key | None, fudge_s: int, clock: Clock) -> Request:
    """Append a TSIG record. Source: RFC 8945 section 4.2 and 5.1."""
    if key is None:
        return Request(wire, message_id, None, b"")
    dnskey = dns_key(key)
    empty = dns.rdtypes.ANY.TSIG.TSIG(  # type: ignore[no-untyped-call]
        dns.rdataclass.ANY, dns.rdatatype.TSIG, dnskey.algorithm, 0, fudge_s, b"", message_id, 0, b""
    )
    tsig, _ = dns.tsig.sign(wire, dnskey, empty, int(clock()), b"")  # type: ignore[no-untyped-call]
    data = tsig.to_wire()
    record = dnskey.name.to_digestable() + _RR.pack(_TYPE_TSIG, _ANY, 0, len(data)) + data
    counted = wire[:10] + struct.pack("!H", struct.unpack("!H", wire[10:12])[0] + 1) + wire[12:]
    return Request(counted + record, message_id, key, tsig.mac)


def read_answer(wire: bytes, request: Request) -> Answer:
    """Judge an answer to a request.

    Raises:
        ValueError: the octets are not an answer to this request.
    """
    message = _genuine(wire, request)
    signed = message is not None
    if message is None:
        try:
            message = dns.message.from_wire(wire, keyring=False, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, struct.error) as exc:
            raise ValueError(f"not a DNS message: {type(exc).__name__}") from None
    if message.id != request.id or not message.flags & dns.flags.QR:
        raise ValueError("an answer to another question")
    error = int(message.tsig_error) if message.had_tsig and message.tsig_error else 0
    server_time = float(message.tsig[0].time_signed) if message.tsig is not None and not error else None
    if error == dns.rcode.BADTIME and message.tsig is not None and len(message.tsig[0].other) == 6:
        server_time = float(int.from_bytes(message.tsig[0].other, "big"))
    return Answer(
        rcode=dns.rcode.to_text(message.rcode()),
        signed=signed and not error,
        tsig_error=dns.rcode.to_text(dns.rcode.Rcode(error), tsig=True) if error else "",
        server_time_s=server_time,
        message=message,
    )


def _genuine(wire: bytes, request: Request) -> dns.message.Message | None:
    """Return the answer if its signature is there and right."""
    if request.key is None:
        return None
    try:
        found = dns.message.from_wire(wire, keyring=dns_key(request.key), request_mac=request.mac, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, struct.error):
        return None
    return found if found.had_tsig else None
