"""No text of the configuration can leave its place in a rendered file: it is refused, or it is a value and no more."""

import copy
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from balancer.errors import ConfigError
from balancer.render import programs
from balancer.render.description import describe
from balancer.render.engine import ENGINES, render
from tests.config.support import loaded
from tests.engines import hostile, shapes
from tests.engines.checking import accepts
from tests.render.settings import Values
from tests.support.ports import free_port
from tests.support.programs import lacking

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
# What has no file behind it, so that a checker can judge the rest.
CHECKED = [
    "routes[].match.headers", "routes[].match.path", "key of routes[].match.headers", "health.path", "health.host",
    "health.token.env", "health.expect.json", "health.expect.body", "key of health.expect.json", "log.path",
    "request_id.accept", "request_id.header", "balance.hash.name", "nodes.unix", "listen.unix", "key of nodes",
    "key of designated", "routes[].match.host", "forwarding.via", "forwarding.default_host", "log.redact",
]  # fmt: skip
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


def rendered(engine: str, values: Values, options: dict[str, str]) -> str | None:
    """The file, or None when our own check or the renderer refuses a value."""
    found = loaded(json.dumps(values))
    if not found.is_valid:
        return None
    try:
        return render(ENGINES[engine], describe(found.config, "site.yml"), options)
    except ConfigError:
        return None


@pytest.mark.parametrize("engine", ENGINES)
@given(place=st.sampled_from(hostile.places()), text=hostile.texts())
@example("request_id.header", "#")
@example("balance.hash.name", "'%a")
@example("health.expect.body", "\" ' # {{ }} ${HOME}")
@example("health.token.env", 'X" }} \n')
@settings(max_examples=40, phases=NO_SHRINKING)
def test_a_hostile_text_is_refused_or_stays_in_its_place(engine: str, place: str, text: str) -> None:
    if not programs.find(ENGINES[engine]):
        lacking(programs.advice(ENGINES[engine]))
    found = rendered(engine, hostile.with_text(place, text), {})
    if found is None:
        return
    harmless = rendered(engine, hostile.with_text(place, "a"), {})
    assert harmless is not None
    assert shapes.shape(engine, found) == shapes.shape(engine, harmless)


@pytest.mark.parametrize("engine", ENGINES)
@given(place=st.sampled_from(CHECKED), text=hostile.texts())
@example("health.expect.body", "\" ' # {{ }} ${HOME} \\é")
@settings(max_examples=12, phases=NO_SHRINKING)
def test_an_engine_takes_what_is_not_refused(engine: str, place: str, text: str) -> None:
    if not programs.find(ENGINES[engine]):
        lacking(programs.advice(ENGINES[engine]))
    with tempfile.TemporaryDirectory(prefix="arv-hostile-") as folder:
        port = free_port()
        values = plain(hostile.with_text(place, text, folder), free_port())
        found = rendered(
            engine,
            values,
            {
                "folder": folder,
                "socket": f"{folder}/s",
                "dynamic": f"{folder}/traefik.dynamic.yml",
                "statistics-port": str(port),
            },
        )
        assert found is None or accepts(engine, found, Path(folder), statistics_port=port) == ""


def plain(values: Values, port: int) -> Values:
    """The same without files: no TLS, one free port."""
    values = copy.deepcopy(values)
    values["listen"] = [{"bind": f"127.0.0.1:{port}"}, *values["listen"][1:]]
    for node in values["nodes"].values():
        node.pop("tls", None)
        node["url"] = str(node["url"]).replace("https:", "http:")
    return values


def test_a_text_that_leaves_its_place_is_seen() -> None:
    """The shapes tell a broken-out value from a quoted one."""
    found = rendered("haproxy", hostile.with_text("health.expect.body", "a"), {})
    assert found is not None
    broken = found.replace("string a", "string a\n    http-request deny")
    assert shapes.shape("haproxy", broken) != shapes.shape("haproxy", found)
