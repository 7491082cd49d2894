"""Record data: typed by dnspython, kept as canonical text, so that two spellings of one value compare equal."""

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from dnsupdate.errors import RenderError
from dnsupdate.names import shown

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
MAX_TTL = 2**31 - 1


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


def canonical(rdtype: str, text: str) -> str:
    """Return record data in canonical spelling.

    Raises:
        RenderError: the text is not data of that type, has more than one line, or names a host without the final dot.
    """
    if any(char < " " or char == "\x7f" for char in text):
        raise RenderError(f"{rdtype} data {shown(text)} has a control character")
    try:
        rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), text, relativize=False)
        rdata.to_wire()
    except dns.name.NeedAbsoluteNameOrOrigin:
        raise RenderError(f"{rdtype} data {shown(text)}: a name must be absolute, ending with a dot") from None
    except (dns.exception.DNSException, ValueError) as exc:
        raise RenderError(f"{rdtype} data {shown(text)} is not valid: {exc}") from None
    found = rdata.to_text()
    return found.lower() if rdtype in NAMES_ONLY else found


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
