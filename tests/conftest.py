"""What several tests need: recordings written on the spot, and the folder of real ones where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import settings

# A busy machine is no reason to fail.
settings.register_profile("edge_asd", deadline=None)
settings.load_profile("edge_asd")

WriteRecording = Callable[..., Path]


@pytest.fixture
def write_recording(tmp_path: Path) -> WriteRecording:
    """Writes samples, shape ``[sample]`` or ``[sample, channel]``, below the test's folder; options as soundfile's."""

    def write(name: str, samples: Any, rate: int = 16_000, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.asarray(samples), rate, **options)
        return path

    return write


@pytest.fixture(scope="session")
def recordings_folder() -> Path:
    """Real recordings in the DCASE layout, which are not part of the project."""
    folder = os.environ.get("EDGE_ASD_RECORDINGS")
    if not folder:
        pytest.skip("EDGE_ASD_RECORDINGS names no folder of real recordings")
    if not Path(folder).is_dir():
        pytest.fail(f"EDGE_ASD_RECORDINGS={folder} is not a folder")
    return Path(folder)
