"""A host and the templates -> its contributions: the records that should be there because of it. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, NamedTuple

from dnsupdate import rdata, template
from dnsupdate.errors import BadNameError, DnsUpdateError, Fault, NoReverseZoneError, RenderError, dotted
from dnsupdate.host import Host
from dnsupdate.names import hostname, owner_name, reverse_name
from dnsupdate.settings import RecordSettings, Settings, TemplateSettings, ZoneSettings, prefilled

MARKER_LABEL = "_dnsupdate."
FENCE_LABEL = "_dnsupdate-fence."
_MEMO = 100_000


class Contribution(NamedTuple):
    """One record that one host wants. A record set is the union of its contributions.

    A tuple, because a batch makes, hashes and sorts hundreds of them while the server waits.
    """

    target: str
    zone: str
    name: str
    rdtype: str
    rdata: str
    ttl: int
    host: str
    gen: int = 0
    shared: bool = False
    yields: bool = False  # of an absent host: gives way to any living one without a word


@dataclass(frozen=True, slots=True)
class RecordFault:
    """A record that cannot be made for a host. `path` is below `dns` in the configuration."""

    path: tuple[str | int, ...]
    hostname: str
    text: str
    family: int = 0  # of the address that no reverse zone holds
    optional: bool = False

    def __str__(self) -> str:
        return f"{dotted(self.path)} for {self.hostname}: {self.text}"


class Rendered(NamedTuple):
    """What templates made of one host. With `faults` nothing of it may be published: it would be half a host."""

    contributions: tuple[Contribution, ...] = ()
    faults: tuple[RecordFault, ...] = ()
    warnings: tuple[RecordFault, ...] = ()
    keeps: bool = False  # what is published of it stays


@dataclass(frozen=True, slots=True)
class _Record:
    settings: RecordSettings
    path: tuple[str | int, ...]
    name: template.Compiled
    rdtype: template.Compiled
    data: template.Compiled
    when: template.Compiled | None
    ttl: int
    is_wildcard: bool


@dataclass(frozen=True, slots=True)
class _Template:
    settings: TemplateSettings
    when: template.Compiled | None
    records: tuple[_Record, ...] = field(default_factory=tuple)


class Renderer:
    """The compiled templates of a configuration."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reverse = settings.reverse_zones
        self._apexes = frozenset(zone.name for zone in settings.zones)
        self._zone_of: dict[str, tuple[ZoneSettings, ...]] = {}
        self._engine = template.Engine({"ptr": self._ptr, "txt": rdata.quote_txt})
        self._templates = {name: self._compile(name, found) for name, found in settings.templates.items()}

    def _ptr(self, ip: str) -> str:
        return reverse_name(ip_address(str(ip)), self._reverse)

    def _compile(self, name: str, settings: TemplateSettings) -> _Template:
        path: tuple[str | int, ...] = ("templates", name)
        when = self._maybe(settings.when, (*path, "when"))
        records = [self._record(record, (*path, "records", at)) for at, record in enumerate(settings.records)]
        return _Template(settings=settings, when=when, records=tuple(records))

    def _record(self, settings: RecordSettings, path: tuple[str | int, ...]) -> _Record:
        return _Record(
            settings=settings,
            path=path,
            name=self._must(settings.name, (*path, "name")),
            rdtype=self._must(settings.type, (*path, "type")),
            data=self._must(settings.data, (*path, "data")),
            when=self._maybe(settings.when, (*path, "when")),
            ttl=self._settings.defaults.ttl if settings.ttl is None else settings.ttl,
            is_wildcard=settings.name.lstrip().startswith("*"),
        )

    def _maybe(self, source: str | None, path: tuple[str | int, ...]) -> template.Compiled | None:
        return None if source is None else self._must(source, path)

    def _must(self, source: str, path: tuple[str | int, ...]) -> template.Compiled:
        try:
            return self._engine.compile(source)
        except RenderError as exc:
            raise LoadFaultError(Fault(path=path, message=str(exc))) from None

    def render(self, host: Host) -> Rendered:
        """Return the contributions of a host to all targets.

        A fault of one record is a fault of the host; a record that is `optional` and has no reverse zone is a warning.
        """
        made: list[Contribution] = []
        faults: list[RecordFault] = []
        keeps = False
        for name, compiled in self._templates.items():
            if host.hostname is None:
                keeps = keeps or compiled.settings.absent == "keep"
            elif not host.is_absent:
                made += self._render_template(name, compiled, host, faults, placeholder=False)
            elif compiled.settings.placeholder is not None:
                seen = replace(host, ips=(compiled.settings.placeholder,))
                made += self._render_template(name, compiled, seen, faults, placeholder=True)
            else:
                keeps = keeps or compiled.settings.absent == "keep"
        contributions = tuple(dict.fromkeys(made)) if len(made) > 1 else tuple(made)
        return Rendered(
            contributions,
            faults=tuple([fault for fault in faults if not fault.optional]),
            warnings=tuple([fault for fault in faults if fault.optional]),
            keeps=keeps,
        )

    def _render_template(
        self, name: str, compiled: _Template, host: Host, faults: list[RecordFault], *, placeholder: bool
    ) -> list[Contribution]:
        made: list[Contribution] = []
        variables = self.variables(host)
        shown = host.hostname or ""
        try:
            if compiled.when is not None and not template.truth(template.render(compiled.when, variables)):
                return made
        except RenderError as exc:
            faults.append(RecordFault(("templates", name, "when"), shown, str(exc)))
            return made
        for record in compiled.records:
            for item in _items(record.settings, host):
                try:
                    variables.item = item
                    made += self._one(record, variables, host, placeholder=placeholder)
                except NoReverseZoneError as exc:
                    if not placeholder:
                        optional = record.settings.optional
                        faults.append(RecordFault(record.path, shown, str(exc), exc.family, optional))
                except DnsUpdateError as exc:
                    faults.append(RecordFault(record.path, shown, str(exc)))
        return made

    def _one(self, record: _Record, variables: "Variables", host: Host, *, placeholder: bool) -> list[Contribution]:
        if record.when is not None and not template.truth(template.render(record.when, variables)):
            return []
        rdtype = rdata.known_type(template.render(record.rdtype, variables).strip())
        if placeholder and rdtype == "PTR":
            return []  # each unused name would add one more PTR of the same address
        name = owner_name(template.render(record.name, variables).strip())
        if name[0] == "*" and not record.is_wildcard:
            raise RenderError(f"name '{name}' is a wildcard, which a template has to say itself")
        data = rdata.canonical(rdtype, template.render(record.data, variables).strip())
        rest = (name, rdtype, data, record.ttl, host.uuid, host.gen, record.settings.shared, placeholder)
        return [Contribution(zone.target, zone.name, *rest) for zone in self._zones(record, name)]

    def _zones(self, record: _Record, name: str) -> Sequence[ZoneSettings]:
        # What holds a name holds its siblings too, but for a zone's own name.
        place = name if name in self._apexes else name.partition(".")[2]
        if place in self._zone_of:
            holding = self._zone_of[place]
        else:
            holding = self._settings.zones_holding(name)
            if len(self._zone_of) < _MEMO:
                self._zone_of[place] = holding
        if not holding:
            raise RenderError(f"name '{name}' is in none of the configured zones")
        if name[0] == "_" and name.startswith((MARKER_LABEL, FENCE_LABEL)):
            raise RenderError(f"name '{name}' is reserved for our own marks")
        target = record.settings.target
        wanted = holding if target is None else [zone for zone in holding if zone.target == target]
        if not wanted:
            raise RenderError(f"name '{name}' is in no zone of target '{target}'")
        if name in self._apexes and any(zone.name == name and not zone.allow_apex for zone in wanted):
            raise RenderError(f"name '{name}' is a zone's apex; set allow_apex on the zone if you mean it")
        return wanted

    def variables(self, host: Host) -> "Variables":
        """Return what templates can read of a host."""
        return Variables(host, self._settings)

    def types_of(self, target: str) -> frozenset[str]:
        """Return the record types that templates can make at a target; others at our names are not ours."""
        del target  # a type is rendered too, so what the sources say is all that can be known
        sources = [record.type for found in self._settings.templates.values() for record in found.records]
        return frozenset(source.strip().upper() for source in sources if "{" not in source)


