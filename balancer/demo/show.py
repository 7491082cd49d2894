"""The show: start the site, send traffic, say what happens, and remove all at the end."""

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from apiserver.errors import ApiServerError
from balancer.demo import actions, compute, layout, names, official, traffic
from balancer.demo.processes import python, tail
from balancer.demo.scenes import playable
from balancer.demo.site import Clock, Site, opened
from balancer.demo.stage import AccessLog, Printer
from balancer.demo.stopping import StopSign
from balancer.demo.tally import Tally
from balancer.demo.ticker import Ticker
from balancer.errors import BalanceError

RECORDS_S = 30.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """How a demo is run. `client`: the environment of the official client. `seconds`: None is until Ctrl-C."""

    folder: Path
    nodes: int
    echo: bool
    client: Path
    seconds: float | None
    script: bool
    scene_words: Sequence[str] = ()  # options that each scene of a script gets too


@dataclass(frozen=True, slots=True)
class Result:
    """What a demo saw. `broken`: scenes whose promise did not hold."""

    tally: Tally
    broken: list[str]

    @property
    def is_good(self) -> bool:
        """Whether no request failed and all promises held."""
        return not self.tally.failed and not self.broken


class Show:
    """One run of the demo."""

    def __init__(self, options: Options, printer: Printer) -> None:
        self._options, self._say = options, printer
        self._tally = Tally()
        self._broken: list[str] = []

    async def run(self) -> Result:
        """Run until Ctrl-C, for a while, or through the scenes; everything is ended and removed at the end.

        Raises BalanceError when something does not start; the end of its log stands in the message.
        """
        stop = StopSign()
        with stop.watched():
            await asyncio.to_thread(layout.claim, self._options.folder)
            where = layout.plan(self._options.folder, self._options.nodes, echo=self._options.echo)
            with closing(where.ports):
                await self._play(where, stop)
        return Result(self._tally, self._broken)

    async def _play(self, where: layout.Layout, stop: StopSign) -> None:
        began = time.monotonic()
        async with opened(where, self._say.done) as site, self._traffic(site):
            stop.started()
            self._say.done("everything is up", time.monotonic() - began)
            if self._options.script:
                await self._script(site, stop.asked)
            else:
                await self._next_steps(site)
                await self._watch(site, stop.asked)
            self._say.line("\nstopping: the balancer drains, then the nodes end")

    @asynccontextmanager
    async def _traffic(self, site: Site) -> AsyncIterator[None]:
        """Send traffic, and answer scenes."""
        target = traffic.Target(site.layout, site.secrets.root, self._tally)
        async with (
            actions.served(site.layout.remote, actions.Actions(site, self._tally).by_name),
            asyncio.TaskGroup() as group,
        ):
            clock = Clock(self._say.done)
            tasks = [group.create_task(work, name="demo client") for work in traffic.clients(target)]
            tasks += [group.create_task(work, name="demo client") for work in self._official(site, target)]
            if not site.layout.echo:
                for number, path in enumerate(await compute.registered(target)):
                    tasks.append(group.create_task(compute.ping(target, path, number), name="compute node"))
            official_too = ", official client" if self._client() and not site.layout.echo else ""
            clients = f"{traffic.READERS} readers, {traffic.WRITERS} writers, WebSocket, curl{official_too}"
            clock.say(f"traffic     {clients}")
            if not site.layout.echo and self._client() is None:
                self._say.line("   (the official client is not there: tools/official-client makes its environment)")
            try:
                if not site.layout.echo:
                    await self._records(site, target, clock)
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def _client(self) -> Path | None:
        return official.find(self._options.client)

    def _official(self, site: Site, target: traffic.Target) -> list[Coroutine[None, None, None]]:
        client = self._client()
        return [official.run(target, site.processes, client)] if client and not site.layout.echo else []

    async def _records(self, site: Site, target: traffic.Target, clock: Clock) -> None:
        """Wait until each compute node's name leads to its address. Raises BalanceError."""
        deadline, log = time.monotonic() + RECORDS_S, AccessLog(site.layout.access_log, after=0)
        found: dict[str, str] = {}
        async with target.client() as client:
            while len(found) < compute.COUNT or not await self._lead_there(site, found):
                if time.monotonic() > deadline:
                    said = await asyncio.to_thread(tail, site.layout.logs / "api1.log")
                    raise BalanceError(f"no records of {sorted(found)} at the name server in time\n{said}")
                await asyncio.sleep(LOOK_S)
                with suppress(httpx.HTTPError):
                    found = await compute.names(client)
        command, output = await names.dig(site.layout, min(found))
        pinged = {entry["arv.node"] for entry in log.entries() if entry["arv.route_class"] == "node-ping"}
        clock.say(f"DNS records {len(found)} compute nodes; their pings reach {', '.join(pinged)} alone")
        self._say.command(command)
        self._say.line(f"   {' '.join(output.split())}")

    async def _lead_there(self, site: Site, found: dict[str, str]) -> bool:
        return all([await names.addresses(site.layout, name) == [address] for name, address in found.items()])

    async def _next_steps(self, site: Site) -> None:
        where = site.layout
        folder = shlex.quote(_relative(where.folder))
        lines = [
            "",
            f"   Dashboard (the link logs in once):  {await site.dashboard()}",
            f"   In another terminal:  source {folder}/env",
            "     arv-balance status -w                    one screen, live",
            "     arv-balance nodes drain api2             takes a node out; nothing fails",
            "     arv-balance explain GET /arvados/v1/users",
            f"     arv-balance demo {'|'.join(playable(echo=where.echo))}",
            f"     curl -i {where.url}/arvados/v1/config",
            "   Ctrl-C here stops and removes all.",
            "",
        ]
        for line in lines:
            self._say.line(line)

    async def _watch(self, site: Site, stop: asyncio.Event) -> None:
        """Show once a second how it goes: on a terminal in one line, else a line every 5 s."""
        ticker = Ticker(self._say, self._tally)
        seconds = self._options.seconds
        deadline = None if seconds is None else time.monotonic() + seconds
        while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()
            with suppress(httpx.HTTPError):
                ticker.show(self._tally, await site.status())

    async def _script(self, site: Site, stop: asyncio.Event) -> None:
        """Play all scenes, one after the other, each as the command that people type."""
        for name in playable(echo=site.layout.echo):
            if stop.is_set():
                break
            words = ["--folder", str(site.layout.folder), *self._options.scene_words]
            if await self._typed(["demo", name], words, site, stop) != 0:
                self._broken.append(name)
        await self._typed(["ledger"], [], site, stop)

    async def _typed(self, words: list[str], hidden: list[str], site: Site, stop: asyncio.Event) -> int:
        """Run a command of ours as if it was typed; return its exit code. `hidden` words are not shown."""
        self._say.line(f"\n{self._say.paint('bold', '$ arv-balance ' + ' '.join(words))}")
        admin = {"ARV_BALANCE_ADMIN": f"unix:{site.layout.admin_socket}"}
        process = await asyncio.create_subprocess_exec(
            *python("balancer", *words, *hidden), stdin=asyncio.subprocess.DEVNULL, env={**os.environ, **admin}
        )
        return await _ended(process, stop)


async def _ended(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int:
    """Wait for a process, which is ended when the demo is told to stop."""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_end_when(stop, process), name="demo stop")
        code = await process.wait()
        watch.cancel()
    return code


async def _end_when(stop: asyncio.Event, process: asyncio.subprocess.Process) -> None:
    await stop.wait()
    with suppress(ProcessLookupError):
        process.terminate()


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run(options: Options, printer: Printer) -> Result:
    """Run a demo. Raises BalanceError when it does not start, KeyboardInterrupt when that was broken off."""
    try:
        return asyncio.run(Show(options, printer).run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except ApiServerError as exc:
        raise BalanceError(str(exc)) from exc
    except BaseExceptionGroup as group:
        found = group.subgroup((BalanceError, ApiServerError))
        if found is None:
            raise
        first: BaseException = found
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise BalanceError(str(first)) from group
