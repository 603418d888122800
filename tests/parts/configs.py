"""Configurations as files, and what is said of wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_asd.config import Config
from edge_asd.config_file import load_config
from edge_asd.errors import EXIT_CONFIGURATION, ConfigurationError

SMALL = """\
site: plant-3
node: press-hall-1
machines:
  - name: slide-rail-7
    recordings: sound
    detectors: [cae.onnx]
"""


def config(file: Path, text: str) -> Config:
    file.write_text(text, encoding="utf-8")
    return load_config(file)


def complaints(file: Path, text: str) -> list[tuple[str, str]]:
    """What is said of a wrong configuration: place as LINE:COLUMN, and the rest of the line."""
    with pytest.raises(ConfigurationError) as caught:
        config(file, text)
    assert caught.value.exit_status == EXIT_CONFIGURATION
    lines = []
    for line in str(caught.value).split("\n"):
        match = re.fullmatch(re.escape(str(file)) + r":(\d+:\d+): (.+)", line)
        assert match, f"not FILE:LINE:COLUMN: WHAT: {line!r}"
        lines.append((match[1], match[2]))
    return lines


def complaint(file: Path, text: str) -> tuple[str, str]:
    (only,) = complaints(file, text)
    return only
