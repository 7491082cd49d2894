"""The work of a sender whose target is a directory on the designated node: the classic strategy, without its holes.

After the commit, not before; all nodes' pings, not those of one; a bad file is taken back before the name server reads
it; one check and one reload for a burst of hosts. In the tables a host's file is a record of type FILE in zone "".
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dnsupdate import commands, template
from dnsupdate.batch import Batch, Sent, booking, prepare
from dnsupdate.booking import Due, Lease
from dnsupdate.diagnosis import Diagnosis, Kind, Seen
from dnsupdate.errors import CommandFailedError, RenderError
from dnsupdate.folder import Folder, digest
from dnsupdate.host import Host
from dnsupdate.plan import Change, Policy
from dnsupdate.records import Contribution, RecordFault, Rendered, Renderer
from dnsupdate.sender import Step
from dnsupdate.settings import TargetSettings
from dnsupdate.store import Store

_BATCH = 1000
FILE, NO_ZONE = "FILE", ""

Run = Callable[..., Awaitable[str]]


class FileTemplate:
    """The template of a host's file: a classic `%{name}` one, or Jinja2 when it ends in `.j2`."""

    def __init__(self, source: str, *, is_classic: bool) -> None:
        self._source = source
        self._compiled = None if is_classic else template.Engine({}).compile(source)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the file.

        Raises:
            RenderError: an unknown name, with its line.
        """
        if self._compiled is not None:
            foreign = {name: template.fit_for_lines(variables[name], name) for name in ("properties", "info")}
            return template.render(self._compiled, {**variables, **foreign})
        return template.classic(self._source, classic_variables(variables))


def classic_variables(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the four that classic templates and commands know."""
    return {name: str(variables[name]) for name in template.CLASSIC_NAMES}


def read_template(path: Path) -> FileTemplate:
    """Read a template file. Blocks.

    Raises:
        RenderError: it cannot be read or compiled.
    """
    try:
        return FileTemplate(path.read_text(encoding="utf-8"), is_classic=template.is_classic(path.name))
    except OSError as exc:
        raise RenderError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise RenderError(f"{path} is not text") from exc


@dataclass(frozen=True, slots=True)
class FilesConfig:
    """What does not change while the process runs."""

    target: str
    settings: TargetSettings
    template: FileTemplate
    owner: str


