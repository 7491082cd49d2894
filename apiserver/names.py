"""Uuids, kinds and secrets: how they are made and recognised."""

import re
import secrets
from hashlib import md5

BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
UUID = re.compile(r"[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}")
PDH = re.compile(r"[0-9a-f]{32}\+[0-9]+")
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,1024}")
SYSTEM_SUFFIX = "000000000000000"
ANONYMOUS_SUFFIX = "anonymouspublic"
ALL_USERS_SUFFIX = "fffffffffffffff"
USER, GROUP, TOKEN = "tpzed", "j7d0g", "gj3su"


def base36(number: int) -> str:
    """Return a non-negative number in base 36."""
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(BASE36[digit])
    return "".join(reversed(digits)) or "0"


def new_uuid(cluster: str, infix: str) -> str:
    """Return a fresh uuid: the last 15 digits of a random 256-bit number."""
    return f"{cluster}-{infix}-{base36(secrets.randbits(256))[-15:].rjust(15, '0')}"


def new_secret() -> str:
    """Return a fresh secret of 256 random bits in base 36."""
    return base36(secrets.randbits(256))


def new_request_id() -> str:
    """Return `req-` and 20 digits of base 36."""
    return "req-" + base36(secrets.randbits(128))[-20:].rjust(20, "0")


def is_uuid(text: object, infix: str | None = None) -> bool:
    """Return whether the value is a uuid, of the given type if one is given."""
    return isinstance(text, str) and UUID.fullmatch(text) is not None and (infix is None or text[6:11] == infix)


def kind_of(class_name: str) -> str:
    """Return the kind of a class's objects, `arvados#containerRequest`."""
    return f"arvados#{class_name[0].lower()}{class_name[1:]}"


def system_user(cluster: str) -> str:
    """Return the uuid of the user that owns what nobody owns."""
    return f"{cluster}-{USER}-{SYSTEM_SUFFIX}"


def system_group(cluster: str) -> str:
    """Return the uuid of the group that manages all users."""
    return f"{cluster}-{GROUP}-{SYSTEM_SUFFIX}"


def anonymous_user(cluster: str) -> str:
    """Return the uuid of the user that the anonymous token acts as."""
    return f"{cluster}-{USER}-{ANONYMOUS_SUFFIX}"


def anonymous_group(cluster: str) -> str:
    """Return the uuid of the role whose members are everybody, logged in or not."""
    return f"{cluster}-{GROUP}-{ANONYMOUS_SUFFIX}"


def all_users_group(cluster: str) -> str:
    """Return the uuid of the role whose members are all users who were let in."""
    return f"{cluster}-{GROUP}-{ALL_USERS_SUFFIX}"


def etag_of(values: object) -> str:
    """Return a short text that changes with the values; the same on every node."""
    return md5(repr(values).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:25]
