"""Writes docs/config.md from the configuration's schema."""

from pathlib import Path

from balancer.config.reference import markdown

if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "config.md").write_text(markdown())
