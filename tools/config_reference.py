"""Writes docs/config.md and docs/arv-balance.schema.json from the configuration's schema."""

import json
from pathlib import Path

from balancer.config.reference import json_schema, markdown

DOCS = Path(__file__).parents[1] / "docs"

if __name__ == "__main__":
    (DOCS / "config.md").write_text(markdown())
    (DOCS / "arv-balance.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")
