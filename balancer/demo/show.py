"""The show: start the site, send traffic, say what happens, and remove all at the end."""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from balancer.demo import site, traffic
from balancer.errors import BalanceError

CLIENTS = 8
START_DEADLINE_S = 30.0
_SEND_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a demo saw; `failed` must be 0."""

    done: int
    failed: int
    websocket_echoes: int
    failures: list[str]


class Show:
    """One run of the demo. `say` gets whole lines, `tick` a line that replaces the last tick."""

    def __init__(self, layout: site.Layout, say: Callable[[str], None], tick: Callable[[str], None]) -> None:
        self._layout, self._say, self._tick = layout, say, tick
        self._tally = traffic.Tally()

    async def run(self, seconds: float | None) -> Result:
        """Run until Ctrl-C or for `seconds`; everything that was started is ended and the folder removed.

        Raises BalanceError when something does not start; the log's last lines stand in the message.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        began = time.monotonic()
        try:
            async with self._site(), asyncio.TaskGroup() as group:
                clients = [group.create_task(task, name="demo client") for task in self._clients()]
                self._next_steps(time.monotonic() - began)
                group.create_task(self._watch(stop, seconds, clients), name="demo clock")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        tally = self._tally
        return Result(tally.done, tally.failed, tally.websocket_echoes, tally.failures)

    @asynccontextmanager
    async def _site(self) -> AsyncIterator[None]:
        layout = self._layout
        await asyncio.to_thread(site.write, layout)
        commands = [site.node_command(name, port) for name, port in layout.node_ports.items()]
        commands.append(site.balancer_command(layout))
        async with AsyncExitStack() as ending:
            ending.push_async_callback(asyncio.to_thread, shutil.rmtree, layout.folder, ignore_errors=True)
            processes = []
            for command in commands:
                process = await site.start(layout, command)
                ending.push_async_callback(site.stop, process)
                processes.append(process)
            await self._until_serving(processes)
            yield
            self._say("stopping: the balancer drains, then the nodes end")

    async def _until_serving(self, processes: list[asyncio.subprocess.Process]) -> None:
        began = time.monotonic()
        while not await self._answers():
            dead = next((p for p in processes if p.returncode is not None), None)
            if dead is not None or time.monotonic() - began > START_DEADLINE_S:
                reason = f"a process ended with {dead.returncode}" if dead else "no answer within 30 s"
                log = await asyncio.to_thread(_tail, self._layout.log)
                raise BalanceError(f"the demo did not start: {reason}\n{log}")
            await asyncio.sleep(0.05)
        for name, port in self._layout.node_ports.items():
            self._say(f" ✓ {name}  http://127.0.0.1:{port}")
        self._say(f" ✓ balancer  {self._layout.url}  least requests over {len(self._layout.node_ports)} nodes")

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._layout.balancer_port)
                try:
                    writer.write(b"GET /_health/ping HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    def _clients(self) -> list[Coroutine[None, None, None]]:
        url, tally = self._layout.url, self._tally
        readers = [traffic.reads_and_writes(url, tally, number) for number in range(CLIENTS)]
        return [*readers, traffic.websocket_echo(url, tally), traffic.curl_reads(url, tally)]

    def _next_steps(self, seconds: float) -> None:
        env = self._layout.folder / "env"
        self._say(f" ✓ load: {CLIENTS} clients, a WebSocket, curl  (up in {seconds:.1f} s)")
        self._say(
            f"\n   In another terminal:  source {_relative(env)}\n"
            f"     curl -i {self._layout.url}/arvados/v1/collections\n"
            "     arv-balance status -w                arv-balance nodes drain api2 --reason 'try it'\n"
            "     arv-balance nodes undrain api2       arv-balance explain GET /arvados/v1/collections\n"
            "     pkill -9 -f 'echo_node.py --name api3'\n"
        )

    async def _watch(self, stop: asyncio.Event, seconds: float | None, clients: list[asyncio.Task[None]]) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        last_done, last_at = 0, time.monotonic()
        while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()
            now, done = time.monotonic(), self._tally.done
            self._tick(self._line((done - last_done) / max(now - last_at, 1e-3)))
            last_done, last_at = done, now
        for client in clients:
            client.cancel()

    def _line(self, rate: float) -> str:
        tally = self._tally
        nodes = " · ".join(f"{name} {count}" for name, count in sorted(tally.by_node.items()))
        return (
            f" {rate:.0f} req/s  p50 {tally.percentile_ms(0.5):.0f} ms  p95 {tally.percentile_ms(0.95):.0f} ms  "
            f"{tally.failed} failed  [{nodes}]"
        )


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as exc:
        return f"(no log: {exc})"


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run(folder: Path, nodes: int, seconds: float | None) -> Result:
    """Run the demo in `folder` and print as it goes; ticks replace each other on a terminal only."""
    terminal = sys.stderr.isatty()
    ticks = 0

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def tick(line: str) -> None:
        nonlocal ticks
        ticks += 1
        if terminal:
            sys.stderr.write(f"\r\033[K{line}   Ctrl-C to stop")
            sys.stderr.flush()
        elif ticks % 5 == 1:
            say(line)

    return asyncio.run(Show(site.plan(folder.resolve(), nodes), say, tick).run(seconds))
