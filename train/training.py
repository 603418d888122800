"""What every kind of detector does before and after its fit: read the corpus, standardise, calibrate, write, report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edge_asd.calibration import Calibration
from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array, LogMelParameters

from .corpus import (
    MIN_CLIPS,
    Clip,
    CorpusError,
    Windows,
    fingerprint,
    load_windows,
    read_clips,
    split_by_recording,
)
from .export import Made, parity_sample, to_onnx, with_machine_id_default, write_detector

_FINE_FOLDS = 10


@dataclass(frozen=True)
class TrainingSet:
    """Normal windows of one machine type, ready to be fitted."""

    machine: str
    clips: list[Clip]
    windows: Windows
    ids: tuple[str, ...]
    machine_index: NDArray[np.intp]
    """Index of each window's machine id."""
    folds: NDArray[np.intp]
    """Fold of each window for fitting networks; recordings are whole."""
    fine_folds: NDArray[np.intp]
    """The same where no network is fitted: that takes no time, and more folds make fits more like the final one."""
    seed: int

    @property
    def log_mel(self) -> Float32Array:
        """dB, shape ``[window, mel, frame]``."""
        return self.windows.log_mel


def read_training_set(
    data: Path,
    machine: str,
    *,
    ids: Sequence[str] | None = None,
    folds: int = 4,
    recording_digits: int = 1,
    seed: int = 0,
) -> TrainingSet:
    """Read ``DATA/MACHINE/train``.

    Args:
        data: folder in the DCASE layout.
        machine: folder within it.
        ids: machine ids to take; all unless given.
        folds: parts for out-of-fold scores; an id with fewer recordings makes them fewer.
        recording_digits: see `read_clips`.
        seed: of the split.

    Raises:
        CorpusError: nothing to train on, or too little of an id.
        ValueError: fewer than 2 folds.
    """
    if folds < 2:
        raise ValueError(f"folds {folds}: at least 2 are needed to score clips that were not trained on")
    clips = read_clips(data, machine, "train", recording_digits=recording_digits)
    known = sorted({c.machine_id for c in clips})
    unknown = set(ids or []) - set(known)
    if unknown:
        raise CorpusError(
            f"{data / machine / 'train'}: no clips of {', '.join(sorted(unknown))}; of {', '.join(known)}"
        )
    chosen = tuple(known if not ids else sorted(set(ids)))
    clips = [c for c in clips if c.machine_id in chosen]
    windows = load_windows(clips, LogMelParameters(), title=f"log-Mel of {machine}")
    owners = [clips[i] for i in windows.clip]
    counts = Counter(c.machine_id for c in owners)
    for machine_id in chosen:
        if counts[machine_id] < MIN_CLIPS:
            raise CorpusError(
                f"{machine_id}: {counts[machine_id]} normal windows of 10 s; {MIN_CLIPS} at least are needed"
            )
    recordings = [c.recording for c in owners]
    fewest = min(len({r for r in recordings if r.startswith(f"{i}/")}) for i in chosen)
    split, fine = (split_by_recording(recordings, max(2, min(n, fewest)), seed) for n in (folds, _FINE_FOLDS))
    index = np.array([chosen.index(c.machine_id) for c in owners], np.intp)
    return TrainingSet(machine, clips, windows, chosen, index, split, fine, seed)


