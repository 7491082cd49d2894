"""What an engine itself says about a file, without warnings. Traefik has no checker and is started."""

import contextlib
import http.client
import os
import signal
import subprocess
from pathlib import Path

from balancer.render import programs
from balancer.render.engine import ENGINES
from balancer.render.output import write
from tests.support.waiting import until


def accepts(engine: str, text: str, folder: Path, program: str | None = None, statistics_port: int = 0) -> str:
    """Return "" when the engine takes the file, else what it says. `statistics_port`: Traefik's, of the options."""
    file = write(text, folder / ENGINES[engine].file_name)[0]
    program = program or programs.find(ENGINES[engine])
    assert program is not None
    if engine == "traefik":
        return _started(program, file, statistics_port)
    verdict = programs.check(ENGINES[engine], program, file)
    return "" if verdict.passed and not verdict.warnings else verdict.output or "refused without a word"


def _started(program: str, file: Path, statistics_port: int) -> str:
    """Start Traefik, wait until it has read both files, and return the errors that it logs."""
    said = file.with_suffix(".log")
    with said.open("wb") as log:
        process = subprocess.Popen(
            programs.command(ENGINES["traefik"].run, program, file), stdout=log, stderr=log, cwd=file.parent,
            env={**os.environ, "GOMAXPROCS": "1"},
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or _has_read(statistics_port), 20, "traefik has read its files")
    except AssertionError:
        return said.read_text() or "it did not come up"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return said.read_text()


def _has_read(port: int) -> bool:
    """Its metrics tell of the reading of the second file, good or bad."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/metrics")
            return b"\ntraefik_config_reloads_total " in connection.getresponse().read()
        finally:
            connection.close()
    return False