class Files:
    """One directory."""

    def __init__(
        self,
        *,
        config: FilesConfig,
        renderer: Renderer,
        store: Store,
        folder: Folder,
        clock: Callable[[], float],
        run: Run = commands.run,
    ) -> None:
        self._config, self._renderer, self._store, self._folder = config, renderer, store, folder
        self._clock, self._run = clock, run
        self._contents: dict[str, str] = {}  # by digest, of the batch at hand
        self._compared_at: float | None = None
        self._reload_due = False
        self._gone: set[str] = set()  # hosts that lost their file since there was last nothing to do

    async def begin(self, lease: Lease, state: dict[str, Any]) -> None:
        """Trust nothing that another node may have left."""
        del lease
        self._compared_at = None
        self._reload_due = bool(state.get("reload_due"))

    async def close(self) -> None:
        """Nothing is held open."""

    async def step(self, lease: Lease) -> Step:
        """Write what is due, check it, have it loaded; or compare the directory with the table."""
        if self._compared_at is None or self._clock() - self._compared_at >= self._config.settings.reconcile:
            self._compared_at = self._clock()
            await self._compare(lease)
        due, batch = await self._look(lease)
        if not due and not batch.unsure:
            self._gone.clear()
            if self._reload_due:
                return await self._reload(lease, "reloaded")
            await self._store.renew(lease)
            return Step("all is published", lease)
        await asyncio.sleep(self._config.settings.debounce)  # the rest of the burst
        due, batch = await self._look(lease)
        return await self._write_all(lease, batch)

    async def _look(self, lease: Lease) -> tuple[list[Due], Batch]:
        self._contents.clear()
        due = await self._store.due(lease, _BATCH)
        return due, await prepare(self._store, lease.target, due, self._render)

    async def _compare(self, lease: Lease) -> None:
        """A file that is missing or was changed by hand is written again, with all that its host has."""
        published, _ = await self._store.zone(lease, NO_ZONE)
        there = await asyncio.to_thread(self._folder.read, [one.name for one in published])
        wrong = [one for one in published if _digest(there[one.name]) != one.rdata]
        if wrong:
            await self._store.note_unsure(lease, [(NO_ZONE, one.name, FILE) for one in wrong])
            await self._store.redo(lease, [one.host for one in wrong])
            shown = ", ".join(sorted(one.name for one in wrong)[:20])
            await self._store.event(lease.target, "drift", f"{self._folder.path}: written again: {shown}")

    def _render(self, host: Host) -> Rendered:
        """Return the one record that stands for a host's file."""
        settings, yields = self._config.settings, False
        if host.is_absent and host.hostname is not None and settings.placeholder is not None:
            host, yields = replace(host, ips=(settings.placeholder,)), True
        elif host.is_absent or host.hostname is None:
            return Rendered(keeps=settings.absent == "keep")
        try:
            content = self._config.template.render(self._renderer.variables(host))
        except RenderError as exc:
            path = ("targets", self._config.target, "template")
            return Rendered(faults=(RecordFault(path, host.hostname or "", str(exc)),))
        self._contents[digest(content)] = content
        return Rendered(
            contributions=(
                Contribution(
                    self._config.target,
                    NO_ZONE,
                    host.hostname or "",
                    FILE,
                    digest(content),
                    0,
                    host.uuid,
                    host.gen,
                    yields=yields,
                ),
            )
        )

    async def _write_all(self, lease: Lease, batch: Batch) -> Step:
        policy = Policy(self._config.owner, ownership="none", conflict="overwrite")
        plan = batch.plan(policy, self._config.settings.brake, self._config.target, self._gone)
        sent = Sent()
        await self._store.renew(lease)  # the directory knows no fence: nothing is written without the lease
        try:
            await self._apply(batch, [one for one in plan.changes if self._is_writable(one)], sent)
        except CommandFailedError as exc:
            return Step(str(exc), lease, trouble=_trouble(exc))
        if sent.applied:
            self._reload_due = True
            await self._store.remember(lease, {"reload_due": True})
        written = booking(batch, sent, plan, lambda _: True)
        retry = self._config.settings.retry
        await self._store.book(lease, written, backoff=(retry.first, retry.most))
        text = f"{len(sent.applied)} files for {len(batch.due)} hosts"
        return await self._reload(lease, text) if sent.applied else Step(text, lease)

    def _is_writable(self, change: Change) -> bool:
        """Another host's file that is wrong comes with that host, which is dirty too."""
        return change.deletes or change.after[0].rdatas[0] in self._contents

    async def _apply(self, batch: Batch, changes: list[Change], sent: Sent) -> None:
        """Write files and check them; halve what does not pass, until only the bad ones are left out."""
        if not changes:
            return
        wanted = {one.name: None if one.deletes else self._contents[one.after[0].rdatas[0]] for one in changes}
        before = await asyncio.to_thread(self._folder.read, wanted)
        await asyncio.to_thread(self._folder.write, wanted)
        try:
            await self._check(batch, changes)
        except CommandFailedError as exc:
            await asyncio.to_thread(self._folder.write, before)
            if len(changes) == 1:
                sent.refuse(changes, str(exc))
                return
            await self._apply(batch, changes[: len(changes) // 2], sent)
            await self._apply(batch, changes[len(changes) // 2 :], sent)
        except BaseException:
            await asyncio.to_thread(self._folder.write, before)
            raise
        else:
            sent.applied |= {one.key for one in changes}
            sent.settled |= {(NO_ZONE, one.name, FILE) for one in changes}

    async def _check(self, batch: Batch, changes: list[Change]) -> None:
        settings = self._config.settings
        if settings.check:
            await self._run(settings.check, variables={}, timeout_s=settings.command_timeout)
        if settings.update:
            names = {one.name for one in changes}
            for due in batch.due:
                if due.host is not None and due.host.hostname in names:
                    await self._update(due.host)

    async def _update(self, host: Host) -> None:
        settings = self._config.settings
        if host.is_absent:
            host = replace(host, ips=(settings.placeholder,) if settings.placeholder else ())
        variables = classic_variables(self._renderer.variables(host))
        argv = commands.filled(settings.update, variables)
        await self._run(argv, variables=variables, timeout_s=settings.command_timeout)

    async def _reload(self, lease: Lease, text: str) -> Step:
        """Once for the burst, and last; when it fails it is tried again."""
        settings = self._config.settings
        try:
            if settings.reload_command:
                await self._run(settings.reload_command, variables={}, timeout_s=settings.command_timeout)
            if settings.reload:
                await asyncio.to_thread(self._folder.ask_for_reload, settings.reload)
        except CommandFailedError as exc:
            return Step(str(exc), lease, trouble=_trouble(exc))
        self._reload_due = False
        await self._store.remember(lease, {"reload_due": False})
        return Step(text, lease, busy=True)


def _digest(content: str | None) -> str | None:
    return None if content is None else digest(content)


def _trouble(exc: CommandFailedError) -> Diagnosis:
    return Diagnosis(Kind.UNABLE, str(exc), "", Seen(signed=True))
