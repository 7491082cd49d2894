"""Request ids: which incoming one is kept, and how a new one is made from random bytes."""

import hashlib
import re
from collections.abc import Callable

RANDOM_BYTES = 20  # what every maker takes; workers read a few kilobytes from the kernel at a time

# 256 byte values onto 36 letters: four letters come 8 times, the others 7; 103.3 bits in 20 letters.
_BASE36 = bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[value % 36] for value in range(256))

Maker = Callable[[bytes], bytes]  # RANDOM_BYTES random bytes -> an id
Acceptor = Callable[[bytes], object]  # truthy: the incoming id is kept


def arvados_id(random: bytes) -> bytes:
    """Return `req-` and 20 of [0-9a-z], the form that Arvados' services make and log."""
    return b"req-" + random.translate(_BASE36)


def hex_id(random: bytes) -> bytes:
    """Return 32 hex digits, as nginx' $request_id."""
    return random[:16].hex().encode()


def uuid_id(random: bytes) -> bytes:
    """Return a random UUID (RFC 9562 section 5.4)."""
    digits = bytes((*random[:6], random[6] & 0x0F | 0x40, random[7], random[8] & 0x3F | 0x80, *random[9:16])).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()


MAKERS: dict[str, Maker] = {"arvados": arvados_id, "hex": hex_id, "uuid": uuid_id}


def acceptor(pattern: str) -> Acceptor:
    """Return the test for incoming ids. The whole value has to match, also when `pattern` is not anchored.

    Raises re.error when `pattern` is none.
    """
    return re.compile(pattern.encode("latin-1")).fullmatch


def kept(values: list[bytes], accepts: Acceptor) -> bytes | None:
    """Return the id to keep, or None: make one. Two id lines are as good as none: a node would take either."""
    return values[0] if len(values) == 1 and accepts(values[0]) else None


def fingerprint(value: bytes) -> str:
    """Return a short hash of a replaced id for the log: it can be searched for, and holds nothing that was sent."""
    return hashlib.sha256(value).hexdigest()[:16]
