"""Settings out of plain values, as a YAML loader gives them; every fault has its place."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from pydantic import ValidationError

from dnsupdate.errors import BadNameError, Fault, SettingsError
from dnsupdate.records import load_faults
from dnsupdate.settings import (
    AddressRules,
    Brake,
    Defaults,
    FollowSettings,
    NameRules,
    Path_,
    Positions,
    RecordSettings,
    RetrySettings,
    Section,
    Settings,
    SpoolSettings,
    TargetSettings,
    TemplateSettings,
    ZoneSettings,
    prefilled,
)
from dnsupdate.wording import near, wording


def load(mapping: Mapping[str, Any], positions: Positions | None = None, *, owner: str | None = None) -> Settings:
    """Return the checked settings.

    Args:
        mapping: the `dns:` section as plain values.
        positions: path below `dns` to (line, column), from 1; a key's own place under the path plus `"@key"`.
        owner: the cluster's id, used when the section has no `owner`.

    Raises:
        SettingsError: with every fault.
    """
    placed = positions or {}
    values = _spelled_out(mapping)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as exc:
        raise SettingsError([_fault(error, placed) for error in exc.errors()]) from None
    if settings.owner is None and owner is not None:
        settings = settings.model_copy(update={"owner": owner})
    faults = [*_references(settings), *_kinds(settings), *_lifecycles(settings)]
    if not faults:
        faults = list(load_faults(settings))
    if faults:
        raise SettingsError([_placed(fault, placed) for fault in faults])
    return settings


def _spelled_out(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Write `absent: {placeholder: 127.40.4.0}` as `placeholder: 127.40.4.0`, the way the settings keep it."""
    values = dict(mapping)
    for section in ("templates", "targets"):
        entries = values.get(section)
        if not isinstance(entries, Mapping):
            continue
        values[section] = {
            name: {**entry, "absent": f"placeholder: {entry['absent']['placeholder']}"}
            if isinstance(entry, Mapping)
            and isinstance(entry.get("absent"), Mapping)
            and list(entry["absent"]) == ["placeholder"]
            else entry
            for name, entry in entries.items()
        }
    return values


def _fault(error: Any, positions: Positions) -> Fault:
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        hint = near(str(path[-1]), _known_keys(path[:-1]), "known keys")
        return _placed(Fault(path=path, message=f"unknown key '{path[-1]}'", hint=hint), positions, key=True)
    message, hint = wording(error)
    return _placed(Fault(path=path, message=message, hint=hint), positions)


_SHAPES: dict[str, type[Section]] = {
    "targets": TargetSettings,
    "zones": ZoneSettings,
    "templates": TemplateSettings,
    "records": RecordSettings,
    "defaults": Defaults,
    "addresses": AddressRules,
    "names": NameRules,
    "follow": FollowSettings,
    "spool": SpoolSettings,
    "retry": RetrySettings,
    "brake": Brake,
}


def _known_keys(path: Path_) -> list[str]:
    named = [part for part in path if part in _SHAPES]
    return sorted((_SHAPES[str(named[-1])] if named else Settings).model_fields)


def _placed(fault: Fault, positions: Positions, *, key: bool = False) -> Fault:
    """Give the fault the place of its value, or of the closest thing around it that has one."""
    found = positions.get((*fault.path, "@key")) if key else None
    path = fault.path
    while found is None and path:
        found = positions.get(path)
        path = path[:-1]
    line, column = found or (0, 0)
    return Fault(path=fault.path, message=fault.message, line=line, column=column, hint=fault.hint)


def _references(settings: Settings) -> Iterable[Fault]:
    """Names that must lead somewhere, networks and zone names that must make sense."""
    seen: set[tuple[str, str]] = set()
    for index, zone in enumerate(settings.zones):
        where: Path_ = ("zones", index)
        if zone.target not in settings.targets:
            hint = near(zone.target, settings.targets)
            yield Fault(path=(*where, "target"), message=f"no target '{zone.target}'", hint=hint)
        elif settings.targets[zone.target].kind == "files":
            yield Fault(
                path=(*where, "target"), message="a target of kind files has no zones, its template has the records"
            )
        if (zone.name, zone.target) in seen:
            yield Fault(path=(*where, "name"), message=f"zone '{zone.name}' is at target '{zone.target}' twice")
        seen.add((zone.name, zone.target))
        for place, network in enumerate(zone.networks):
            try:
                ip_network(network)
            except ValueError as exc:
                yield Fault(path=(*where, "networks", place), message=str(exc))
    for name, template in settings.templates.items():
        for index, record in enumerate(template.records):
            if record.target is not None and record.target not in settings.targets:
                path: Path_ = ("templates", name, "records", index, "target")
                yield Fault(
                    path=path, message=f"no target '{record.target}'", hint=near(record.target, settings.targets)
                )


_NEEDED = {"rfc2136": ("servers", "key_file"), "builtin": ("servers", "key_file"), "files": ("dir", "template")}


def _kinds(settings: Settings) -> Iterable[Fault]:
    """What each kind of target needs."""
    for name, target in settings.targets.items():
        for key in _NEEDED[target.kind]:
            if not getattr(target, key):
                yield Fault(path=("targets", name), message=f"a target of kind {target.kind} needs '{key}'")
        for index, server in enumerate(target.servers):
            try:
                ip_address(server)
            except ValueError:
                message = f"'{server}' is not an address; name servers are reached by address, not by a name they serve"
                yield Fault(path=("targets", name, "servers", index), message=message)
        if target.retry.first > target.retry.most or target.retry.first <= 0:
            yield Fault(path=("targets", name, "retry"), message="first must be above 0 and not above most")
        if target.timeout * 2 >= target.lease:
            yield Fault(path=("targets", name, "timeout"), message="must be less than half of lease")


def _lifecycles(settings: Settings) -> Iterable[Fault]:
    """`absent` and `prefill` of templates and of targets of kind files."""
    holders: list[tuple[Path_, TemplateSettings | TargetSettings]] = [
        *((("templates", name), template) for name, template in settings.templates.items()),
        *((("targets", name), target) for name, target in settings.targets.items()),
    ]
    for path, holder in holders:
        if holder.placeholder is not None:
            try:
                ip_address(holder.placeholder)
            except ValueError:
                yield Fault(path=(*path, "absent"), message=f"placeholder '{holder.placeholder}' is not an address")
        elif holder.absent not in ("delete", "keep"):
            message = "must be delete, keep or {placeholder: ADDRESS}"
            yield Fault(path=(*path, "absent"), message=message)
        if holder.prefill and holder.placeholder is None:
            yield Fault(path=(*path, "prefill"), message="needs `absent: {placeholder: ADDRESS}` to fill with")
        try:
            prefilled(holder.prefill)
        except (ValueError, BadNameError) as exc:
            yield Fault(path=(*path, "prefill"), message=str(exc))
