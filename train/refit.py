"""Fits detectors that an evaluation sets beside those it judges: plain statistics, and the same kind on one id alone.

They are kept in a folder, named by what they were made of, so that the next evaluation, or one that was killed, finds
them there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_asd import __version__
from edge_asd.detector import Detector
from edge_asd.verification import load_detector

from .corpus import Clip, fingerprint, read_clips
from .kinds import FOLDS, STATISTICS, presets_of, train_detector


@dataclass(frozen=True)
class Refits:
    """Where they are kept, and what they are fitted to."""

    folder: Path
    data: Path
    """Folder in the DCASE layout; ``DATA/MACHINE/train`` is fitted to."""
    recording_digits: int = 1

    def statistics(self, machine: str) -> Detector:
        """A ``statistics`` detector of all ids of a machine.

        Raises:
            CorpusError: too little to train on.
            SplitError: clips that cannot be split.
        """
        return self._made(STATISTICS, {}, machine, None, folds=FOLDS[STATISTICS], seed=0)

    def alone(self, detector: Detector, machine: str, machine_id: str) -> Detector:
        """A detector of the same kind and settings, fitted to one id alone: what a plant with one machine has.

        Without the background that it may have been trained with; collapse is allowed, as the figures show it.

        Raises:
            CorpusError: too little to train on.
            SplitError: clips that cannot be split.
        """
        metadata = detector.metadata
        settings = metadata.settings
        folds = max(2, int(settings.get("folds", 2)))
        return self._made(metadata.kind, settings, machine, machine_id, folds=folds, seed=int(settings.get("seed", 0)))

    def _made(
        self, kind: str, settings: dict[str, Any], machine: str, machine_id: str | None, *, folds: int, seed: int
    ) -> Detector:
        clips = read_clips(self.data, machine, "train", recording_digits=self.recording_digits)
        own = [c for c in clips if machine_id in (None, c.machine_id)]
        chosen = _settings(kind, settings)
        story = [kind, None if chosen is None else dataclasses.asdict(chosen), folds, seed, self.recording_digits]
        path = self.folder / f"{machine}.{machine_id or 'all'}.{kind}.{_key(story, own)}.onnx"
        if path.is_file():
            return load_detector(path)
        self._fit(kind, chosen, machine, machine_id, folds, seed, path)
        return load_detector(path)

    def _fit(
        self, kind: str, settings: Any, machine: str, machine_id: str | None, folds: int, seed: int, out: Path
    ) -> None:
        from .training import read_training_set

        print(f"fitting {kind} to {machine_id or 'all ids'} of {machine}", file=sys.stderr)
        training = read_training_set(
            self.data,
            machine,
            ids=None if machine_id is None else [machine_id],
            folds=folds,
            recording_digits=self.recording_digits,
            seed=seed,
        )
        # What the training says of itself belongs to the training; standard output is the evaluation's.
        with contextlib.redirect_stdout(sys.stderr):
            train_detector(kind, training, out, settings, allow_collapse=True)


def can_refit(detector: Detector) -> bool:
    """Whether it is of a kind, and made with settings, that this version of the training package can make again."""
    try:
        _settings(detector.metadata.kind, detector.metadata.settings)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def _settings(kind: str, stored: dict[str, Any]) -> Any:
    """The settings class of a kind from a detector's metadata; None for ``statistics``, which has none."""
    if kind == STATISTICS:
        return None
    made = type(presets_of(kind)[0]["default"])
    fields = [f.name for f in dataclasses.fields(made) if f.name != "seed"]
    return made(**{name: tuple(v) if isinstance(v := stored[name], list) else v for name in fields})


def _key(story: Sequence[Any], clips: Sequence[Clip]) -> str:
    told = json.dumps([__version__, *story, fingerprint(clips)], default=list)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