class Variables(Mapping[str, Any]):
    """What templates can read of a host, made when it is asked for: most templates ask for one or two."""

    __slots__ = ("_host", "_settings", "item")

    def __init__(self, host: Host, settings: Settings, item: str | None = None) -> None:
        self._host, self._settings, self.item = host, settings, item

    def __getitem__(self, name: str) -> Any:
        return self.item if name == "item" else _VARIABLES[name](self._host, self._settings)

    def __contains__(self, name: object) -> bool:
        return name in _VARIABLES or name == "item"

    def __iter__(self) -> Iterator[str]:
        yield from _VARIABLES
        yield "item"

    def __len__(self) -> int:
        return len(_VARIABLES) + 1


def _fqdn(host: Host, settings: Settings) -> str:
    domain = host.domain or settings.domain
    return f"{host.hostname or ''}.{domain}" if domain else host.hostname or ""


def _state(host: Host, _: Settings) -> str:
    return "removed" if host.removed else "missing" if host.missing else "running" if host.ips else "down"


def _ptr_domain(host: Host, _: Settings) -> str:
    first = next(iter(host.ipv4), "")
    return ".".join([*reversed(first.split(".")), "in-addr.arpa"]) if first else ""


_VARIABLES: Mapping[str, Callable[[Host, Settings], Any]] = {
    "hostname": lambda host, _: host.hostname or "",
    "domain": lambda host, settings: host.domain or settings.domain,
    "fqdn": _fqdn,
    "uuid": lambda host, _: host.uuid,
    "uuid_prefix": lambda _, settings: settings.owner_id,
    "slot": lambda host, _: host.slot,
    "ips": lambda host, _: _texts(host.ips),
    "ipv4": lambda host, _: _texts(host.ipv4),
    "ipv6": lambda host, _: _texts(host.ipv6),
    "ip_address": lambda host, _: next(iter(host.ipv4), ""),
    "ptr_domain": _ptr_domain,
    "properties": lambda host, _: host.properties,
    "info": lambda host, settings: {name: value for name, value in host.info.items() if name in settings.info},
    "state": _state,
    "first_ping_at": lambda host, _: host.first_ping_at,
}


