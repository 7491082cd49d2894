"""Periodic jobs: any number of nodes try, one runs, and what a superseded run writes is rolled back.

The row of a job in `periodic_job` is the only authority: claimed by one conditional update by the database's clock,
fenced by its run number in the first statement of every batch.
"""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from apiserver.errors import ApiError, NotFoundError
from apiserver.store.pool import Lock, Row, Session, Store
from apiserver.store.queries import load

logger = logging.getLogger(__name__)
_QUERIES = load("jobs")
_SEEDS = load("seeds")
LEASE_S = 30.0
POLL_S = 1.0


class SupersededError(ApiError):
    """Another run of the job took over; the batch was rolled back."""


@dataclass(slots=True)
class Run:
    """One claimed run. A job does all its writing through `batch`."""

    name: str
    run_no: int
    cursor: Any
    store: Store
    lease_s: float = LEASE_S
    rows: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def batch(self, work: Callable[[Session], Awaitable[int]], locks: Sequence[Lock] = ()) -> int:
        """Run one short transaction that is fenced; return how many rows it touched.

        Raises:
            SupersededError: the right to run is lost; nothing was written.
        """
        async with self.store.session() as session, session.transaction(locks):
            if not await session.value(_QUERIES["fence"], self.name, self.run_no, self.lease_s):
                raise SupersededError(f"run {self.run_no} of {self.name} was superseded")
            count = await work(session)
        self.rows += count
        return count

    async def remember(self, session: Session, cursor: Any) -> None:
        """Note inside a batch how far the job is, for whoever takes over."""
        self.cursor = cursor
        await session.execute(_QUERIES["progress"], self.name, self.run_no, json.dumps(cursor))


Job = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job and how often it is due, in seconds."""

    run: Job
    every_s: float


class Jobs:
    """Runs what is due on this node until it is stopped."""

    def __init__(
        self, store: Store, jobs: Mapping[str, Periodic], *, note: Callable[[str, str], None], lease_s: float = LEASE_S
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._note = note
        self._lease_s = lease_s
        self._stopping = asyncio.Event()
        self.running = ""  # the job that this node runs now

    @property
    def names(self) -> Sequence[str]:
        """The jobs that this node knows."""
        return sorted(self._jobs)

    def stop(self) -> None:
        """Claim nothing more; a run under way ends after its batch and gives its slot back."""
        self._stopping.set()

    async def run(self) -> None:
        """Look about once a second for a due job, run it; return after `stop`."""
        while not self._stopping.is_set():
            try:
                for name in await self._due():
                    await self.run_one(name)
            except ApiError as exc:
                logger.warning("jobs cannot look", extra={"error": exc.message})
            except Exception:  # the top of the task: one job's fault must end neither the others nor the node
                logger.exception("a job failed")
            try:
                async with asyncio.timeout(POLL_S * random.uniform(0.8, 1.2)):  # noqa: S311
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _due(self) -> list[str]:
        async with self._store.session() as session:
            return [row["name"] for row in await session.rows(_QUERIES["due"], list(self._jobs))]

    async def run_one(self, name: str) -> bool:
        """Run a job if this node gets the claim; return whether it did."""
        async with self._store.session() as session:
            row = await session.row(_QUERIES["claim"], name, self._lease_s)
        if row is None:
            return False
        cursor = json.loads(row["cursor"]) if row["cursor"] else None
        self.running = name
        try:
            run = Run(name, row["run_no"], cursor, self._store, self._lease_s, stopping=self._stopping)
            self._note(name, await self._carry_out(run))
        finally:
            self.running = ""
        return True

    async def _carry_out(self, run: Run) -> str:
        """Run a claimed job and give its slot back; return how it ended, for the numbers."""
        try:
            await self._jobs[run.name].run(run)
        except SupersededError:
            return "superseded"
        except (Exception, asyncio.CancelledError) as exc:
            await self._end("failed", run, f"{type(exc).__name__}: {exc}")
            if not isinstance(exc, ApiError):
                self._note(run.name, "failed")
                raise  # logged with its traceback by `run`
            logger.warning("job failed", extra={"job": run.name, "run_no": run.run_no, "error": exc.message})
            return "failed"
        if self._stopping.is_set():  # the job may have ended early; another node finishes it, or finds nothing to do
            await self._end("release", run)
            return "handed over"
        await self._end("done", run, None, run.rows)
        return "done"

    async def _end(self, query: str, run: Run, *values: object) -> None:
        async with self._store.session() as session:
            await session.execute(_QUERIES[query], run.name, run.run_no, *values)


async def seed(session: Session, jobs: Mapping[str, Periodic]) -> None:
    """Make the rows of the jobs; a changed interval is taken over."""
    for name, job in jobs.items():
        every = timedelta(seconds=job.every_s)
        await session.execute(_SEEDS["job"], name, every)
        await session.execute(_SEEDS["job_interval"], name, every)


async def listed(session: Session) -> list[Row]:
    """Return all jobs with their states, for people."""
    return await session.rows(_QUERIES["all"])


async def ask_for(session: Session, name: str) -> int:
    """Make a job due now; return the run number before it.

    Raises:
        NotFoundError: there is no such job.
    """
    number = await session.value(_QUERIES["run_now"], name)
    if number is None:
        raise NotFoundError(f"there is no job {name}")
    return int(number)


async def is_finished(session: Session, name: str, after: int) -> bool:
    """Return whether a run later than `after` has ended."""
    return bool(await session.value(_QUERIES["finished_after"], name, after))
