"""The stage of a run: nodes, certificate and started targets; everything on it is gone when its `with` block ends."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench.load import Done, Driver, IdleConnections, Work
from bench.machine import Ports, cores
from bench.nodes import EchoNodes, Nodes
from bench.process import Process, core_busy_ns
from bench.ready import until_answered
from bench.targets import Setup, Target


@dataclass(frozen=True, slots=True)
class Instance:
    """A started target."""

    target: Target
    process: Process
    port: int
    tls_port: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured run. `foreign` is the share of the core's time that others took while it ran."""

    cpu_us: float  # per unit of work
    errors: int
    units_per_s: float
    p99_us: int
    foreign: float


class Stage:
    """Hands out nodes and targets. Made by `stage()`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.target_core, self.load_core = cores()
        self._folder, self._stack = folder, stack
        self._ports = Ports()
        self._count = 0
        self._driver = Driver(core=self.load_core, folder=self.new_folder("load"))
        self._pem, self._certificate, self._key = _certificate(self.new_folder("certificate"))

    def new_folder(self, name: str) -> Path:
        """Make a folder that goes with the stage."""
        self._count += 1
        path = self._folder / f"{self._count}-{name}"
        path.mkdir()
        return path

    def nodes(self, count: int = 2) -> tuple[int, ...]:
        """Start HTTP nodes; returns their ports."""
        where = self.new_folder("nodes")
        made = Nodes(folder=where, core=self.load_core, ports=self._ports, count=count)
        return self._stack.enter_context(made).ports

    def echo_nodes(self, count: int = 2) -> tuple[int, ...]:
        """Start WebSocket nodes; returns their ports."""
        where = self.new_folder("echo")
        made = EchoNodes(folder=where, core=self.load_core, ports=self._ports, count=count)
        return self._stack.enter_context(made).ports

    @contextmanager
    def started(self, target: Target, nodes: tuple[int, ...], *, workers: int = 1) -> Iterator[Instance]:
        """Run a target in front of nodes until the block ends."""
        setup = Setup(
            port=self._ports.take(),
            tls_port=self._ports.take(),
            nodes=nodes,
            pem=self._pem,
            certificate=self._certificate,
            key=self._key,
            folder=self.new_folder(target.name),
            workers=workers,
        )
        launch = target.prepare(setup)
        with Process(launch.argv, core=self.target_core, folder=setup.folder, env=launch.env) as process:
            until_answered(process, setup.port, "/small")
            yield Instance(target, process, setup.port, setup.tls_port)

    def keep(self, target: Target, nodes: tuple[int, ...]) -> Instance:
        """Run a target until the stage ends."""
        return self._stack.enter_context(self.started(target, nodes))

    def load(self, instance: Instance, work: Work, seconds: float) -> Done:
        """Send work without measuring."""
        return self._driver.run(work, instance.tls_port if work.tls else instance.port, seconds)

    def sample(self, instance: Instance, work: Work, seconds: float) -> Sample:
        """Send work and measure what it costs the target."""
        busy_before, cpu_before = core_busy_ns(self.target_core), instance.process.cpu_ns()
        done = self.load(instance, work, seconds)
        cpu, busy = instance.process.cpu_ns() - cpu_before, core_busy_ns(self.target_core) - busy_before
        instance.process.check_alive()
        return Sample(
            cpu_us=cpu / 1000 / max(done.units, 1e-9),
            errors=done.errors + (0 if done.units else 1),
            units_per_s=done.units / done.seconds if done.seconds else 0.0,
            p99_us=done.p99_us,
            foreign=max(0.0, (busy - cpu) / 1e9 / max(done.seconds, 1e-3)),
        )

    def idle(self, instance: Instance, count: int, *, tls: bool = False) -> IdleConnections:
        """Return a `with` block that holds waiting connections to a target."""
        port = instance.tls_port if tls else instance.port
        where = self.new_folder("idle")
        return IdleConnections(core=self.load_core, folder=where, port=port, count=count, tls=tls)


@contextmanager
def stage() -> Iterator[Stage]:
    """Set up a stage and take it down again, whatever happens in between."""
    folder = Path(tempfile.mkdtemp(prefix="arv-balance-bench-"))
    try:
        with ExitStack() as stack:
            yield Stage(folder, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _certificate(folder: Path) -> tuple[Path, Path, Path]:
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    pem, certificate, key = folder / "both.pem", folder / "certificate.pem", folder / "key.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return pem, certificate, key
