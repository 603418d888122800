"""The configuration's JSON schema: in step with the models, true to what is read, and of use in an editor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from test_mutated_configurations import EXAMPLE, mutation

from edge_asd import strict_yaml
from edge_asd.config_file import load_config
from edge_asd.config_schema import config_schema
from edge_asd.errors import ConfigurationError

SMALL: dict[str, Any] = {"site": "a", "node": "b", "machines": [{"name": "m", "recordings": "r"}]}


@pytest.fixture(scope="module")
def validator(schema: Callable[[str], Draft202012Validator]) -> Draft202012Validator:
    return schema("config")


def test_the_published_schema_is_that_of_the_models() -> None:
    published = json.loads((EXAMPLE.parent / "schemas" / "config.schema.json").read_text(encoding="utf-8"))
    assert published == config_schema(), "python -m edge_asd.config_schema > deploy/schemas/config.schema.json"


def test_the_example_names_the_schema_and_fits_it(validator: Draft202012Validator) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named and (EXAMPLE.parent / named[1]).samefile(EXAMPLE.parent / "schemas" / "config.schema.json")
    validator.validate(strict_yaml.load(text).value)


def test_the_example_is_read(tmp_path: Path) -> None:
    """But for the comments that say what is a default, it is a configuration that may be used as it is."""
    assert len(load_config(EXAMPLE).machines) == 3


def test_every_key_has_a_help_text() -> None:
    document = config_schema()
    for section in [document, *document["$defs"].values()]:
        assert section["description"] and section["additionalProperties"] is False
        for name, value in section["properties"].items():
            assert value["description"], name
            assert "`" not in value["description"]


def test_whatever_is_read_fits_the_schema(validator: Draft202012Validator, tmp_path: Path) -> None:
    path, read, wrongly_fits = tmp_path / "hall.yaml", 0, 0
    for seed in range(50_005, 50_605, 2):
        path.write_bytes(mutation(seed))
        try:
            document = strict_yaml.load(path.read_text(encoding="utf-8")).value
        except ValueError:
            continue
        fits = validator.is_valid(document)
        try:
            load_config(path)
        except ConfigurationError:
            wrongly_fits += fits
            continue
        read += 1
        assert fits, f"mutation {seed}: {next(validator.iter_errors(document)).message}"
    assert read > 20, "too few to say anything"
    assert wrongly_fits < 60, "an editor with this schema would not find much"


@pytest.mark.parametrize(
    "more",
    [
        {"machines": [{"name": "m", "recordings": "r", "detectors": ["a.onnx", {"file": "b.onnx", "id": "id_00"}]}]},
        {"machines": [{"name": "m", "recordings": "r", "active_when": "learned", "alarm": None}]},
        {"mqtt": {"host": "h", "tls": None, "discovery": True}},
        {"mqtt": {"host": "h", "discovery": {"prefix": "home"}}, "metrics": None, "scoring": None},
    ],
)
def test_short_forms_fit(validator: Draft202012Validator, tmp_path: Path, more: dict[str, Any]) -> None:
    validator.validate(SMALL | more)
    path = tmp_path / "hall.yaml"
    path.write_text(json.dumps(SMALL | more))
    load_config(path)


@pytest.mark.parametrize(
    "more",
    [
        {"sitte": "x"},
        {"site": 3},
        {"site": "Plant 3"},
        {"machines": []},
        {"machines": [{"name": "m"}]},
        {"machines": [{"name": "m", "recordings": "r", "channel": 1}]},
        {"machines": [{"name": "m", "recordings": "r", "hop_seconds": 0.5}]},
        {"machines": [{"name": "m", "recordings": "r", "hop_seconds": "10"}]},
        {"machines": [{"name": "m", "recordings": ""}]},
        {"machines": [{"name": "m", "recordings": "r", "active_when": "always"}]},
        {"machines": [{"name": "m", "recordings": "r", "active_when": {"level_above_dbfs": 3}}]},
        {"machines": [{"name": "m", "recordings": "r", "alarm": {"raise_after": "3/5"}}]},
        {"machines": [{"name": "m", "recordings": "r", "alarm": {"false_alarms_per_day": 0}}]},
        {"mqtt": {"port": 1883}},
        {"mqtt": {"host": "h", "port": 70000}},
        {"device": {"name": "USB", "rate": 4000}},
    ],
)
def test_an_editor_marks_what_is_refused(validator: Draft202012Validator, tmp_path: Path, more: dict[str, Any]) -> None:
    assert not validator.is_valid(SMALL | more)
    path = tmp_path / "hall.yaml"
    path.write_text(json.dumps(SMALL | more))
    with pytest.raises(ConfigurationError):
        load_config(path)
