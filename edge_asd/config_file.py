"""Reads a configuration: every error names file, line and column, the key, and what was likely meant."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edge_asd.config import (
    ActiveWhen,
    AlarmSection,
    Config,
    DetectorEntry,
    DeviceSection,
    MachineSection,
)
from edge_asd.config_publish import MetricsSection, MqttSection, ServerTlsSection, TlsSection
from edge_asd.config_scoring import ScoringSection
from edge_asd.config_types import dotted
from edge_asd.errors import ConfigurationError
from edge_asd.strict_yaml import Document, YamlError, load

_MAX_BYTES = 1_000_000
_LATER = {"evidence": "evidence"}
"""Keys of the design that this version does not know yet."""


def load_config(path: Path) -> Config:
    """Read a configuration; relative paths in it are made to start at its folder.

    Raises:
        ConfigurationError: one line for each thing that is wrong, with file, line and column.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigurationError(f"{path}: is larger than {_MAX_BYTES // 1_000_000} MB, no configuration")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None
    try:
        document = load(text)
    except YamlError as error:
        raise ConfigurationError(f"{path}:{error.line}:{error.column}: {error}") from None
    if not isinstance(document.value, dict):
        raise ConfigurationError(f"{path}:1:1: must say site, node and machines; see the example in deploy/")
    try:
        config = Config.model_validate(document.value)
    except ValidationError as error:
        # A list whose items are wrong counts as too short for pydantic: only an empty one is.
        errors = [e for e in error.errors() if not (e["type"] == "too_short" and e["input"])]
        raise ConfigurationError("\n".join(_explain(path, document, e) for e in errors)) from None
    absolute: Config = _with_absolute_paths(config, path.absolute().parent)
    absolute.remember(path, document)
    return absolute


def _with_absolute_paths(section: Any, folder: Path) -> Any:
    if isinstance(section, Path):
        return folder / section
    if isinstance(section, tuple):
        return tuple(_with_absolute_paths(item, folder) for item in section)
    if isinstance(section, BaseModel):
        values = {name: getattr(section, name) for name in type(section).model_fields}
        changed = {n: _with_absolute_paths(v, folder) for n, v in values.items()}
        return section.model_copy(update={n: v for n, v in changed.items() if v is not values[n]})
    return section


def _explain(path: Path, document: Document, error: Any) -> str:
    """One line for one of pydantic's errors: place, key, what was expected, a likely meaning."""
    location = tuple(error["loc"])
    line, column = document.place(location)
    key = dotted(location)
    message, kind = str(error["msg"]), error["type"]
    if kind == "extra_forbidden":
        name = str(location[-1])
        if name in _LATER:
            message = f"is not known to this version: {_LATER[name]} comes later"
        else:
            known = _known_keys(location[:-1])
            close = [k for k in known if k.startswith(name.lower())] or difflib.get_close_matches(
                name.lower(), known, 1
            )
            message = f"is not a known key; {f'did you mean {close[0]}?' if close else 'known are ' + ', '.join(known)}"
    elif kind == "missing":
        message = "is missing"
    elif kind == "string_pattern_mismatch":
        message = f"{error['input']!r} must be "
        message += (
            "VENDOR:PRODUCT, as in 08bb:29c6"
            if location[-1] == "usb"
            else "small letters, digits, - and _, beginning with a letter or digit"
        )
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    elif kind == "too_short":
        message = "must not be empty"
    else:
        message = re.sub("^Input should", "should", message)
        message = re.sub("valid dictionary or instance of .*", "mapping of keys to values", message)
        message = f"{message.replace('tuple', 'list')}, not {str(error['input'])[:60]!r}"
    # A quoted key may hold anything, and pydantic shows it as it is.
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{key}: {message}")
    return f"{path}:{line}:{column}: {text}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at a place in the document."""
    section: type[BaseModel] = Config
    sections: dict[str, type[BaseModel]] = {
        "device": DeviceSection,
        "machines": MachineSection,
        "detectors": DetectorEntry,
        "active_when": ActiveWhen,
        "alarm": AlarmSection,
        "mqtt": MqttSection,
        "tls": TlsSection,
        "metrics": MetricsSection,
        "scoring": ScoringSection,
        "metrics.tls": ServerTlsSection,
    }
    for depth, part in enumerate(location, 1):
        section = sections.get(dotted(location[:depth]), sections.get(str(part), section))
    return list(section.model_fields)
