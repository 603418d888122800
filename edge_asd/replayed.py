"""What was heard in a recording, and who is told of it while it is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_asd.audio.windows import Window
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import Pipeline, Reading


@dataclass
class ReplayedRecording:
    """One recording, or the recordings of one folder joined, and what was heard in it."""

    path: Path
    machine_id: str | None
    """From ``--id`` or from the file name; None where the detectors know one machine only."""
    is_anomaly: bool | None
    """The label in the file's name, where there is one."""
    readings: list[Reading] = field(default_factory=list)
    seconds: float = 0.0
    """Length of sound that was read."""
    flags: list[str] = field(default_factory=list)
    failed: list[RecordingError] = field(default_factory=list)
    """What could not be read."""

    @property
    def is_scored(self) -> bool:
        """Something could be read, and nothing of a single file failed."""
        return bool(self.readings)

    def mean(self, value: Callable[[Reading], float | None]) -> float | None:
        """Mean of a value over the windows that were scored."""
        values = [v for r in self.readings if (v := value(r)) is not None]
        return math.fsum(values) / len(values) if values else None

    def detector_score(self, number: int) -> float | None:
        """Mean score of one detector."""
        return self.mean(lambda r: r.detectors[number].score if r.detectors else None)

    @property
    def score(self) -> float | None:
        """Of the recording: the detector's mean score; with several detectors the mean of their highest rarity.

        The highest rarity less what Bonferroni takes is the machine's rarity, but for the zero at which that ends.
        """
        if self.readings and len(self.readings[0].detectors) == 1:
            return self.detector_score(0)
        return self.mean(lambda r: max(d.rarity for d in r.detectors) if r.detectors else None)

    @property
    def rarity(self) -> float | None:
        """Mean over the windows."""
        return self.mean(lambda r: r.rarity)


class Listener:
    """Told of what is replayed while it is read; this one does not care."""

    def begin(self, recording: ReplayedRecording, pipeline: Pipeline) -> None:
        """A recording, or a stream, begins."""

    def file(self, path: Path, position: int) -> None:
        """A file begins at a position of the recording, in samples at the pipeline's rate."""

    def block(self, samples: Float32Array) -> None:
        """What was read, shape ``[sample]``, before the windows that end in it."""

    def window(self, window: Window, reading: Reading) -> None:
        """A window was read; its samples may be kept."""

    def end(self, recording: ReplayedRecording) -> None:
        """It is over; a single file that failed is without readings now."""
