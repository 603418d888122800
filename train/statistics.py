"""The detector without a network: distances of clip statistics of the log-Mel itself. Fitted in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_asd.detector import Detector

from .clip_scorer import ClipScorer, fit_clip_scorer
from .training import TrainingSet, finish, report


class StatisticsDetector(nn.Module):
    """Log-Mel less its clip's mean level, scored by its statistics."""

    def __init__(self, scorer: ClipScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score ``[window]``, anomaly map ``[window, mel, frame]``, and the score again as report score."""
        levelled = log_mel - log_mel.mean(dim=(1, 2), keepdim=True)
        score, anomaly_map = self.scorer(levelled, machine_id)
        return score, anomaly_map, score.clone()


def train(training: TrainingSet, out: Path, *, licence: str | None = None) -> Detector:
    """Fit and write a ``statistics`` detector; prints what was made."""
    started = time.monotonic()
    torch.manual_seed(training.seed)
    levelled = training.log_mel - training.log_mel.mean(axis=(1, 2), keepdims=True)
    fitted = fit_clip_scorer(levelled, training.machine_index, len(training.ids), training.fine_folds)
    detector = finish(
        "statistics",
        StatisticsDetector(fitted.scorer),
        training,
        fitted.held_out,
        out,
        settings={"seed": training.seed, "folds": int(training.fine_folds.max()) + 1},
        licence=licence,
    )
    report(detector, training, started)
    return detector
