"""ONNX Runtime sends usage data to its maker unless it is told not to: nothing of ours lets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edge_asd

DETECTOR = Path(edge_asd.__file__).parent / "demo" / "slide-rail.cae.onnx"
PLAIN = f"import onnxruntime; onnxruntime.InferenceSession({str(DETECTOR)!r})"


def prepares_to_send(program: str, home: Path) -> bool:
    """Whether a session leaves the database in which the data wait to be sent."""
    unset = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")  # it is silent in continuous integration
    environment = {k: v for k, v in os.environ.items() if k not in unset} | {"HOME": str(home)}
    home.mkdir()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
    return any(home.rglob("onnxruntime.db"))


@pytest.mark.parametrize("package", ["edge_asd", "edge_asd_train"])
def test_nothing_is_prepared_to_be_sent(package: str, tmp_path: Path) -> None:
    assert not prepares_to_send(f"import {package}; {PLAIN}", tmp_path / "ours")
    if not prepares_to_send(PLAIN, tmp_path / "plain"):
        pytest.skip("this build of ONNX Runtime sends nothing anyhow")
