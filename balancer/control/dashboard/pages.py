"""Templates and files of the dashboard: the one place that knows jinja2 here."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from balancer import __version__
from balancer.control.dashboard import words

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent. Its name holds a hash of the content, so browsers may keep it for good."""

    name: str
    kind: str
    content: bytes


class Pages:
    """Renders. Made in a thread: it reads all templates and files at once."""

    def __init__(self) -> None:
        folder = template_folder()
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.assets = {asset.name: asset for asset in map(_asset, sorted(folder.glob("static/*")))}
        names = {_plain(name): name for name in self.assets}
        self._environment.globals.update(asset=lambda name: f"/ui/static/{names[name]}", version=__version__)
        self._environment.filters.update(words.FILTERS)
        for name in self._environment.list_templates(extensions=["j2"]):
            self._environment.get_template(name)

    def render(self, template: str, **facts: Any) -> str:
        """Return a page, or a part of one."""
        return self._environment.get_template(f"{template}.html.j2").render(**facts)


def template_folder() -> Path:
    """Return where the dashboard's files are: inside the package when installed, at the root of a checkout."""
    packaged = Path(str(files("balancer") / "_templates"))
    root = packaged if packaged.is_dir() else Path(__file__).parents[3] / "templates"
    return root / "dashboard"


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"
    return Asset(name, KINDS[path.suffix], content)


def _plain(name: str) -> str:
    stem, _, rest = name.rpartition("-")
    return f"{stem}.{rest.rpartition('.')[2]}"
