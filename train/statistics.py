"""The detector without a network: distances of clip statistics of the log-Mel itself. Fitted in seconds."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array

from .clip_scorer import ClipScorer, Images, fit_clip_scorer
from .collapse import Figures, level_correlation
from .scratch import chunks, scratch
from .training import TrainingSet, finish, report


class StatisticsDetector(nn.Module):
    """Log-Mel less its clip's mean level, scored by its statistics."""

    def __init__(self, scorer: ClipScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score ``[window]``, anomaly map ``[window, mel, frame]``, and the score again as report score."""
        score, anomaly_map = self.scorer(log_mel - log_mel.mean(dim=(1, 2), keepdim=True), machine_id)
        return score, anomaly_map, score.clone()


def train(training: TrainingSet, out: Path, *, licence: str | None = None, allow_collapse: bool = False) -> Detector:
    """Fit and write a ``statistics`` detector; prints what was made.

    Raises:
        CollapseError: the score is the level.
    """
    started = time.monotonic()
    torch.manual_seed(training.seed)
    fitted = fit_clip_scorer(
        Images(levelled(training.log_mel), training.machine_index),
        len(training.ids),
        training.fine_split,
        background=[replace(b.images, values=levelled(b.images.values)) for b in training.background],
    )
    correlation = level_correlation(fitted.held_out, training.windows.level_dbfs, training.machine_index)
    figures = Figures(level_correlation=correlation)
    figures.check(allow_collapse)
    detector = finish(
        "statistics",
        StatisticsDetector(fitted.scorer),
        training,
        fitted.held_out,
        out,
        settings={
            "seed": training.seed,
            "folds": training.fine_split.count,
            "collapse": figures.as_settings(allow_collapse),
        },
        licence=licence,
    )
    report(detector, training, started)
    return detector


def levelled(log_mel: Float32Array) -> Float32Array:
    """Log-Mels less the mean level of each clip, ``[window, mel, frame]``: a gain changes nothing."""
    less: Float32Array = scratch(log_mel.shape)
    for some in chunks(len(log_mel)):
        np.subtract(log_mel[some], log_mel[some].mean(axis=(1, 2), keepdims=True), out=less[some])
    return less
