"""Writes docs/cli.md, docs/metrics.md, docs/admin-api.md and docs/doctor.md from what they describe."""

from pathlib import Path

from balancer.cli.reference import markdown
from balancer.control.admin import endpoints
from balancer.control.doctor import manual
from balancer.observe import metrics

if __name__ == "__main__":
    docs = Path(__file__).parents[1] / "docs"
    (docs / "cli.md").write_text(markdown())
    (docs / "metrics.md").write_text(metrics.reference())
    (docs / "admin-api.md").write_text(endpoints.reference())
    (docs / "doctor.md").write_text(manual.markdown())
