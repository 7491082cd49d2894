"""What docs/api.md says about operations is what the program has."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent.parent


def test_the_tables_of_the_api_nodes_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "api-doc", "--check"],
        cwd=REPOSITORY,
        check=False,
        env={"PYTHONPATH": "."},
    )
    assert done.returncode == 0, "run tools/api-doc"


def test_every_hazard_names_a_test_that_exists() -> None:
    rows = yaml.safe_load((REPOSITORY / "docs" / "multi-node.yml").read_text())
    assert len(rows) > 30
    for row in rows:
        assert row["hazard"]
        assert row["mechanism"]
        assert row["shown"], row["hazard"]
        for named in [*row["shown"], *row.get("control", ())]:
            file, _, test = named.partition("::")
            text = (REPOSITORY / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), f"{file} has no {test}"
