"""The kinds of detector, for every command that trains one: their names, folds, presets, and the one way to train them.

Imports torch only where it is needed: names and folds are wanted for ``--help`` too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_asd.detector import Detector

    from .training import TrainingSet

STATISTICS, CAE, ANOGAN = "statistics", "cae", "anogan"
FOLDS = {STATISTICS: 10, CAE: 3, ANOGAN: 2}
"""Parts for scores of clips that were not trained on. Each is a network more to train, an AnoGAN's the slowest."""
KINDS = tuple(FOLDS)


def presets_of(kind: str) -> tuple[dict[str, Any], frozenset[str]]:
    """Settings by the name of the preset, and which of them are our reading of the report.

    Args:
        kind: ``cae`` or ``anogan``; ``statistics`` has no settings.

    Raises:
        ModuleNotFoundError: torch is not installed.
        ValueError: a kind without settings.
    """
    if kind == CAE:
        from . import cae_network

        return dict(cae_network.PRESETS), cae_network.OUR_READING
    if kind == ANOGAN:
        from . import anogan_networks

        return dict(anogan_networks.PRESETS), anogan_networks.OUR_READING
    raise ValueError(f"{kind} has no settings")


def train_detector(
    kind: str,
    training: TrainingSet,
    out: Path,
    settings: Any = None,
    *,
    licence: str | None = None,
    preset: str = "default",
    allow_collapse: bool = False,
) -> Detector:
    """Train a detector, and write it.

    Args:
        kind: one of `KINDS`.
        training: normal windows.
        out: the detector file.
        settings: of the kind; its default preset unless given.
        licence: of the recordings, for the metadata.
        preset: name of the settings, for the metadata.
        allow_collapse: write the detector, marked, even if it does not follow its input or follows the level.

    Raises:
        CollapseError: that is so, and not allowed; or the networks diverged.
        ExportError: the file would not compute what was trained.
        ValueError: no such kind.
    """
    if kind == STATISTICS:
        from . import statistics

        return statistics.train(training, out, licence=licence, allow_collapse=allow_collapse)
    if kind == CAE:
        from . import cae

        return cae.train(training, out, settings, licence=licence, preset=preset, allow_collapse=allow_collapse)
    if kind == ANOGAN:
        from . import anogan_detector

        train = anogan_detector.train
        return train(training, out, settings, licence=licence, preset=preset, allow_collapse=allow_collapse)
    raise ValueError(f"{kind} is no kind of detector that can be trained here; there are {', '.join(KINDS)}")
