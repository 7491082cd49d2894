"""What `arv-balance doctor` has to ask the other packages: name servers, and the jobs of our API nodes."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balancer.cli import dnsconfig
from balancer.cli.exits import CommandError

if TYPE_CHECKING:
    from balancer.config.file import Loaded
    from balancer.control.doctor.facts import Dns, DnsFinding, Job
    from dnsupdate.settings import Settings


def dns(loaded: "Loaded", timeout_s: float) -> "Dns | None":
    """Return what the probe of the DNS targets says; None without a `dns:` section."""
    import dnsupdate.service  # noqa: F401 - reads its queries when imported, which no event loop should wait for
    from balancer.control.doctor.facts import Dns
    from balancer.control.doctor.machine import file_facts

    if loaded.config.dns is None:
        return None
    settings, _ = dnsconfig.checked(loaded.config.dns, loaded.document, loaded.config.cluster)
    if settings is None:
        return Dns(fault="the dns: section is not valid")
    targets = settings.targets.items()
    paths = {path for _, target in targets for path in (target.key_file, target.transfer_key_file) if path is not None}
    return Dns(
        findings=tuple(asyncio.run(_findings(settings, timeout_s))),
        writers={name: target.node for name, target in targets if target.kind == "files" and target.node},
        keys=tuple(file_facts(str(path), "DNS key") for path in sorted(paths)),
    )


async def _findings(settings: "Settings", timeout_s: float) -> "list[DnsFinding]":
    names = [name for name, target in settings.targets.items() if target.kind != "files"]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_target(settings, name, timeout_s)) for name in names]
    return [finding for task in tasks for finding in task.result()]


async def _target(settings: "Settings", name: str, timeout_s: float) -> "list[DnsFinding]":
    from balancer.cli.dns import findings
    from balancer.control.doctor.facts import DnsFinding
    from dnsupdate.errors import DnsUpdateError

    try:
        async with asyncio.timeout(timeout_s):
            found = await findings(settings, name, write=False)
    except TimeoutError:
        return [DnsFinding(name, "server", "error", f"no answer within {timeout_s:g} s", "arv-balance dns test")]
    except DnsUpdateError as exc:
        return [DnsFinding(name, "key", "error", str(exc), "tsig-keygen NAME > FILE; the same file on the server")]
    return [DnsFinding(name, one.subject, one.level, one.text, one.hint) for one in found if one.level != "ok"]


def jobs(path: Path | None, timeout_s: float) -> "tuple[tuple[Job, ...] | None, str]":
    """Return the periodic jobs of the API nodes' database, or None and why not."""
    from apiserver.errors import ApiServerError, SettingsError
    from apiserver.settingsfile import load
    from balancer.cli.api import periodic_jobs

    if path is None:
        return None, "give --api-config FILE (ARV_API_CONFIG)"
    try:
        return tuple(_job(row) for row in asyncio.run(_within(timeout_s, periodic_jobs(load(path))))), ""
    except SettingsError as exc:
        raise CommandError(f"{path} cannot be used", why=str(exc)) from exc
    except (ApiServerError, OSError, TimeoutError) as exc:
        return None, f"the database does not answer: {str(exc) or type(exc).__name__}"


async def _within(timeout_s: float, work: Any) -> Any:
    async with asyncio.timeout(timeout_s):
        return await work


def _job(row: "dict[str, Any]") -> "Job":
    from balancer.control.doctor.facts import Job

    return Job(
        name=row["name"],
        every_s=row["every"].total_seconds(),
        next_in_s=row["next_in"].total_seconds(),
        is_running=bool(row["running"]),
        last_error=row["last_error"] or "",
    )
