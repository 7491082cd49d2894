"""Record data: typed by dnspython, kept as canonical text, so that two spellings of one value compare equal."""

import re
from functools import lru_cache

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from dnsupdate.errors import RenderError
from dnsupdate.names import is_plain_label, one_line, shown

# The server's own (SOA, NS of the apex, DNSSEC) and those that are not records at all.
FORBIDDEN = frozenset(
    {
        "SOA",
        "NS",
        "RRSIG",
        "SIG",
        "NSEC",
        "NSEC3",
        "NSEC3PARAM",
        "DNSKEY",
        "CDNSKEY",
        "CDS",
        "KEY",
        "NXT",
        "TSIG",
        "TKEY",
    }
    | {"OPT", "ANY", "AXFR", "IXFR", "MAILA", "MAILB", "NONE"}
)
# Types whose data is names only: case does not matter in them, and servers keep what they got.
NAMES_ONLY = frozenset({"CNAME", "DNAME", "PTR", "SRV", "MX", "NS", "AFSDB", "KX", "RP"})
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,20}\Z")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_SHORT = {"A": re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}\Z"), "PTR": _HOST, "CNAME": _HOST}
_MAX_SHORT = 200


@lru_cache(maxsize=256)
def known_type(text: str) -> str:
    """Return the mnemonic of a record type that may be published.

    Raises:
        RenderError: unknown, or one that belongs to the server.
    """
    try:
        rdtype = dns.rdatatype.from_text(text.upper())
    except (dns.exception.DNSException, ValueError):
        raise RenderError(f"record type {shown(text)} is unknown") from None
    name = dns.rdatatype.to_text(rdtype)
    if name in FORBIDDEN or dns.rdatatype.is_metatype(rdtype):
        raise RenderError(f"record type {name} belongs to the server and cannot be published by a template")
    return name


@lru_cache(maxsize=8192)
def canonical(rdtype: str, text: str) -> str:
    """Return record data in canonical spelling.

    Addresses and plain host names, which are nearly all that a site publishes, take a short way: 2 us instead of 70.

    Raises:
        RenderError: the text is not data of that type, has more than one line, or names a host without the final dot.
    """
    short = _SHORT.get(rdtype)
    if short is not None and len(text) < _MAX_SHORT and short.match(text):
        return text.lower()
    if any(char < " " or char == "\x7f" for char in text):
        raise RenderError(f"{rdtype} data {shown(text)} has a control character")
    if not text.isascii():
        raise RenderError(f"{rdtype} data {shown(text)} is not ASCII: txt(...) for text, xn-- for a name")
    try:
        rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), text, relativize=False)
        rdata.to_wire()
    except dns.name.NeedAbsoluteNameOrOrigin:
        raise RenderError(f"{rdtype} data {shown(text)}: a name must be absolute, ending with a dot") from None
    except (dns.exception.DNSException, ValueError) as exc:
        raise RenderError(f"{rdtype} data {shown(text)} is not valid: {one_line(exc)}") from None
    for name in _names(rdata):
        if not all(is_plain_label(label.decode("latin-1")) for label in name.labels if label):
            raise RenderError(f"{rdtype} data {shown(text)}: a name in it cannot be published")
    found = rdata.to_text()
    return found.lower() if rdtype in NAMES_ONLY else found


def _names(rdata: dns.rdata.Rdata) -> list[dns.name.Name]:
    """Return the names in record data; not RP's mailbox, in which a dot may be part of a label."""
    slots = {slot for kind in type(rdata).__mro__ for slot in getattr(kind, "__slots__", ())}
    values = [getattr(rdata, slot, None) for slot in sorted(slots) if slot != "mbox"]
    return [value for value in values if isinstance(value, dns.name.Name)]


def quote_txt(*strings: object) -> str:
    """Return strings as TXT data: each quoted, escaped, cut at 255 octets. Source: RFC 1035 section 3.3.14."""
    parts = []
    for string in strings:
        octets = str(string).encode()
        parts += [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
    return " ".join('"' + "".join(_escaped(octet) for octet in part) + '"' for part in parts)


def _escaped(octet: int) -> str:
    char = chr(octet)
    if char in '"\\':
        return "\\" + char
    return char if 0x20 <= octet < 0x7F else f"\\{octet:03d}"
