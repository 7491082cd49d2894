"""Makes a snapshot true: first the parent (sockets, workers to come), then every running worker."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from balancer import scoreboard as sb
from balancer import snapshot as codec
from balancer.control.board import Board
from balancer.control.link import Link, close_all
from balancer.errors import BalanceError, WireError
from balancer.model import Snapshot
from balancer.wire import Message

logger = logging.getLogger(__name__)

APPLY_S = 20.0  # the parent opens sockets and starts workers
ACKNOWLEDGE_S = 2.0  # a worker that takes longer is stuck; it finds the snapshot in its socket when it goes on
CONNECT_S = 2.0
CALL_S = 2.0
BACKLOG = 4096
RECONNECT_S = 0.02  # a worker that starts opens its socket within milliseconds

Notify = Callable[[Message], None]


class PublishError(BalanceError):
    """The parent refused a snapshot; everything runs on with the one before."""


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """A running worker as the parent tells it."""

    slot: int
    pid: int
    socket: str
    is_stopping: bool = False

    @classmethod
    def from_message(cls, item: Mapping[str, Any]) -> "WorkerAddress":
        """Read one of a message's `workers`."""
        return cls(int(item["slot"]), int(item["pid"]), str(item["socket"]), bool(item.get("stopping")))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A snapshot, the PEM texts it refers to by index, and the accept backlog of each bind."""

    snapshot: Snapshot
    pems: tuple[bytes, ...] = ()
    backlogs: Mapping[str, int] = field(default_factory=dict)


class WorkerLink:
    """The connection to one worker: snapshots out, answers and events in."""

    def __init__(self, address: WorkerAddress, *, notify: Notify) -> None:
        self.address = address
        self.connected = asyncio.Event()
        self._notify = notify
        self._link: Link | None = None
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._calling = asyncio.Lock()

    async def run(self) -> None:
        """Hold the connection, again and again, until cancelled: the parent tells when the worker is gone."""
        while True:
            try:
                async with await Link.connect(self.address.socket, deadline_s=CONNECT_S) as link:
                    await self._serve(link)
            except WireError as exc:
                logger.debug("worker is not connected", extra={"worker": self.address.slot, "error": str(exc)})
            await asyncio.sleep(RECONNECT_S)

    async def _serve(self, link: Link) -> None:
        self._link = link
        self.connected.set()
        try:
            async for message, fds in link.messages():
                close_all(fds)
                self._take(message)
        finally:
            self._link = None
            self.connected.clear()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(WireError(f"worker {self.address.slot} is gone"))

    async def call(self, message: Message, answer: str, fds: tuple[int, ...] = ()) -> Message:
        """Send a message and wait for its answer. Raises WireError when the worker is gone, TimeoutError when stuck."""
        async with self._calling:
            if self._link is None:
                raise WireError(f"worker {self.address.slot} is not connected")
            future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            self._answers[answer] = future
            try:
                await self._link.send(message, fds)
                return await future
            finally:
                self._answers.pop(answer, None)

    def _take(self, message: Message) -> None:
        kind = str(message.get("type"))
        waiting = self._answers.get("applied" if kind == "refused" else kind)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
        elif kind == "event":
            self._notify({**message, "worker": self.address.slot})


class Publisher:
    """Owns the generation number and the way of a snapshot to parent and workers."""

    def __init__(self, *, parent: Link, board: Board, notify: Notify) -> None:
        """`notify` gets worker events (`type` event) as they come."""
        self._parent = parent
        self.board = board
        self._notify = notify
        self._workers: dict[int, WorkerLink] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._applied: asyncio.Future[Message] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._descriptors: tuple[int, ...] = ()
        self.bundle: Bundle | None = None
        self.generation = 0
        self.addresses: dict[int, str] = {}  # listener slot -> where it listens really (port 0 was resolved)

    def adopt(self, snapshot: Snapshot | None, descriptors: Sequence[int]) -> None:
        """Go on from what an earlier control process published; the descriptors become ours."""
        self._descriptors = tuple(descriptors)
        if snapshot is not None:
            self.generation = snapshot.generation
            self.bundle = Bundle(snapshot)

    @property
    def workers(self) -> tuple[WorkerAddress, ...]:
        """Workers that run now."""
        return tuple(link.address for _, link in sorted(self._workers.items()))

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        """Give the group in which connections to workers live."""
        self._tasks = tasks

    def set_workers(self, found: Sequence[WorkerAddress]) -> None:
        """Connect to workers that are new, forget those that are gone."""
        if self._tasks is None:
            raise RuntimeError("the publisher does not run yet")
        addresses = {address.slot: address for address in found}
        for slot in [slot for slot, link in self._workers.items() if addresses.get(slot) != link.address]:
            del self._workers[slot]
            self._runs.pop(slot).cancel()
        for slot, address in addresses.items():
            if slot not in self._workers:
                link = self._workers[slot] = WorkerLink(address, notify=self._notify)
                self._runs[slot] = self._tasks.create_task(link.run(), name=f"worker {slot}")

    def set_workers_from(self, items: Sequence[Mapping[str, Any]]) -> None:
        """The same from a message's `workers`."""
        self.set_workers([WorkerAddress.from_message(item) for item in items])

    def take_parent_answer(self, message: Message) -> None:
        """Hand in `applied` or `refused` of the parent."""
        if self._applied is not None and not self._applied.done():
            self._applied.set_result(message)

    async def publish(self, bundle: Bundle) -> None:
        """Make `bundle` true and return when all running workers have it.

        Raises PublishError when the parent refuses it (nothing has changed then) or a worker does not answer.
        """
        snapshot = bundle.snapshot
        fds = (memfd("snapshot", codec.encode(snapshot)), *(memfd("pem", pem) for pem in bundle.pems))
        try:
            await self._tell_parent(bundle, fds)
        except BaseException:
            close_all(fds)
            raise
        close_all(self._descriptors)
        self._descriptors, self.bundle, self.generation = fds, bundle, snapshot.generation
        self.board.shared.cells[sb.H_GENERATION] = snapshot.generation
        await self._tell_workers(snapshot.generation)

    async def _tell_parent(self, bundle: Bundle, fds: tuple[int, ...]) -> None:
        listeners = [
            {"slot": item.slot, "bind": item.bind, "backlog": bundle.backlogs.get(item.bind, BACKLOG)}
            for item in bundle.snapshot.listeners
        ]
        message = {
            "type": "apply",
            "generation": bundle.snapshot.generation,
            "workers": bundle.snapshot.workers,
            "listeners": listeners,
        }
        self._applied = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(APPLY_S):
                await self._parent.send(message, fds)
                answer = await self._applied
        except TimeoutError as exc:
            raise PublishError(f"the parent process did not answer within {APPLY_S:g} s") from exc
        finally:
            self._applied = None
        if answer["type"] == "refused":
            raise PublishError("; ".join(": ".join(_texts(item, "bind", "error")) for item in answer["errors"]))
        self.addresses = {int(slot): str(address) for slot, address in answer.get("addresses", {}).items()}
        self.set_workers_from(answer["workers"])

    async def _tell_workers(self, generation: int) -> None:
        # Those that finish get it too: a request that is on its way to them must not pass a pause.
        links = list(self._workers.values())
        refusals = [
            why for why in await asyncio.gather(*(self._tell_worker(link, generation) for link in links)) if why
        ]
        if refusals:
            raise PublishError("; ".join(refusals))

    async def _tell_worker(self, link: WorkerLink, generation: int) -> str:
        """Return why the worker refused the snapshot, "" when it runs on it or is not there to be told."""
        slot = link.address.slot
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                await link.connected.wait()
                if self.board.is_acknowledged(generation, [slot]):
                    return ""
                answer = await link.call({"type": "snapshot"}, "applied", self._descriptors)
        except (WireError, TimeoutError) as exc:
            # A dead or stuck worker is the parent's to replace; its successor starts with this snapshot.
            logger.warning("worker did not take the snapshot", extra={"worker": slot, "error": str(exc)})
            return ""
        if answer["type"] == "refused":
            return f"worker {slot} refused generation {generation}: {answer.get('reason')}"
        return ""

    async def reopen_logs(self) -> None:
        """Make every worker open its access log again, after it was moved away."""
        for link in list(self._workers.values()):
            try:
                async with asyncio.timeout(CALL_S):
                    await link.call({"type": "reopen-log"}, "reopened")
            except (WireError, TimeoutError) as exc:
                logger.warning("worker did not reopen its log", extra={"worker": link.address.slot, "error": str(exc)})

    async def held_back(self) -> int | None:
        """Return how many exchanges a pause still waits for, None when a worker did not say."""
        answers = await self._ask_all({"type": "held-back"}, "held-back")
        return None if None in answers else sum(answer["exchanges"] for answer in answers if answer)

    async def cut(self, node: str | None) -> int:
        """End what runs at a node, or all that a pause waits for; return how many there were."""
        answers = await self._ask_all({"type": "cut", "node": node}, "cut")
        return sum(answer["cut"] for answer in answers if answer)

    async def _ask_all(self, message: Message, answer: str) -> list[Message | None]:
        """Ask every worker; None stands for one that is gone or stuck."""
        return await asyncio.gather(*(self._ask(link, message, answer) for link in list(self._workers.values())))

    @staticmethod
    async def _ask(link: WorkerLink, message: Message, answer: str) -> Message | None:
        try:
            async with asyncio.timeout(CALL_S):
                return await link.call(dict(message), answer)
        except (WireError, TimeoutError):
            return None

    async def exchanges(self, node: str | None, limit: int) -> list[dict[str, Any]]:
        """Return what is under way (at one node), as the workers tell it, oldest first, tunnels last."""
        found: list[dict[str, Any]] = []
        for link in list(self._workers.values()):
            try:
                async with asyncio.timeout(CALL_S):
                    answer = await link.call({"type": "exchanges", "node": node, "limit": limit}, "exchanges")
            except (WireError, TimeoutError):
                continue  # gone or stuck: its exchanges are the parent's to book
            found += answer["exchanges"]
        return sorted(found, key=lambda item: (item["state"] == "tunnel", -item["age_s"]))[:limit]


def _texts(item: Mapping[str, Any], *names: str) -> list[str]:
    return [str(item[name]) for name in names if item.get(name)]


def memfd(name: str, data: bytes) -> int:
    """Return a descriptor that holds `data` and nothing on disk."""
    fd = os.memfd_create(f"arv-balance-{name}", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd
