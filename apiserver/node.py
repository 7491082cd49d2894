"""One API node: puts the parts together, serves until it is told to stop, stops without losing a request."""

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from apiserver import seeds
from apiserver.auth import Authenticator
from apiserver.discovery import discovery, encoded, exported
from apiserver.dispatch import Dispatcher
from apiserver.dns import Dns, NoDns
from apiserver.errors import SettingsError
from apiserver.events import Pump
from apiserver.http.application import Application, Parts
from apiserver.http.limiter import Limiter
from apiserver.http.login import LoginPages
from apiserver.http.metrics import Description, Metrics
from apiserver.http.request import networks
from apiserver.http.routing import PREFIX, Router
from apiserver.http.server import serving
from apiserver.http.websocket import Websockets
from apiserver.jobs import Jobs, seed
from apiserver.launcher import LocalServer, find_binaries
from apiserver.maintenance import Maintenance
from apiserver.monitor import Monitor
from apiserver.operation import Context
from apiserver.registry import Registry
from apiserver.settings import Settings, digest
from apiserver.store.migrator import Migration, migrate, migrations, needed_level
from apiserver.store.pool import DatabaseSettings, Store, Timings
from balancer import __version__

logger = logging.getLogger(__name__)
FIRST_LOOK_S = 5.0
JOBS_STOP_S = 3.0  # a batch is shorter


def database_settings(settings: Settings) -> DatabaseSettings:
    """Return how a node of these settings reaches its database."""
    return DatabaseSettings(
        settings.database_url,
        pool=settings.database_pool,
        statement_s=settings.statement_timeout_s,
        pooler=settings.database_pooler,
    )


async def prepare(settings: Settings, steps: Sequence[Migration]) -> list[Migration]:
    """Migrate the database and plant what every cluster has; return the migrations that this call applied."""
    async with Store(database_settings(settings)) as store, store.session() as session:
        applied = await migrate(session, steps)
        await seeds.plant(session, settings)
        await seeds.renumber(session)
        await seed(session, Maintenance(Context(settings, Registry())).jobs())
        return applied


class Node:
    """One process's server. `run` returns after SIGTERM, SIGINT or `stop`."""

    def __init__(
        self,
        settings: Settings,
        *,
        vocabulary: dict[str, Any],
        steps: Sequence[Migration],
        clock: Callable[[], float],
        dns: Dns | None = None,
    ) -> None:
        self._settings = settings
        self._registry = Registry()
        self._metrics = Metrics()
        self._limiter = Limiter(running=settings.api.max_concurrent_requests, queued=settings.api.max_queued_requests)
        timings = Timings(self._metrics.acquire.observe, self._note_lock)
        self._store = Store(database_settings(settings), timings=timings)
        self._needed = needed_level(steps)
        self._monitor = Monitor(database_settings(settings), self._needed, clock)
        self._dns = dns or NoDns()
        self._context = Context(settings, self._registry, vocabulary, self._dns)
        self._authenticator = Authenticator(settings)
        self._pump = Pump(database_settings(settings))
        self._websockets = Websockets(
            settings, self._store, self._authenticator, self._pump, sent=self._metrics.events.inc
        )
        self._jobs = Jobs(
            self._store, Maintenance(self._context).jobs(), note=self._note_job, lease_s=settings.job_lease_s
        )
        self._stop = asyncio.Event()
        self.addresses: list[str] = []
        self._watch()
        self._dns.mount(self._metrics.registry)

    def _watch(self) -> None:
        metrics, limiter = self._metrics, self._limiter
        metrics.watch("arvados_concurrent_requests", "Requests running.", lambda: limiter.running)
        metrics.watch("arvados_max_concurrent_requests", "Limit of running requests.", lambda: limiter.max_running)
        metrics.watch(
            "arvados_queued_requests", "Requests waiting.", lambda: limiter.queued, queue="api", priority="any"
        )
        metrics.watch("arvados_max_queued_requests", "Limit of waiting requests.", lambda: limiter.max_queued)
        metrics.watch("arv_api_migration_version", "Level of the schema.", lambda: self._monitor.schema.version)
        metrics.watch("arv_api_notify_lag_seconds", "Age of the oldest undecided event.", lambda: self._pump.lag_s)
        metrics.watch("arv_api_websockets", "Websocket clients.", lambda: self._websockets.count)
        metrics.watch("arv_api_healthy", "1 when this node may serve.", lambda: float(not self._monitor.error()))
        metrics.watch_each(
            "arv_api_db_pool_connections", "Connections to the database.", "state",
            {"used": lambda: self._store.sizes()[0], "idle": lambda: self._store.sizes()[1]},
        )  # fmt: skip
        metrics.watch(
            "arvados_version_running", "1, for the version that this node runs.", lambda: 1.0, version=__version__
        )
        metrics.watch(
            "arv_api_config_info", "1, for the hash of the configuration: equal on nodes that agree.", lambda: 1.0,
            sha256=digest(self._settings),
        )  # fmt: skip
        metrics.watch_each(
            "arv_api_leader", "1 while this node runs the periodic job of that name.", "role",
            {name: partial(self._runs, name) for name in self._jobs.names},
        )  # fmt: skip

    def _runs(self, job: str) -> float:
        return float(self._jobs.running == job)

    @property
    def metrics(self) -> Sequence[Description]:
        """What `/metrics` shows."""
        return self._metrics.described

    def _note_lock(self, lock: str, seconds: float) -> None:
        self._metrics.lock_wait.labels(lock).observe(seconds)

    def _note_job(self, job: str, result: str) -> None:
        self._metrics.jobs.labels(job, result).inc()

    def stop(self) -> None:
        """Make `run` return, gracefully."""
        self._stop.set()

    async def run(self, ready: Callable[[list[str]], None] | None = None) -> None:
        """Serve until stopped; `ready` gets the bound addresses, `host:port` or `unix:/path`."""
        async with AsyncExitStack() as stack:
            self._heed_signals(stack)
            await stack.enter_async_context(self._store)
            async with asyncio.TaskGroup() as tasks:
                jobs = tasks.create_task(self._jobs.run(), name="jobs")
                others = [
                    tasks.create_task(part.run(), name=name)
                    for name, part in (("monitor", self._monitor), ("events", self._pump), ("dns", self._dns))
                ]
                try:
                    await self._serve(ready)
                finally:
                    self._jobs.stop()
                    await asyncio.wait([jobs], timeout=JOBS_STOP_S)
                    for task in (jobs, *others):
                        task.cancel()

    def _heed_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
            stack.callback(loop.remove_signal_handler, number)

    async def _serve(self, ready: Callable[[list[str]], None] | None) -> None:
        settings = self._settings
        async with serving(self._application(), settings.listen, timeout_s=settings.stop_timeout_s) as self.addresses:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_S):
                    await self._monitor.looked.wait()
            if ready is not None:
                ready(self.addresses)
            logger.info("serving", extra={"addresses": self.addresses})
            await self._stop.wait()
            # Health says ERROR while requests are still taken: the balancer moves away first.
            self._monitor.stopping = True
            self._jobs.stop()
            logger.info("stopping", extra={"delay_s": settings.stop_delay_s})
            await asyncio.sleep(settings.stop_delay_s)
            await self._websockets.close()

    def _application(self) -> Any:
        settings = self._settings
        operations = list(self._registry.operations())
        documents = {
            "/discovery/v1/apis/arvados/v1/rest": encoded(discovery(settings, operations)),
            f"{PREFIX}config": encoded(exported(settings)),
            f"{PREFIX}vocabulary": encoded(self._context.vocabulary),
        }
        dispatcher = Dispatcher(self._context, self._store, self._authenticator, committed=self._pump.nudge)
        trusted = networks(settings.trusted_proxies)
        pages = LoginPages(settings, dispatcher, trusted)
        return Application(
            Parts(
                settings,
                Router(operations),
                dispatcher,
                self._monitor,
                self._metrics,
                self._limiter,
                documents,
                trusted,
                self._registry.wrappers(),
                self._websockets.handle,
                {"/login": pages.login, "/logout": pages.logout},
            )
        ).build()


def read_vocabulary(settings: Settings) -> dict[str, Any]:
    """Return the vocabulary, {} without one.

    Raises:
        SettingsError: the file is not a JSON object.
    """
    path = settings.api.vocabulary_path
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SettingsError(f"API.VocabularyPath {path}: {exc}") from exc
    if not isinstance(found, dict):
        raise SettingsError(f"API.VocabularyPath {path}: must hold a JSON object")
    return found


def with_database(settings: Settings) -> Settings:
    """Return settings whose database is known: the configured one, else a local server that this call starts.

    Raises:
        LauncherError: there is none, and none can be started.
    """
    if settings.database_url:
        return settings
    folder = Path(settings.database_dir or Path.home() / ".local" / "share" / "arv-api" / "postgres").resolve()
    url = LocalServer(folder, find_binaries(), ("max_connections=200",)).start()
    return replace(settings, database_url=url)


def all_migrations() -> tuple[Migration, ...]:
    """Return the migrations of this program; reads files, so it is called before the loop starts."""
    return migrations()