class Standardise(nn.Module):
    """Log-Mel less its clip's mean level, then less the mean and over the spread of each mel of its machine id."""

    def __init__(self, mean: NDArray[np.float32], spread: NDArray[np.float32]) -> None:
        """
        Args:
            mean: of the levelled log-Mel, shape ``[id, mel]``, dB.
            spread: its standard deviation, same shape.
        """
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("spread", torch.from_numpy(spread))

    @classmethod
    def fit(cls, log_mel: Float32Array, machine_index: NDArray[np.intp], ids: int) -> Standardise:
        """Means and spreads over windows ``[window, mel, frame]`` and their frames."""
        levelled = log_mel - log_mel.mean(axis=(1, 2), keepdims=True)
        of_id = [levelled[machine_index == i] for i in range(ids)]
        mean = np.stack([part.mean(axis=(0, 2)) for part in of_id])
        spread = np.stack([part.std(axis=(0, 2)) + 0.1 for part in of_id])
        return cls(mean.astype(np.float32), spread.astype(np.float32))

    def forward(self, log_mel: torch.Tensor, machine_id: torch.Tensor) -> torch.Tensor:
        """Both arguments with one entry for each window; shape stays ``[window, mel, frame]``."""
        levelled = log_mel - log_mel.mean(dim=(1, 2), keepdim=True)
        return (levelled - self.mean[machine_id][:, :, None]) / self.spread[machine_id][:, :, None]

    @torch.no_grad()
    def apply(self, log_mel: Float32Array, machine_index: NDArray[np.intp]) -> Float32Array:  # type: ignore[override]
        """The same for arrays."""
        done: Float32Array = self(torch.from_numpy(log_mel), torch.from_numpy(machine_index)).numpy()
        return done


def finish(
    kind: str,
    module: nn.Module,
    training: TrainingSet,
    held_out: NDArray[np.float64],
    out: Path,
    *,
    settings: dict[str, Any],
    licence: str | None,
    model: onnx.ModelProto | None = None,
    search_steps: int | None = None,
) -> Detector:
    """Calibrate on held-out scores, export, check and write.

    Args:
        kind: of detector.
        module: (log_mel, machine_id) to (score, anomaly map, report score).
        training: what it was fitted to.
        held_out: out-of-fold score of every window.
        out: the detector file.
        settings: for the metadata.
        licence: of the recordings, for the metadata.
        model: the exported graph where ``module`` cannot be exported as it is.
        search_steps: for the parity check and the self-check, where the detector searches.
    """
    calibration = {}
    for i, machine_id in enumerate(training.ids):
        own = training.machine_index == i
        levels = training.windows.level_dbfs[own]
        calibration[machine_id] = Calibration.from_scores(
            held_out[own].tolist(),
            level_dbfs=float(np.median(levels)),
            level_low_dbfs=float(np.quantile(levels, 0.01)),
            source="training clips, each scored by networks and distances that had not heard its recording",
        )
    made = Made(
        kind=kind,
        machine_type=training.machine,
        ids=training.ids,
        calibration=calibration,
        settings=settings,
        data={
            "clips": len(training.clips),
            "recordings": len({c.recording for c in training.clips}),
            "fingerprint": fingerprint(training.clips),
            "licence": licence or "not stated",
        },
    )
    if model is None:
        model = to_onnx(module, training.log_mel.shape[1:])  # type: ignore[arg-type]
    sample = parity_sample(len(training.windows), training.machine_index)
    with torch.no_grad():
        expected, _, _ = module(
            torch.from_numpy(training.log_mel[sample]), torch.from_numpy(training.machine_index[sample])
        )
    return write_detector(
        with_machine_id_default(model, len(training.ids)),
        made,
        out,
        reference=training.log_mel[sample],
        machine_index=training.machine_index[sample],
        expected=expected.double().numpy(),
        search_steps=search_steps,
    )


def report(detector: Detector, training: TrainingSet, started: float) -> None:
    """Say what was written, in a few lines."""
    size = detector.path.stat().st_size / 2**20
    print(
        f"{detector.path}: {detector.metadata.kind} for {training.machine} ({', '.join(training.ids)}), {size:.1f} MB"
    )
    data = detector.metadata.data
    print(
        f"  trained on {data['clips']} clips of {data['recordings']} recordings in {time.monotonic() - started:.0f} s"
    )
    for machine_id, calibration in detector.metadata.calibration.items():
        print(
            f"  {machine_id}: {len(calibration.scores)} held-out normal windows, level {calibration.level_dbfs:.1f}"
            f" dBFS, one in 100 scores above {calibration.score_at(2.0):.2f}"
        )
