"""The JSON schema of the configuration, for editors: ``python -m edge_asd.config_schema > config.schema.json``.

It is made of the models that read the configuration, with their docstrings as help texts. An editor that knows it
completes keys, explains them and marks what is wrong while one writes. It refuses nothing that is read; what several
keys say together (a channel that the device does not have) only `edge-asd check` sees.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from edge_asd.config import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PATH = {"type": "string", "minLength": 1}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""pydantic leaves its own words where a number may be written without a decimal point."""


def config_schema() -> dict[str, Any]:
    """The schema, as a document."""
    schema = Config.model_json_schema()
    _tidy(schema)
    definitions: dict[str, Any] = schema.pop("$defs")
    for model in _models(Config):
        section = schema if model is Config else definitions[model.__name__]
        section["description"] = _prose(inspect.getdoc(model) or "")
        helps = _help_texts(model)
        for name, value in section["properties"].items():
            value["description"] = helps[name]
    _widen(schema["properties"], definitions)
    return {"$schema": DIALECT, "title": "edge-asd run -c FILE", **schema, "$defs": definitions}


def _widen(top: dict[str, Any], definitions: dict[str, Any]) -> None:
    """What is also read: short forms, and a key with nothing after it for a section of defaults."""
    machine, active = definitions["MachineSection"]["properties"], definitions["ActiveWhen"]["properties"]
    machine["detectors"]["items"] = {"anyOf": [_PATH, {"$ref": "#/$defs/DetectorEntry"}]}
    machine["active_when"]["anyOf"].append({"const": "learned"})
    _or_nothing(machine, "alarm")
    _or_nothing(top, "scoring")
    definitions["MqttSection"]["properties"]["discovery"]["anyOf"].append({"type": "boolean"})
    definitions["AlarmSection"]["properties"]["raise_after"]["pattern"] = r"^\s*\d{1,6}\s+of\s+\d{1,6}\s*$"
    definitions["MachineSection"]["oneOf"] = [{"required": ["channel"]}, {"required": ["recordings"]}]
    # YAML 1.1, which many editors read, takes these keys for truth values: the example writes them in quotes.
    for name in ("on", "off"):
        active[name]["description"] += ' Write the key in quotes too, "on", for editors that read YAML 1.1.'


def _tidy(schema: Any) -> None:
    """In place: no titles that only repeat a key, and nothing but the dialect's own words."""
    if isinstance(schema, list):
        for item in schema:
            _tidy(item)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("title"), str):
        del schema["title"]
    if schema.get("format") == "path":
        del schema["format"]
        schema.update(_PATH)
    for theirs, ours in _BOUNDS.items():
        if theirs in schema and not isinstance(schema[theirs], dict):
            schema[ours] = schema.pop(theirs)
    for value in schema.values():
        _tidy(value)


def _or_nothing(properties: dict[str, Any], name: str) -> None:
    section = properties[name]
    described = {key: section.pop(key) for key in ("description", "default") if key in section}
    properties[name] = {"anyOf": [section, {"type": "null"}], **described}


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and those within it, each once."""
    found: dict[type[BaseModel], None] = {}

    def walk(annotation: Any) -> None:
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found[annotation] = None
                for field in annotation.model_fields.values():
                    walk(field.annotation)
            return
        for argument in getattr(annotation, "__args__", ()):
            walk(argument)

    walk(model)
    return iter(found)


def _help_texts(model: type[BaseModel]) -> dict[str, str]:
    """What stands under each field in the source."""
    (section,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(section, ast.ClassDef)
    texts = {}
    for field, after in zip(section.body, section.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            texts[field.target.id] = _prose(after.value.value)
    return texts


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "").split())


def main() -> None:
    """Print it."""
    json.dump(config_schema(), sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