class LoadFaultError(DnsUpdateError):
    """A template of the configuration does not compile."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _texts(ips: Iterable[str]) -> tuple[template.AddressText, ...]:
    return tuple([template.AddressText(ip) for ip in ips])


def _items(record: RecordSettings, host: Host) -> tuple[str | None, ...]:
    match record.each:
        case None:
            return (None,)
        case "ips":
            return _texts(host.ips)
        case "ipv4":
            return _texts(host.ipv4)
        case "ipv6":
            return _texts(host.ipv6)


class _Any(dict[str, Any]):
    """Node properties of a synthetic host: any name has a value."""

    def __missing__(self, key: str) -> str:
        return "1"


def synthetic_hosts(settings: Settings) -> tuple[Host, ...]:
    """Return three hosts that look like real ones: IPv4 only, IPv6 only, both."""
    networks = [zone.network for zone in settings.reverse_zones]
    v4 = next((str(net[min(7, net.num_addresses - 1)]) for net in networks if net.version == 4), "192.0.2.7")
    v6 = next((str(net[min(7, net.num_addresses - 1)]) for net in networks if net.version == 6), "2001:db8::7")
    names = [name for found in settings.templates.values() for name in prefilled(found.prefill)[:1]] or ["compute1"]
    return tuple(
        Host(
            uuid=f"{settings.owner_id}-7ekkf-{number:015d}",
            hostname=names[0],
            domain=settings.domain,
            ips=ips,
            slot=number,
            properties=_Any(total_cpu_cores=8, total_ram_mb=16000, total_scratch_mb=100000),
            info=_Any(),
            first_ping_at="2026-01-01T00:00:00Z",
        )
        for number, ips in enumerate(((v4,), (v6,), (v4, v6)), start=1)
    )


def load_faults(settings: Settings) -> Iterator[Fault]:
    """Render every template with synthetic hosts; yield what fails, at the record that fails."""
    try:
        renderer = Renderer(settings)
    except LoadFaultError as exc:
        yield exc.fault
        return
    families = {zone.network.version for zone in settings.reverse_zones}
    found = [fault for host in synthetic_hosts(settings) for fault in renderer.render(host).faults]
    # A site of one address family has no reverse zone for the other, and needs none.
    found = [fault for fault in found if not (fault.family and families and fault.family not in families)]
    yield from (Fault(path=path, message=text) for path, text in {fault.path: fault.text for fault in found}.items())
    for name, template_ in settings.templates.items():
        for prefill in prefilled(template_.prefill)[:1]:
            try:
                hostname(prefill, settings.rules)
            except BadNameError as exc:
                yield Fault(path=("templates", name, "prefill"), message=str(exc))
