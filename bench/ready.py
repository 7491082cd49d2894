"""Waiting for a server that was just started."""

import http.client
import time

from bench.machine import BenchError
from bench.process import Process


def until_answered(process: Process, port: int, path: str, *, within_s: float = 15.0) -> None:
    """Return once `GET path` is answered 200 three times in a row. Raises BenchError when it ends or takes too long."""
    deadline = time.monotonic() + within_s
    good, last = 0, "no answer"
    while good < 3:
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{process.argv[0]} does not serve {path} on port {port}: {last}\n{process.errors()}")
        try:
            last = _status(port, path)
        except (OSError, http.client.HTTPException) as exc:
            last = repr(exc)
        good = good + 1 if last == "200" else 0
        if not good:
            time.sleep(0.05)


def _status(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    finally:
        connection.close()
