"""Processes that the benchmark starts: pinned to one core, accounted as a whole, and gone at the end."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.machine import BenchError

_PR_SET_PDEATHSIG = 1


class Process:
    """A program in its own session on one core. `stop()` ends all that it started; use `with` or call it."""

    def __init__(self, argv: Sequence[str], *, core: int, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = list(argv)
        self.folder = folder
        self._core = core
        self._env = {**os.environ, **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, stdout: int = subprocess.DEVNULL, stdin: int = subprocess.DEVNULL) -> "Process":
        """Run it. Its errors go to `errors.txt` in its folder."""
        with (self.folder / "errors.txt").open("wb") as errors:
            self._child = subprocess.Popen(
                self.argv,
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
                env=self._env,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_pin(self._core),  # noqa: PLW1509 - one thread here, and taskset would not set the death signal
            )
        return self

    def __enter__(self) -> "Process":
        return self if self._child else self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def child(self) -> subprocess.Popen[bytes]:
        """The running program. Raises BenchError before `start()`."""
        if self._child is None:
            raise BenchError(f"{self.argv[0]} was not started")
        return self._child

    @property
    def pid(self) -> int:
        """Process id of the program itself."""
        return self.child.pid

    def pids(self) -> list[int]:
        """Return the program and all that it started: its session and its descendants."""
        return _family(self.pid)

    def cpu_ns(self) -> int:
        """Return CPU time of all threads of all its processes, from the scheduler's accounting."""
        return family_cpu_ns(self.pid)

    def cpu_ns_by_pid(self, cmdline_has: str) -> dict[int, int]:
        """Return CPU time of each of its processes whose command line contains a text."""
        return {pid: sum(_threads_ns(pid)) for pid in self.pids() if cmdline_has in _cmdline(pid)}

    def pss_kib(self) -> int:
        """Return its memory: proportional set size, shared pages counted once over its processes."""
        return sum(_pss_kib(pid) for pid in self.pids())

    def errors(self) -> str:
        """Return the last lines that it wrote to its error stream."""
        with contextlib.suppress(OSError):
            return "\n".join((self.folder / "errors.txt").read_text(errors="replace").splitlines()[-8:])
        return ""

    def check_alive(self) -> None:
        """Raise BenchError with its last words when it has ended."""
        status = self.child.poll()
        if status is not None:
            raise BenchError(f"{' '.join(self.argv[:3])} ended with status {status}\n{self.errors()}")

    def stop(self, grace_s: float = 0.5) -> None:
        """End it and all that it started: asked first, killed after `grace_s`."""
        if self._child is None:
            return
        family = self.pids()
        _signal_all(family, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and (self._child.poll() is None or any(map(_is_alive, family))):
            time.sleep(0.02)
        _signal_all([pid for pid in {*family, *self.pids()} if _is_alive(pid)], signal.SIGKILL)
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream:
                stream.close()
        self._child = None


def family_cpu_ns(root: int) -> int:
    """Return CPU time of a process and all that it started, from the scheduler's accounting."""
    return sum(thread_ns for pid in _family(root) for thread_ns in _threads_ns(pid))


def core_busy_ns(core: int) -> int:
    """Return how long a core has worked for anybody since the machine started, in steps of 10 ms."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    raise BenchError(f"/proc/stat has no core {core}")


def _pin(core: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)  # loaded before the fork, so that the child allocates nothing

    def in_child() -> None:
        os.sched_setaffinity(0, {core})
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return in_child


def _family(root: int) -> list[int]:
    parents: dict[int, int] = {}
    members = {root}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - Path.iterdir costs three times as much here
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            after_name = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            parents[int(entry)] = int(after_name[1])
            if int(after_name[3]) == root and after_name[0] != "Z":
                members.add(int(entry))
    grown = True
    while grown:
        found = {pid for pid, parent in parents.items() if parent in members and pid not in members}
        grown = bool(found)
        members |= found
    return sorted(members)


def _threads_ns(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - see above
            with contextlib.suppress(OSError):
                found.append(int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]))
    return found


def _cmdline(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
