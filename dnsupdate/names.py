r"""What may be published: host names, record names, addresses. Everything else ends here.

Rules: RFC 1123 section 2.1 and RFC 952 for host names, RFC 1035 section 2.3.4 for sizes. `\Z` and not `$`: `$` lets
a trailing newline through.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dnsupdate.errors import BadNameError, NoReverseZoneError

MAX_OWNER = 253 - len("_dnsupdate.")  # the marker's name is longer by one label
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_LABEL_UNDERSCORE = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_OWNER_LABEL = re.compile(r"[a-z0-9_-]{1,63}\Z")
_OWNER = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)+\Z")
_IDENTITY = re.compile(r"(?:hook:)?[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHOWN = 80
_LINE = 300

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Rules:
    """What a site allows beyond the standard; `placeholder` addresses are exempt from the address rules."""

    allow_underscore: bool = False
    allow_loopback: bool = False
    allow_link_local: bool = False
    placeholders: frozenset[str] = frozenset()


STRICT = Rules()


def shown(text: object) -> str:
    """Return hostile text fit for a message: ASCII, one line, no control characters, at most 80 characters."""
    quoted = ascii(str(text))
    return quoted if len(quoted) <= _SHOWN else quoted[: _SHOWN - 4] + "...'"


def one_line(text: object) -> str:
    """Return a message that may quote hostile text as one ASCII line without control characters."""
    plain = str(text).encode("ascii", "backslashreplace").decode()
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", plain)[:_LINE]


def identity(text: str) -> str:
    """Return a host's uuid, or `hook:NAME`; what has other characters, or a prefix of our own, is none."""
    if not _IDENTITY.match(text):
        raise BadNameError(f"uuid {shown(text)} is not letters, digits, '.', '_' and '-'")
    return text


def is_plain_label(label: str) -> bool:
    """Return whether a label can be read in one way only, by people, shells and name servers alike."""
    return bool(_OWNER_LABEL.match(label.lower()))


def hostname(text: str, rules: Rules = STRICT) -> str:
    """Return a host name in lower case without a trailing dot.

    Raises:
        BadNameError: with the label and the rule that it breaks.
    """
    name = text.lower()
    if not text.isascii():
        raise BadNameError(f"host name {shown(text)} is not ASCII; write an international name in its xn-- form")
    if not name:
        raise BadNameError("host name is empty")
    if len(name) > MAX_OWNER:
        raise BadNameError(f"host name {shown(text)} has {len(name)} characters; at most {MAX_OWNER} are allowed")
    pattern = _LABEL_UNDERSCORE if rules.allow_underscore else _LABEL
    for label in name.split("."):
        if not pattern.match(label):
            raise BadNameError(f"host name {shown(text)}: label {shown(label)} {_label_fault(label)}")
        if label[2:4] == "--" and not label.startswith("xn--"):
            raise BadNameError(f"host name {shown(text)}: label {shown(label)} has '--' in third and fourth place")
    if name.rpartition(".")[2].isdigit():
        raise BadNameError(
            f"host name {shown(text)}: the last label must not be all digits (it would read as an address)"
        )
    return name


def _label_fault(label: str) -> str:
    if not label:
        return "is empty"
    if len(label) > 63:
        return f"has {len(label)} characters; at most 63 are allowed"
    if label.strip("-") != label:
        return "begins or ends with '-'"
    if "_" in label and _LABEL_UNDERSCORE.match(label):
        return "has an underscore; set dns.names.allow_underscore (BIND needs `check-names ignore` too)"
    return "has characters other than a-z, 0-9 and '-'"


def owner_name(text: str) -> str:
    """Return the name of a record: absolute (ends with a dot), lower case; underscore labels and a leading `*` pass."""
    name = text.lower()
    if len(name) - 1 <= MAX_OWNER and _OWNER.match(name):
        return name
    if not name.isascii() or not name.endswith(".") or len(name) < 2:
        raise BadNameError(f"record name {shown(text)} must be absolute: ASCII, ending with a dot")
    if len(name) - 1 > MAX_OWNER:
        raise BadNameError(f"record name {shown(text)} has {len(name)} characters; at most {MAX_OWNER} are allowed")
    labels = name[:-1].split(".")
    for label in labels[1:] if labels[0] == "*" else labels:
        if not _OWNER_LABEL.match(label):
            raise BadNameError(f"record name {shown(text)}: label {shown(label)} cannot be published")
    return name


def address(text: str, rules: Rules = STRICT) -> str:
    """Return an address in its canonical spelling.

    Raises:
        BadNameError: not an address, or one that no other machine can use.
    """
    try:
        if "%" in text:
            raise ValueError("zone index")
        found = ip_address(text)
    except ValueError:
        raise BadNameError(f"{shown(text)} is not an IPv4 or IPv6 address") from None
    if str(found) in rules.placeholders:
        return str(found)
    fault = _address_fault(found, rules)
    if fault:
        raise BadNameError(f"address {found} is {fault}")
    return str(found)


def _address_fault(found: Address, rules: Rules) -> str:
    mapped = isinstance(found, IPv6Address) and found.ipv4_mapped is not None
    if found.is_unspecified:
        return "unspecified"
    if mapped:
        return "IPv4-mapped; write the IPv4 address"
    if found.is_loopback and not rules.allow_loopback:
        return "a loopback address; set dns.addresses.allow_loopback if you mean it"
    if found.is_multicast or str(found) == "255.255.255.255":
        return "not a unicast address"
    if found.is_link_local and not rules.allow_link_local:
        return "a link-local address"
    return ""


def within(name: str, zone: str) -> bool:
    """Return whether a record name is at or below a zone; on label boundaries, both absolute and lower case."""
    return name == zone or name.endswith("." + zone)


@dataclass(frozen=True, slots=True)
class ReverseZone:
    """A reverse zone and the network whose addresses it names."""

    zone: str
    network: Network


def reverse_name(found: Address, zones: tuple[ReverseZone, ...]) -> str:
    """Return the PTR name of an address in the zone of the longest network that holds it.

    A zone that is not a parent of the address's standard name is a classless delegation: the name is then what is left
    of the address, below the zone. Source: RFC 2317 section 4; RFC 3596 section 2.5.
    """
    holding = [zone for zone in zones if zone.network.version == found.version and found in zone.network]
    if not holding:
        raise NoReverseZoneError(f"no reverse zone for {found}", found.version)
    best = max(holding, key=lambda zone: zone.network.prefixlen)
    standard = found.reverse_pointer + "."
    if within(standard, best.zone):
        return standard
    bits = 8 if found.version == 4 else 4
    left = found.max_prefixlen // bits - best.network.prefixlen // bits
    return ".".join(standard.split(".")[:left]) + "." + best.zone
