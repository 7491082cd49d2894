"""A host as templates see it: the facts that came with its newest ping."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from dnsupdate.errors import BadNameError
from dnsupdate.names import STRICT, Rules, address, hostname, identity

# Never template inputs: these would end in a public TXT record.
SECRET_KEYS = ("secret", "token", "password", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One node. `uuid` is its identity, `gen` the number of its newest change (one sequence for all hosts).

    `removed`: the node is gone; only what its templates keep or replace by a placeholder stays published.
    `missing`: no ping for longer than `missing_after`.
    """

    uuid: str
    hostname: str | None = None
    domain: str = ""
    ips: tuple[str, ...] = ()
    slot: int | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    first_ping_at: str | None = None
    gen: int = 0
    removed: bool = False
    missing: bool = False

    @property
    def is_absent(self) -> bool:
        """Whether nothing of this host can be reached."""
        return self.removed or self.missing or not self.ips

    @property
    def ipv4(self) -> tuple[str, ...]:
        """The IPv4 addresses."""
        return tuple([ip for ip in self.ips if ":" not in ip])

    @property
    def ipv6(self) -> tuple[str, ...]:
        """The IPv6 addresses."""
        return tuple([ip for ip in self.ips if ":" in ip])

    def facts(self) -> dict[str, Any]:
        """Return what the database keeps: a change in it makes the host dirty."""
        return {
            "hostname": self.hostname,
            "domain": self.domain,
            "ips": list(self.ips),
            "slot": self.slot,
            "properties": dict(self.properties),
            "info": without_secrets(self.info),
            "first_ping_at": self.first_ping_at,
        }


def checked(host: Host, rules: Rules = STRICT) -> Host:
    """Return the host with name and addresses in canonical spelling, secrets left out.

    Raises:
        BadNameError: something of it cannot be published; the text is fit for the client that sent it.
    """
    _check_types(host)
    name = hostname(host.hostname, rules) if host.hostname else None
    return Host(
        uuid=identity(host.uuid),
        hostname=name,
        domain=hostname(host.domain.rstrip("."), rules) if host.domain else "",
        ips=tuple(dict.fromkeys(address(ip, rules) for ip in host.ips)),
        slot=host.slot,
        properties=without_secrets(host.properties),
        info=without_secrets(host.info),
        first_ping_at=host.first_ping_at,
        gen=host.gen,
        removed=host.removed,
        missing=host.missing,
    )


def _check_types(host: Host) -> None:
    """Refuse what another's database or API may hold and ours cannot."""
    texts = (host.uuid, host.hostname or "", host.domain, *host.ips, host.first_ping_at or "")
    if not all(isinstance(text, str) for text in texts):
        raise BadNameError("a host's uuid, name, domain, addresses and ping time are texts")
    if host.slot is not None and type(host.slot) is not int:
        raise BadNameError("a host's slot is a number")
    if not _is_storable([host.first_ping_at, dict(host.properties), dict(host.info)]):
        raise BadNameError("properties or info hold a NUL, half a character or a number that is none")


def _is_storable(value: Any) -> bool:
    """Whether PostgreSQL takes it as JSON. Not recursive: the depth is the sender's choice."""
    left = [value]
    while left:
        one = left.pop()
        match one:
            case Mapping():
                left += [*one.keys(), *one.values()]
            case list() | tuple():
                left += one
            case float() if not isfinite(one):
                return False
            case str() if "\0" in one or any("\ud800" <= char <= "\udfff" for char in one):
                return False
            case _:
                continue
    return True


def without_secrets(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries whose names do not speak of a secret."""
    return {name: value for name, value in facts.items() if not any(word in name.lower() for word in SECRET_KEYS)}


def from_facts(uuid: str, facts: Mapping[str, Any], *, gen: int, removed: bool, missing: bool) -> Host:
    """Return the host that a row of the database describes."""
    return Host(
        uuid=uuid,
        hostname=facts.get("hostname"),
        domain=facts.get("domain") or "",
        ips=tuple(facts.get("ips") or ()),
        slot=facts.get("slot"),
        properties=facts.get("properties") or {},
        info=facts.get("info") or {},
        first_ping_at=facts.get("first_ping_at"),
        gen=gen,
        removed=removed,
        missing=missing,
    )
