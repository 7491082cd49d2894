"""The next release of the API nodes, for the upgrade: another version number and one more migration."""

import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from balancer import __version__

PACKAGES = ("apiserver", "balancer", "dnsupdate")
MIGRATION = """\
CREATE TABLE NAME AS SELECT uuid, md5(name) AS sum FROM collections;
CREATE INDEX NAME_sum ON NAME (sum);
"""


@dataclass(frozen=True, slots=True)
class Release:
    """Packages in a folder, which is put before all others on the path of a node that runs them."""

    number: int
    folder: Path
    version: str
    migration: str


def make(folder: Path, before: Release | None) -> Release:
    """Make the release after `before`, after the installed one if None.

    Its migration looks at all collections, so it takes the longer the more there are, as real ones do.
    """
    ignored = shutil.ignore_patterns("__pycache__", "_templates", "_examples")
    for package in PACKAGES:
        source = before.folder / package if before else Path(str(files(package)))
        shutil.copytree(source, folder / package, ignore=ignored)
    number = before.number + 1 if before else 1
    version = _next(before.version if before else __version__)
    init = folder / "balancer" / "__init__.py"
    init.write_text(re.sub(r'(__version__ = )".*"', rf'\1"{version}"', init.read_text()))
    name = f"demo_release_{number}"
    steps = folder / "apiserver" / "store" / "migrations"
    level = max(int(path.name[:4]) for path in steps.glob("*.sql")) + 1
    (steps / f"{level:04d}_{name}.sql").write_text(MIGRATION.replace("NAME", name))
    return Release(number, folder, version, name)


def _next(version: str) -> str:
    head, _, last = version.rpartition(".")
    return f"{head}.{int(last) + 1}"
