"""Writes docs/config.md, docs/upgrade-plan.md and docs/arv-balance.schema.json from their schemas."""

import json
from pathlib import Path

from balancer.config.reference import json_schema, markdown, plan_markdown

DOCS = Path(__file__).parents[1] / "docs"

if __name__ == "__main__":
    (DOCS / "config.md").write_text(markdown())
    (DOCS / "upgrade-plan.md").write_text(plan_markdown())
    (DOCS / "arv-balance.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")
