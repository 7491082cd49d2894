"""Documents that are made from tables are those of the tables of today."""

import subprocess
import sys
from pathlib import Path

import pytest

from balancer.model import Admin, Health, Limits, Outcome, Park, Policy, Retry, Timeouts

ROOT = Path(__file__).resolve().parents[2]


def test_generated_documents_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate-docs", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_outdated_document_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "docs").mkdir()
    tool = tmp_path / "tools" / "generate-docs"
    tool.write_bytes((ROOT / "tools" / "generate-docs").read_bytes())
    (tmp_path / "docs" / "states.md").write_text("old")
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert "docs/states.md" in done.stderr
    assert (tmp_path / "docs" / "states.md").read_text() == "old"


def test_the_glossary_has_every_word_that_people_see() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = {word.value for kind in (Admin, Outcome, Policy) for word in kind} | {h.name.lower() for h in Health}
    assert {word for word in words if f"**{word}**" not in text} == set()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Limits().header_bytes >> 10, "16 KiB"),
        (Limits().header_field_bytes >> 10, "8 KiB a field"),
        (Limits().header_count, "100 fields"),
        (Limits().target_bytes, "8190 bytes"),
        (Limits().body_bytes >> 20, "128 MiB"),
        (Limits().chunk_extension_bytes >> 10, "4 KiB each"),
        (Limits().trailer_bytes >> 10, "4 KiB each"),
        (Limits().connections // 1000, "20 000 a worker"),
        (Limits().min_rate_bytes_per_s, "240 B/s after 20 s"),
        (Limits().tunnels, "1000, 1 h idle"),
        (Limits().buffered_response_bytes >> 10, "(64 KiB)"),
        (Park().max, "5000; 128 MiB"),
        (Timeouts().header_s, "| 10 s |"),
        (Timeouts().body_idle_s, "30 s; 240 B/s"),
        (Timeouts().send_idle_s, "| 60 s |"),
        (Timeouts().keepalive_s, "60 s idle"),
        (Timeouts().response_s, "(300 s)"),
        (Retry().retries, "at most 2,"),
        (Retry().budget_min, "at least 10 |"),
    ],
)
def test_the_limits_in_the_threats_page_are_the_defaults(limit: float, said: str) -> None:
    assert f"{limit:g}" in said
    assert said in (ROOT / "docs" / "threats.md").read_text()
