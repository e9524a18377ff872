"""The JSON Schema of pipelines.yaml, for editors that complete and check as one writes."""

from typing import Any

from pydantic.json_schema import models_json_schema

from etl.config.models import Connection, Pipeline


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of the whole file."""
    _, parts = models_json_schema([(Connection, "validation"), (Pipeline, "validation")])
    definitions = parts["$defs"]
    for name in ("Connection", "Pipeline"):
        definitions[name]["properties"].pop("name")
        definitions[name]["required"] = [
            key for key in definitions[name].get("required", []) if key != "name"
        ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipelines.yaml",
        "type": "object",
        "additionalProperties": False,
        "required": ["version", "pipelines"],
        "properties": {
            "version": {"const": 1},
            "connections": {
                "type": "object",
                "additionalProperties": {"$ref": "#/$defs/Connection"},
            },
            "pipelines": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
                "additionalProperties": {"$ref": "#/$defs/Pipeline"},
            },
        },
        "$defs": definitions,
    }
