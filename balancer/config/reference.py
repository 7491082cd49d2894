"""The schema for machines (JSON Schema) and for people (docs/config.md), both from the sections themselves."""

from typing import Any

from balancer.config.schema import Config

SCHEMA_ID = "urn:arv-balance:config:1"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file."""
    schema = Config.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
        "title": "arv-balance",
    }
