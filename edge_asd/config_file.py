"""Reads a configuration: every error names file, line and column, the key, and what was likely meant."""

from __future__ import annotations

import os
import re
import stat
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
from edge_asd.config_meaning import meant_by_key, meant_by_value
from edge_asd.config_publish import (
    DiscoverySection,
    EvidenceSection,
    MetricsSection,
    MqttSection,
    OutboxSection,
    ServerTlsSection,
    TlsSection,
)
from edge_asd.config_scoring import ScoringSection
from edge_asd.config_types import dotted
from edge_asd.errors import ConfigurationError
from edge_asd.secrets_file import is_secret, without_login
from edge_asd.strict_yaml import Document, YamlError, load, on_one_line

_MAX_BYTES = 500_000
_ERRORS_SHOWN = 20
_EXAMPLE = Path("/etc/edge-asd/example.yaml")
"""Of the Debian package."""


def load_config(path: Path) -> Config:
    """Read a configuration; relative paths in it are made to start at its folder.

    Raises:
        ConfigurationError: one line for each thing that is wrong, with file, line and column.
    """
    text = _read(path)
    try:
        document = load(text)
    except YamlError as error:
        raise ConfigurationError(f"{path}:{error.line}:{error.column}: {error}") from None
    if not isinstance(document.value, dict):
        example = _EXAMPLE if os.access(_EXAMPLE, os.R_OK) else "deploy/edge-asd.example.yaml in the repository"
        raise ConfigurationError(f"{path}:1:1: must say site, node and machines; see {example}")
    try:
        config = Config.model_validate(document.value)
    except ValidationError as error:
        # A list whose items are wrong counts as too short for pydantic: only an empty one is.
        errors = [e for e in error.errors() if not (e["type"] == "too_short" and e["input"])]
        lines = [_explain(path, document, e) for e in errors[:_ERRORS_SHOWN]]
        if len(errors) > _ERRORS_SHOWN:
            lines.append(f"{path}:1:1: and {len(errors) - _ERRORS_SHOWN} more errors; mend these first")
        raise ConfigurationError("\n".join(lines)) from None
    absolute: Config = _with_absolute_paths(config, path.absolute().parent)
    absolute.remember(path, document)
    return absolute


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # A pipe that nobody writes to would be waited for without end.
            raise ConfigurationError(f"{path}: is not a file, but a pipe or a device; save it as a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL within the path
        raise ConfigurationError(f"{str(path)!r}: {error}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"{path}: is larger than {_MAX_BYTES // 1000} kB, no configuration")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        advice = "save it as UTF-8 in the editor, or write no umlauts and the like"
        raise ConfigurationError(f"{path}:{line}:{column}: is not UTF-8 text; {advice}") from None


def instance_name(path: Path) -> str:
    """The daemon's name: the configuration file's, with nothing in it that a topic could not hold."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in path.stem.lower()) or "edge-asd"


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
    location = (*error["loc"], *error.get("ctx", {}).get("at", ()))
    line, column = document.place(location)
    key = dotted(location)
    message, kind = str(error["msg"]), error["type"]
    if kind == "extra_forbidden":
        name = str(location[-1])
        message = f"is not a known key; {meant_by_key(name, _known_keys(location[:-1]), _elsewhere())}"
    elif kind == "missing":
        message = "is missing"
    elif kind == "string_pattern_mismatch":
        message = f"{error['input'][:80]!r} must be "
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
        message = re.sub("^Input is not a valid path.*", "should be the name of a file", message)
        message = re.sub("valid dictionary or instance of .*", "mapping of keys to values", message)
        shown = _shown(error["input"], location)
        message = message.replace("tuple", "list") + (f", not {shown!r}" if shown is not None else "")
        meant = meant_by_value(kind, error["input"], location[-1]) if shown is not None else None
        message += f"; {meant}" if meant else ""
    return f"{path}:{line}:{column}: {on_one_line(f'{key}: {message}')}"


def _shown(value: Any, location: tuple[Any, ...]) -> str | None:
    """A value as far as a message may quote it; None where it may be a secret."""
    if any(is_secret(str(part)) for part in location):
        return None
    if isinstance(value, dict | list):  # what is in it may be anything
        return "{...}" if isinstance(value, dict) else "[...]"
    return without_login(str(value))[:60]


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
        "discovery": DiscoverySection,
        "metrics": MetricsSection,
        "scoring": ScoringSection,
        "metrics.tls": ServerTlsSection,
        "evidence": EvidenceSection,
        "outbox": OutboxSection,
    }
    for depth, part in enumerate(location, 1):
        section = sections.get(dotted(location[:depth]), sections.get(str(part), section))
    return list(section.model_fields)


def _elsewhere() -> dict[str, list[str]]:
    """Keys of sections that a line with the wrong indentation may have left."""
    sections: dict[str, type[BaseModel]] = {
        "the top of the file": Config,
        "a machine": MachineSection,
        "alarm": AlarmSection,
    }
    sections |= {"device": DeviceSection, "active_when": ActiveWhen, "mqtt": MqttSection, "metrics": MetricsSection}
    sections |= {"evidence": EvidenceSection}
    return {place: list(section.model_fields) for place, section in sections.items()}
