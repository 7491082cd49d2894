"""The environment of the unmodified official client."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def client_python() -> Path:
    """Its Python; the environment is made when it is not there."""
    done = subprocess.run([ROOT / "tools/official-client"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return ROOT / done.stdout.strip().splitlines()[-1]
