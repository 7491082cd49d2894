"""The `dns:` section of the configuration: targets, zones, templates. `dnsupdate.loader` checks it whole."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dnsupdate.names import ReverseZone, Rules, owner_name, within

Path_ = tuple[str | int, ...]
Positions = Mapping[Path_, tuple[int, int]]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(?P<head>.*)\[(?P<first>\d+)-(?P<last>\d+)\](?P<tail>.*)\Z")
_MAX_PREFILL = 65536


def _seconds(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match:
            return float(match[1]) * _UNITS[match[2]]
    raise ValueError("a duration is a number and a unit: 500ms, 30s, 10m, 1h")


def _ttl(value: object) -> object:
    return int(_seconds(value)) if isinstance(value, str) else value  # type: ignore[call-overload]


def _share(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError("a share is a number and a percent sign: 30%") from None
    return value


def _name(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a name is text")
    return owner_name(value if value.endswith(".") else value + ".")


def _argv(value: object) -> object:
    if isinstance(value, str):
        import shlex

        return shlex.split(value)
    return value


Duration = Annotated[float, BeforeValidator(_seconds)]
Ttl = Annotated[int, BeforeValidator(_ttl), Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, BeforeValidator(_share), Field(gt=0, le=1)]
Name = Annotated[str, BeforeValidator(_name)]
Argv = Annotated[tuple[str, ...], BeforeValidator(_argv)]
Text = str


class Section(BaseModel):
    """What all sections have in common: no unknown keys, no changes, no values in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AddressRules(Section):
    """Which addresses may be published beside ordinary unicast ones."""

    allow_loopback: bool = False
    allow_link_local: bool = False


class NameRules(Section):
    """Which host names may be published beside those of RFC 1123."""

    allow_underscore: bool = False


class Brake(Section):
    """A plan by which more hosts than this lose all their records is held until it is released."""

    hosts: int = Field(default=20, ge=1)
    share: Share = 0.3
    min_hosts: int = Field(default=10, ge=0)  # the share says nothing at a target with fewer hosts


class RetrySettings(Section):
    """Backoff between attempts, for ever."""

    first: Duration = 1.0
    most: Duration = 60.0


class TargetSettings(Section):
    """One authoritative primary (`rfc2136`, `builtin`) or one directory of files on the designated node (`files`)."""

    kind: Literal["rfc2136", "builtin", "files"] = "rfc2136"
    servers: tuple[str, ...] = ()
    port: int = Field(default=53, ge=0, le=65535)
    key_file: Path | None = None
    key_name: str | None = None
    transfer_key_file: Path | None = None
    transfer_key_name: str | None = None
    allow_weak_algorithms: bool = False
    transport: Literal["tcp"] = "tcp"
    fudge: int = Field(default=60, ge=1, le=300)
    timeout: Duration = 5.0
    batch: int = Field(default=250, ge=1, le=1000)
    ownership: Literal["txt", "none"] = "txt"
    conflict: Literal["protect", "adopt", "overwrite"] = "protect"
    marker_ttl: Ttl = 60
    reconcile: Duration = 600.0
    lease: Duration = 15.0
    poll: Duration = 2.0
    retry: RetrySettings = RetrySettings()
    brake: Brake = Brake()
    nameservers: tuple[str, ...] = ()  # all servers of the zones, for `test` and `trace`
    node: str | None = None
    dir: Path | None = None
    template: Path | None = None
    when: str | None = None
    absent: str = "delete"
    prefill: str | None = None
    check: Argv = ()
    update: Argv = ()
    reload: str = ""
    reload_command: Argv = ()
    debounce: Duration = 1.0
    command_timeout: Duration = 30.0

    @property
    def placeholder(self) -> str | None:
        """The address that an absent host gets, or None."""
        return _placeholder(self.absent)


class ZoneSettings(Section):
    """A zone at a target. `networks`: for a reverse zone, the addresses that it names."""

    name: Name
    target: str
    networks: tuple[str, ...] = ()
    allow_apex: bool = False


class RecordSettings(Section):
    """One line of a template."""

    name: str
    type: str
    data: str
    each: Literal["ips", "ipv4", "ipv6"] | None = None
    when: str | None = None
    ttl: Ttl | None = None
    shared: bool = False
    optional: bool = False
    target: str | None = None


