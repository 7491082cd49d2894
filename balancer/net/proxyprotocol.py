"""PROXY protocol headers, versions 1 and 2 (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt)."""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_BYTES = 107
V2_BYTES = 16 + 2048  # addresses and TLVs; more is nobody's

_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) ([0-9]{1,5}) ([0-9]{1,5})\r\n\Z")


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header of `length` bytes. `address`: the client's; None: the proxy speaks for itself (LOCAL, UNKNOWN)."""

    length: int
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """More bytes are needed."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Not a PROXY header."""


def parse_proxy(data: bytes) -> Header | Unfinished | Malformed:
    """Return the header at the start of `data`."""
    if data[:12] == SIGNATURE[: len(data[:12])]:
        return _version_2(data)
    if data[:6] == b"PROXY "[: len(data[:6])]:
        return _version_1(data)
    return Malformed()


def _version_1(data: bytes) -> Header | Unfinished | Malformed:
    end = data.find(b"\r\n", 0, V1_BYTES)
    if end < 0:
        return Unfinished() if len(data) < V1_BYTES else Malformed()
    line = data[: end + 2]
    if line.startswith(b"PROXY UNKNOWN"):
        return Header(len(line), None)
    found = _V1.match(line)
    if found is None:
        return Malformed()
    family, source, _, port, _ = found.groups()
    try:
        address = ip_address(source.decode())
    except ValueError:
        return Malformed()
    if isinstance(address, IPv4Address) != (family == b"TCP4") or int(port) > 65535:
        return Malformed()
    return Header(len(line), (str(address), int(port)))


def _version_2(data: bytes) -> Header | Unfinished | Malformed:
    if len(data) < 16:
        return Unfinished()
    version, family, size = struct.unpack_from("!BBH", data, 12)
    length = 16 + size
    if version not in (0x20, 0x21) or length > V2_BYTES:
        return Malformed()
    if len(data) < length:
        return Unfinished()
    if version == 0x20:  # LOCAL: a health check of the proxy
        return Header(length, None)
    if family == 0x11 and size >= 12:
        return Header(length, (str(IPv4Address(data[16:20])), struct.unpack_from("!H", data, 24)[0]))
    if family == 0x21 and size >= 36:
        return Header(length, (str(IPv6Address(data[16:32])), struct.unpack_from("!H", data, 48)[0]))
    return Header(length, None) if family in (0x00, 0x31) else Malformed()
