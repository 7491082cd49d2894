"""What docs/api.md says about operations is what the program has."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def test_the_tables_of_operations_and_metrics_are_current() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "api-doc", "--check"],
        cwd=REPOSITORY,
        check=False,
        env={"PYTHONPATH": "."},
    )
    assert done.returncode == 0, "run tools/api-doc"


def test_every_hazard_names_a_test_that_exists() -> None:
    rows = [line for line in (REPOSITORY / "docs" / "multi-node.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    for row in rows[1:]:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, f"no test is named: {row[:60]}"
        for file, test in named:
            text = (REPOSITORY / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), f"{file} has no {test}"
