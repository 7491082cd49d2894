"""Every key of the file either changes what is rendered, or the report names it for that engine."""

import json
from functools import cache

import pytest

from balancer.config.reference import keys
from balancer.config.schema import Config
from balancer.errors import ConfigError
from balancer.render.capabilities import FEATURES
from balancer.render.description import describe
from balancer.render.engine import ENGINES, render
from balancer.render.report import report_of
from balancer.render.settings import SETTINGS
from tests.config.support import loaded
from tests.render import settings

# Nodes are resolved before anything is rendered; the version of the format is always 1.
_RESOLVED = ("nodes.from.", "nodes.overrides.")
KEYS = tuple(
    key.path for key in keys() if key.child is None and not key.path.startswith(_RESOLVED) and key.path != "version"
)


def config(values: settings.Values) -> Config:
    return loaded(json.dumps(values)).require()


@cache
def pair(path: str) -> tuple[Config, Config]:
    """The configuration before and after a change of this key."""
    before, after = map(config, settings.pair(path))
    return before, after


def rendered(engine: str, of: Config) -> str:
    """The file without the report, or why there is none."""
    try:
        return render(ENGINES[engine], describe(of, "site.yml"), {})
    except ConfigError as exc:
        return f"refused: {exc}"


def test_every_key_of_the_configuration_is_tried() -> None:
    assert set(KEYS) == set(settings.OTHER)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_key_is_dropped_silently(engine: str) -> None:
    dropped = []
    for path in KEYS:
        before, after = pair(path)
        # With either value: an engine may do by itself what one of them asks for.
        differing = [feature for of in (before, after) for feature, _ in report_of(engine, of).differing]
        if rendered(engine, before) == rendered(engine, after) and not any(f.is_about(path) for f in differing):
            dropped.append(path)
    assert not dropped, " ".join(dropped)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_base_is_rendered_and_its_report_stands_in_the_file(engine: str) -> None:
    of = config(settings.BASE)
    report = report_of(engine, of)
    text = render(ENGINES[engine], describe(of, "site.yml"), {}, report.comments())
    for feature, cell in report.differing:
        assert f"#   {cell.grade.value}: {feature.title}: {cell.how}" in text


def test_what_a_feature_is_about_are_keys_that_exist() -> None:
    known = [key.path for key in keys()]
    for feature in (*FEATURES, *SETTINGS):
        for key in feature.keys:
            assert key in known, (feature.name, key)


def test_a_switched_off_setting_is_not_in_the_report() -> None:
    """Otherwise a report that names everything would pass."""
    small = config({"listen": [{"bind": "127.0.0.1:80"}], "nodes": {"a": {"url": "http://127.0.0.1:81"}}})
    named = {feature.name for feature, _ in report_of("nginx", small).differing}
    assert not named & {"capacity", "queue", "proxy protocol", "route timeout", "fail-over", "health token"}
