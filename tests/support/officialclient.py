"""The environment of the unmodified official client, and how its programs are run."""

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests/apiserver/client_scripts"


@pytest.fixture(scope="session")
def client_python() -> Path:
    """Its Python; the environment is made when it is not there."""
    done = subprocess.run([ROOT / "tools/official-client"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return ROOT / done.stdout.strip().splitlines()[-1]


async def run(env: Mapping[str, str], *command: object, stdin: bytes = b"") -> str:
    """Run a program of the client's environment; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate(stdin)
    assert process.returncode == 0, err.decode()[-3000:]
    return out.decode()
