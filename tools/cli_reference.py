"""Writes docs/cli.md from the command tree and docs/metrics.md from the metrics."""

from pathlib import Path

from balancer.cli.reference import markdown
from balancer.observe.metrics import reference

if __name__ == "__main__":
    docs = Path(__file__).parents[1] / "docs"
    (docs / "cli.md").write_text(markdown())
    (docs / "metrics.md").write_text(reference())
