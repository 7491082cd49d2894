"""Looks into certificates: their names and dates, and whether the key belongs to them."""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from balancer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Described:
    """The first certificate of a PEM file. Names are DNS names and addresses of its subjectAltName, lower case."""

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime


def describe(pem: bytes, path: str) -> Described:
    """Return what the first certificate in `pem` says. `path` is for the message. Raises ConfigError."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)  # the decoder wants a file, and /tmp may not be writable
    try:
        os.write(fd, _first(pem, path))
        # The decoder behind SSLSocket.getpeercert; the public ways show only certificates of authorities.
        found = ssl._ssl._test_decode_cert(f"/proc/self/fd/{fd}")  # type: ignore[attr-defined]  # noqa: SLF001
    except (ssl.SSLError, OSError) as exc:
        raise ConfigError(f"{path} holds no certificate that can be read") from exc
    finally:
        os.close(fd)
    names = [value.lower() for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return Described(tuple(names), _time(found["notBefore"]), _time(found["notAfter"]))


def _first(pem: bytes, path: str) -> bytes:
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    start = pem.find(begin)
    stop = pem.find(end, start)
    if start < 0 or stop < 0:
        raise ConfigError(f"{path} holds no certificate")
    return pem[start : stop + len(end)] + b"\n"


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def check_pair(cert: str, key: str | None) -> None:
    """Raise ConfigError unless the chain can be loaded with its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedError:
        raise ConfigError(f"the key in {key or cert} is encrypted; it has to be readable without a password") from None
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"the key in {key or cert} does not belong to the certificate in {cert}") from exc
        raise ConfigError(f"{key or cert} holds no key that can be read") from exc


class _EncryptedError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedError


def check_authorities(path: str) -> None:
    """Raise ConfigError unless `path` is a PEM file with at least one certificate."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as exc:
        raise ConfigError(f"{path} holds no certificate that can be read") from exc