class TemplateSettings(Section):
    """The records of each host for which `when` holds."""

    when: str | None = None
    absent: str = "delete"
    missing_after: Duration | None = None
    prefill: str | None = None
    records: tuple[RecordSettings, ...]

    @property
    def placeholder(self) -> str | None:
        """The address that an absent host gets, or None."""
        return _placeholder(self.absent)


class Defaults(Section):
    """What a record has unless it says otherwise."""

    ttl: Ttl = 60


class FollowSettings(Section):
    """Where the nodes of unmodified API servers are read: their database, or their API."""

    database: str | None = None
    database_file: Path | None = None
    api: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    interval: Duration = 5.0
    domain: str | None = None


class SpoolSettings(Section):
    """Where `dns hook` keeps what it could not hand on."""

    dir: Path = Path("/var/lib/arv-balance/dns-spool")


class Settings(Section):
    """The whole section."""

    database: str | None = None
    database_file: Path | None = None
    owner: str | None = Field(default=None, pattern=r"^[a-z0-9]{1,32}$")
    domain: str = ""
    targets: dict[str, TargetSettings] = Field(default_factory=dict)
    zones: tuple[ZoneSettings, ...] = ()
    defaults: Defaults = Defaults()
    templates: dict[str, TemplateSettings] = Field(default_factory=dict)
    info: tuple[str, ...] = ()
    addresses: AddressRules = AddressRules()
    names: NameRules = NameRules()
    follow: FollowSettings | None = None
    spool: SpoolSettings = SpoolSettings()

    @property
    def owner_id(self) -> str:
        """The name under which this cluster's records are marked."""
        return self.owner or "arv"

    @property
    def rules(self) -> Rules:
        """The rules for names and addresses."""
        holders: list[TemplateSettings | TargetSettings] = [*self.templates.values(), *self.targets.values()]
        return Rules(
            allow_underscore=self.names.allow_underscore,
            allow_loopback=self.addresses.allow_loopback,
            allow_link_local=self.addresses.allow_link_local,
            placeholders=frozenset(holder.placeholder for holder in holders if holder.placeholder),
        )

    @property
    def missing_after(self) -> float | None:
        """The shortest time without a ping after which a host counts as missing."""
        spans = [found.missing_after for found in self.templates.values() if found.missing_after is not None]
        return min(spans, default=None)

    @property
    def prefilled(self) -> tuple[str, ...]:
        """The host names that are there before their hosts are."""
        holders: list[TemplateSettings | TargetSettings] = [*self.templates.values(), *self.targets.values()]
        return tuple(name for holder in holders for name in prefilled(holder.prefill))

    def zones_of(self, target: str) -> tuple[ZoneSettings, ...]:
        """Return the zones at a target: forward ones first, so that no PTR leads to a name that is not there yet."""
        mine = [zone for zone in self.zones if zone.target == target]
        return tuple(sorted(mine, key=lambda zone: bool(zone.networks)))

    def zones_holding(self, name: str) -> tuple[ZoneSettings, ...]:
        """Return the closest zone that holds a record name, once for each target that has it."""
        holding = [zone for zone in self.zones if within(name, zone.name)]
        longest = max((len(zone.name) for zone in holding), default=0)
        return tuple(zone for zone in holding if len(zone.name) == longest)

    @property
    def reverse_zones(self) -> tuple[ReverseZone, ...]:
        """All reverse zones with their networks."""
        return tuple(
            ReverseZone(zone=zone.name, network=ip_network(network)) for zone in self.zones for network in zone.networks
        )


def _placeholder(absent: str) -> str | None:
    head, _, rest = absent.partition(":")
    return rest.strip() if head == "placeholder" else None


def prefilled(pattern: str | None) -> tuple[str, ...]:
    """Return the host names of `compute[1-64]`; leading zeros of the first number give the width."""
    if not pattern:
        return ()
    match = _SPAN.match(pattern)
    if not match:
        return (pattern,)
    first, last = int(match["first"]), int(match["last"])
    if not first <= last <= first + _MAX_PREFILL:
        raise ValueError(f"prefill: [{first}-{last}] is not a rising range of at most {_MAX_PREFILL} names")
    width = len(match["first"]) if match["first"].startswith("0") else 0
    return tuple(f"{match['head']}{number:0{width}d}{match['tail']}" for number in range(first, last + 1))
