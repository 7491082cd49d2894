"""The `dns:` section of the configuration file, for the commands of `arv-balance dns`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancer.cli import lookup
from balancer.cli.exits import CommandError, Exit
from balancer.config.errors import did_you_mean

if TYPE_CHECKING:
    from balancer.config.errors import Fault
    from balancer.config.loader import Document
    from dnsupdate.settings import Settings


def settings(config: Path | None) -> "Settings":
    """Return the checked `dns:` section; the rest of the file may be missing or wrong.

    Raises:
        CommandError: there is no file, no section, or it is not valid; all faults with their places.
    """
    from balancer.config.loader import parse

    path = lookup.find(config)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror or "" if isinstance(exc, OSError) else "it is not UTF-8"
        raise CommandError(f"cannot read {path}", why=why, code=Exit.CONFIG) from exc
    document = parse(text, str(path), os.environ)
    if document.faults:
        raise CommandError(_text(list(document.faults), document), code=Exit.CONFIG)
    data = document.data if isinstance(document.data, dict) else {}
    if not isinstance(data.get("dns"), dict):
        raise CommandError(f"{path} has no dns: section", hint="docs/dns.md has one to start with", code=Exit.CONFIG)
    found, faults = checked(data["dns"], document, data.get("cluster"))
    if found is None:
        placed = [replace(fault, span=document.place(fault.loc, at_key=fault.at_key)) for fault in faults]
        raise CommandError(_text(placed, document), code=Exit.CONFIG)
    return found


def checked(section: Any, document: "Document", cluster: object) -> "tuple[Settings | None, list[Fault]]":
    """Return the settings, or None and what is wrong with them."""
    from balancer.config.errors import Fault
    from dnsupdate.errors import SettingsError
    from dnsupdate.loader import load

    places = document.places_below("dns")
    try:
        return load(section, places, owner=str(cluster) if cluster else None), []
    except SettingsError as exc:
        return None, [
            Fault(
                ("dns", *fault.path),
                fault.message,
                fault.hint,
                at_key=places.get((*fault.path, "@key")) == (fault.line, fault.column),
            )
            for fault in exc.faults
        ]


def _text(faults: "list[Fault]", document: "Document") -> str:
    from balancer.config import masking
    from balancer.config.errors import as_text
    from balancer.config.schema import Config

    class Masked:
        path = document.path
        lines = masking.masked_lines(document, Config.model_fields)

    return as_text(faults, Masked())


def targets(settings: "Settings", target: str | None) -> list[str]:
    """Return the names of all targets, or the one that was asked for."""
    if target is not None and target not in settings.targets:
        known = ", ".join(settings.targets)
        raise CommandError(
            f"there is no target {target!r}",
            why=f"targets are {known}",
            hint=did_you_mean(target, settings.targets),
            code=Exit.USAGE,
        )
    return [target] if target is not None else list(settings.targets)


def seconds(text: str) -> float:
    """Return a span of time from the command line."""
    from balancer.durations import parse

    try:
        return parse(text)
    except ValueError as exc:
        raise CommandError(str(exc), code=Exit.USAGE) from exc
