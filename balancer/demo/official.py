"""Traffic by the official Python client, which lives in an environment of its own."""

import json
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path

from balancer.demo.processes import Processes, kill
from balancer.demo.tally import Tally
from balancer.demo.traffic import Target

SCRIPT = Path(__file__).with_name("official_script.py")


def find(environment: Path) -> Path | None:
    """Return the Python of the client's environment, None when it is not there."""
    python = environment / "bin" / "python"
    return python if (environment / ".installed").exists() and python.exists() else None


async def run(target: Target, processes: Processes, python: Path) -> None:
    """Run the client until cancelled, and count what it says. It repeats by itself what fails, so it hides failures."""
    process = await processes.start("official-client", [str(python), str(SCRIPT)], _environment(target), stdout=PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
        async for line in process.stdout:
            _count(target.tally, line)
    finally:
        await kill(process)


def _count(tally: Tally, line: bytes) -> None:
    with suppress(ValueError):
        said = json.loads(line)
        tally.official = said["calls"]
        if said["problem"]:
            tally.fail(f"official client: {said['problem']}")


def _environment(target: Target) -> dict[str, str]:
    return {
        "ARVADOS_API_HOST": f"127.0.0.1:{target.layout.https}",
        "ARVADOS_API_TOKEN": target.token,
        "SSL_CERT_FILE": str(target.layout.certificate),
    }
