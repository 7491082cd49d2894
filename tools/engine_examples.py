"""Writes examples/engines: examples/arv-balance.yml for each engine. With --check it only says what is out of date."""

import sys
from pathlib import Path

from balancer.config.file import load
from balancer.render import haproxy
from balancer.render.description import describe
from balancer.render.engine import ENGINES, render
from balancer.render.output import documents
from balancer.render.report import report_of

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "examples" / "arv-balance.yml"
FOLDER = ROOT / "examples" / "engines"


def examples() -> dict[Path, str]:
    """Return what every file has to hold."""
    config = load(SOURCE, look_at_files=False).require()
    found: dict[Path, str] = {}
    for engine in ENGINES.values():
        note = haproxy.note(haproxy.DEFAULT_VERSION) if engine.name == "haproxy" else ""
        report = report_of(engine.name, config, note)
        text = render(engine, describe(config, SOURCE.name), {}, report.comments())
        found |= documents(text, FOLDER / engine.file_name)
    return found


if __name__ == "__main__":
    wanted = examples()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" not in sys.argv:
        FOLDER.mkdir(exist_ok=True)
        for path in stale:
            path.write_text(wanted[path])
    elif stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"out of date: {names}; write them again with `make docs`")
