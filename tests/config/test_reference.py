"""The schema for machines and people: complete, current, and true for the examples."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from balancer.config import starter
from balancer.config.addresses import NodeUrl
from balancer.config.arvados import ArvadosNode, Cluster
from balancer.config.errors import Severity
from balancer.config.file import load
from balancer.config.loader import parse
from balancer.config.reference import json_schema, keys, markdown, plan_markdown
from balancer.config.schema import Config
from balancer.config.section import Section
from balancer.config.upgradeplan import Plan
from tests.config.support import loaded
from tests.config.test_mutations import BASE, MUTATIONS, mutated

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))
CLUSTER = Cluster(
    "/etc/arvados/config.yml", "xarv1", "Controller", (ArvadosNode("a.b", NodeUrl("http://a.b:8003"), 16),)
)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def data(text: str) -> Any:
    return plain(parse(text, "f.yml", {}).data)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def ours() -> list[Path]:
    """The examples that are configurations of ours (upgrade plans and others lie beside them)."""
    return [path for path in EXAMPLES if "\nlisten:" in path.read_text()]


@pytest.mark.parametrize("name", ["arv-balance.yml", "full.yml", "minimal.yml"])
def test_the_examples_that_the_documents_name_are_there(name: str) -> None:
    assert ROOT / "examples" / name in ours()


@pytest.mark.parametrize("path", ours(), ids=lambda path: path.name)
def test_every_example_is_valid_without_a_warning(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    assert [fault.message for fault in load(path, env={}, look_at_files=False).faults] == []
    validator.validate(data(path.read_text()))


def test_the_configuration_of_the_readme_is_valid_without_a_warning(validator: jsonschema.Draft202012Validator) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    configurations = [block for block in blocks if "\nlisten:" in block]
    assert configurations
    for text in configurations:
        assert [fault.message for fault in loaded(text).faults] == []
        validator.validate(data(text))


@pytest.mark.parametrize("text", [starter.plain(), starter.arvados(CLUSTER)], ids=["plain", "arvados"])
def test_the_starter_file_is_valid(text: str, validator: jsonschema.Draft202012Validator) -> None:
    found = [fault.path for fault in loaded(text).faults if fault.severity is Severity.ERROR]
    assert found in ([], ["nodes.from.arvados"]), "the Arvados file is not on this machine"
    validator.validate(data(text))


def test_what_is_commented_out_in_the_starter_file_is_valid_too() -> None:
    text = starter.plain().replace("\n# - ", "\n  - ").replace("\n#   ", "\n    ").replace("\n# listen", "\n  listen")
    text = text.replace("\n# tokens", "\n  tokens")
    assert "tokens:" in text
    assert [fault.message for fault in loaded(text).errors] == []


def test_the_full_example_has_every_key() -> None:
    used = set(_paths(data((ROOT / "examples" / "full.yml").read_text())))
    elsewhere = {"dns"} | {key.path for key in keys() if key.path.startswith(("nodes.from", "nodes.overrides"))}
    secret = {"env", "credential", "arvados", "file"}  # one place a secret
    missing = {key.path for key in keys()} - used - elsewhere
    assert {path for path in missing if path.rsplit(".", 1)[-1] not in secret} == set()


def _paths(value: Any, path: str = "") -> Iterator[str]:
    named = path in ("nodes", "designated", "peers")
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}.{'NAME' if named else key}" if path else key
            yield here
            yield from _paths(item, here)
    elif isinstance(value, list):
        yield f"{path}[]"
        for item in value:
            yield from _paths(item, f"{path}[]")


def test_every_key_is_described() -> None:
    assert [key.path for key in keys() if not key.description.endswith((".", ")"))] == []


def test_every_field_of_every_section_is_in_the_reference() -> None:
    page = markdown()
    for key in keys():
        name = key.path.removeprefix(f"{key.section}.") if key.section else key.path
        assert f"`{name}`" in page
        assert key.description in page


def test_every_section_is_reachable_from_one_of_the_two_documents() -> None:
    def below(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for found in section.__subclasses__():
            yield found
            yield from below(found)

    reachable = {key.child for root in (Config, Plan) for key in keys(root)} | {Config, Plan}
    assert {section.__name__ for section in below(Section) if section not in reachable} == set()


def test_the_reference_page_and_the_published_schema_are_current() -> None:
    assert (ROOT / "docs" / "config.md").read_text() == markdown(), "run: python -P tools/config_reference.py"
    assert (ROOT / "docs" / "upgrade-plan.md").read_text() == plan_markdown(), (
        "run: python -P tools/config_reference.py"
    )
    published = json.loads((ROOT / "docs" / "arv-balance.schema.json").read_text())
    assert published == json_schema(), "run: python -P tools/config_reference.py"


def test_the_json_schema_takes_what_the_checker_takes(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(data(BASE))


# What only the whole file can say is not in the JSON Schema, nor are bounds of texts with units.
_KINDS = (
    "unknown key",
    "expected a",
    "is not one of",
    "no unit",
    "is not a network",
    "is not a size",
    "out of range",
    "missing key",
)

_OF_A_KIND = [
    mutation
    for mutation in MUTATIONS
    if any(kind in mutation.message for kind in _KINDS) and "0s is" not in mutation.message
]


@pytest.mark.parametrize("mutation", _OF_A_KIND, ids=lambda m: m.message)
def test_the_json_schema_refuses_what_the_checker_refuses_for_its_kind(
    mutation: Any, validator: jsonschema.Draft202012Validator
) -> None:
    text, _ = mutated([mutation])
    assert not validator.is_valid(data(text))
