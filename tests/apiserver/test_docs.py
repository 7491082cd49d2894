"""What docs/api.md says about operations is what the program has."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def test_the_table_of_operations_is_current() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "api-doc", "--check"],
        cwd=REPOSITORY,
        check=False,
        env={"PYTHONPATH": "."},
    )
    assert done.returncode == 0, "run tools/api-doc"
