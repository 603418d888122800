"""What tests of the pipeline and of replay share: a quick alarm, pipelines, and readings without what must differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline, Reading
from edge_asd.replay import window_document

RATE = 16_000
QUICK = AlarmSettings(threshold=2.0, raise_count=1, raise_window=1, clear_after=1, rest_seconds=0.0)
"""Every anomalous window raises, every quiet one clears: events as often as can be."""


def pipeline_of(*detectors: Detector, alarm: AlarmSettings = QUICK, hop: float = 2.5, **more: Any) -> Pipeline:
    return Pipeline([MachineDetector.of(d, "id_00") for d in detectors], alarm, hop_seconds=hop, **more)


def essence(readings: list[Reading]) -> list[dict[str, Any]]:
    """All of the readings but what must differ from run to run: UUIDs and times taken."""
    documents = [window_document(r) | {"start": r.start, "end": r.end, "level": r.level_dbfs} for r in readings]
    return [{k: v if k != "incident" else v is not None for k, v in d.items()} for d in documents]


def write(path: Path, samples: Float32Array, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else "PCM_16")
    return path
