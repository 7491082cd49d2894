"""An engine: its template, the values that it needs, and how its own checker is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from balancer import __version__
from balancer.render import haproxy, quoting
from balancer.render.description import Description

Context = Callable[[Description, Mapping[str, str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Engine:
    """One balancer that we write configuration for. `check` is its checker's command line, `{file}` the file."""

    name: str
    template: str
    quote: Callable[[object], str]
    context: Context
    check: tuple[str, ...]
    filters: Mapping[str, Callable[..., str]] = field(default_factory=dict)


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "haproxy",
            "haproxy.cfg.j2",
            quoting.haproxy,
            haproxy.context,
            ("haproxy", "-c", "-f", "{file}"),
            {"ms": haproxy.milliseconds, "bind": haproxy.bind, "bind_options": haproxy.bind_options},
        ),
    )
}


def template_folder() -> Path:
    """Where templates are: inside the package when installed, at the root of a checkout."""
    packaged = Path(str(files("balancer") / "_templates"))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "templates"


def render(engine: Engine, description: Description, options: Mapping[str, str], report: tuple[str, ...] = ()) -> str:
    """Return the engine's configuration. Raises ConfigError for a value that has no safe spelling there."""
    # No HTML in any of them: the engine's own quoting is the filter `quote`.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(template_folder()), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update({"quote": engine.quote, "comment": quoting.comment, **engine.filters})
    about = f"Rendered by arv-balance {__version__} from {quoting.comment(description.source)} for {engine.name}."
    template = environment.get_template(engine.template)
    return template.render(
        about=about,
        report=report,
        config=description.config,
        description=description,
        **engine.context(description, options),
    )
