"""TSIG keys from BIND key files, as `tsig-keygen` writes them. A key's secret is in no message and no repr."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path

from dnsupdate.errors import KeyFileError

ALGORITHMS = ("hmac-sha256", "hmac-sha512", "hmac-sha384", "hmac-sha224")
WEAK = ("hmac-sha1", "hmac-md5")  # RFC 8945 section 6: not to be used
_COMMENT = re.compile(r"//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_KEY = re.compile(r'key\s+"?(?P<name>[^\s"{;]+)"?\s*\{(?P<body>[^}]*)\}\s*;', re.DOTALL)
_FIELD = re.compile(r'(?P<field>algorithm|secret)\s+"?(?P<value>[^\s";]+)"?\s*;')
_MD5 = "hmac-md5.sig-alg.reg.int"
_OTHERS_MAY_READ = 0o007


@dataclass(frozen=True, slots=True)
class Key:
    """A shared key: who signs, with what."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)


def parse(text: str, *, name: str | None = None, allow_weak: bool = False) -> Key:
    """Return the only key of a key file, or the one of that name.

    Raises:
        KeyFileError: without any part of a secret in it.
    """
    found = {match["name"].rstrip(".").lower(): match["body"] for match in _KEY.finditer(_COMMENT.sub(" ", text))}
    if not found:
        raise KeyFileError('no `key "name" { algorithm ...; secret "..."; };` in it; `tsig-keygen NAME` writes one')
    wanted = name.rstrip(".").lower() if name else next(iter(found))
    if wanted not in found or (name is None and len(found) > 1):
        raise KeyFileError(f"it has the keys {', '.join(sorted(found))}; say which by key_name")
    fields = {match["field"]: match["value"] for match in _FIELD.finditer(found[wanted])}
    algorithm = fields.get("algorithm", "").lower().rstrip(".").replace(_MD5, "hmac-md5")
    if algorithm in WEAK and not allow_weak:
        raise KeyFileError(f"key {wanted} uses {algorithm}; make a new one with tsig-keygen, or allow_weak_algorithms")
    if algorithm not in (*ALGORITHMS, *WEAK):
        raise KeyFileError(f"key {wanted}: algorithm must be one of {', '.join(ALGORITHMS)}")
    try:
        secret = base64.b64decode(fields.get("secret", ""), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileError(f"key {wanted}: its secret is not base64") from None
    if not secret:
        raise KeyFileError(f"key {wanted} has no secret")
    return Key(name=wanted + ".", algorithm=algorithm, secret=secret)


def read(path: Path, *, name: str | None = None, allow_weak: bool = False) -> Key:
    """Read a key file. It must not be readable by others than owner and group."""
    try:
        if path.stat().st_mode & _OTHERS_MAY_READ:
            raise KeyFileError(f"{path}: everybody may read it; chmod o= {path}")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise KeyFileError(f"{path}: {exc.strerror}") from None
    try:
        return parse(text, name=name, allow_weak=allow_weak)
    except KeyFileError as exc:
        raise KeyFileError(f"{path}: {exc}") from None
