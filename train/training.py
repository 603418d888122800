"""What every kind of detector does before and after its fit: read the corpus, standardise, calibrate, write, report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edge_asd.audio.windows import WINDOW_SECONDS
from edge_asd.calibration import MIN_SCORES, Calibration
from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array, LogMelParameters

from .clip_scorer import Images
from .corpus import MIN_CLIPS, Clip, CorpusError, Windows, digest, digests, fingerprint, load_windows, read_clips
from .export import Made, parity_sample, to_onnx, with_defaults, write_detector
from .splits import Split, held_out_share, split_by_recording, split_by_time, stretches_in_time

_FINE_FOLDS = 10
MEAN_IMAGE, UNTRAINED_START = "mean_image", "untrained_start"
"""Ablations: the reconstruction is the training mean; the latent search starts from zeros."""


@dataclass(frozen=True)
class TrainingSet:
    """Normal windows of one machine type, ready to be fitted."""

    machine: str
    clips: list[Clip]
    windows: Windows
    ids: tuple[str, ...]
    machine_index: NDArray[np.intp]
    """Index of each window's machine id."""
    split: Split
    """For fitting networks."""
    fine_split: Split
    """The same where no network is fitted: that takes no time, and more folds make fits more like the final one."""
    seed: int
    background: tuple[Background, ...] = ()
    """Other machines of the site."""

    def parts(self, validation: float) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """For each fit, masks ``[window]`` of the windows to fit on and of those left out, by recordings.

        Args:
            validation: share of the windows that a single fit leaves out, more where calibration needs more; 0: a fit
                for each fold.

        Raises:
            SplitError: too few recordings.
        """
        if not validation:
            return list(self.split.parts())
        return [held_out_share(self.fine_split, self.machine_index, validation, MIN_SCORES)]

    @property
    def log_mel(self) -> Float32Array:
        """dB, shape ``[window, mel, frame]``."""
        return self.windows.log_mel

    @property
    def starts(self) -> NDArray[np.float64] | None:
        """When each window began, seconds, for a site's own continuous recordings; None for separate clips."""
        clips = [self.clips[i] for i in self.windows.clip]
        return _starts(clips, self.windows)


@dataclass(frozen=True)
class Background:
    """Normal sound of another machine of the same site."""

    name: str
    clips: int
    images: Images
    """Log-Mel in dB."""


def read_training_set(
    data: Path,
    machine: str,
    *,
    ids: Sequence[str] | None = None,
    folds: int = 4,
    recording_digits: int = 1,
    seed: int = 0,
    background: Sequence[Path] = (),
) -> TrainingSet:
    """Read ``DATA/MACHINE/train``.

    Args:
        data: folder in the DCASE layout.
        machine: folder within it.
        ids: machine ids to take; all unless given.
        folds: parts for out-of-fold scores; an id with fewer recordings makes them fewer.
        recording_digits: see `read_clips`.
        seed: of the split.
        background: folders of other machines of the site, or of data sets that hold such; the machine itself is left
            out, but for ids of it that are not taken.

    Raises:
        CorpusError: nothing to train on, too little of an id, or clips of which only some say when they were heard.
        SplitError: they cannot be split.
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
    index = np.array([chosen.index(c.machine_id) for c in owners], np.intp)
    split, fine = (_split(owners, windows, index, chosen, n, seed) for n in (folds, _FINE_FOLDS))
    clips, windows = _that_were_read(clips, windows)
    trained = frozenset(digests(clips)) if background else frozenset()
    others = tuple(_read_background(background, data / machine, chosen, trained))
    return TrainingSet(machine, clips, windows, chosen, index, split, fine, seed, others)


def _that_were_read(clips: list[Clip], windows: Windows) -> tuple[list[Clip], Windows]:
    """Without the clips that gave no window."""
    read = np.unique(windows.clip)
    return [clips[i] for i in read], replace(windows, clip=np.searchsorted(read, windows.clip))


def _split(
    owners: Sequence[Clip],
    windows: Windows,
    index: NDArray[np.intp],
    ids: Sequence[str],
    folds: int,
    seed: int,
) -> Split:
    starts = _starts(owners, windows)
    if starts is not None:
        return split_by_time(index, starts, max(2, min(folds, int(np.bincount(index).min()))))
    recordings = [c.recording for c in owners]
    fewest = min(len({r for r in recordings if r.startswith(f"{i}/")}) for i in ids)
    return split_by_recording(recordings, max(2, min(folds, fewest)), seed)


def _starts(owners: Sequence[Clip], windows: Windows) -> NDArray[np.float64] | None:
    starts = [c.start for c in owners if c.start is not None]
    if starts and len(starts) < len(owners):
        strange = next(c.path for c in owners if c.start is None)
        raise CorpusError(
            f"{strange}: is not in the manifest that edge-asd record left, though others are; clips that do not say"
            " when they were heard cannot be kept apart from those that do: move them to a folder of their own"
        )
    return np.array(starts) + windows.offset if starts else None


def _read_background(
    folders: Sequence[Path], target: Path, ids: Sequence[str], trained: frozenset[str]
) -> Iterator[Background]:
    """Normal sound of the machines in these folders, each a machine's or a data set's; of the target, its other ids."""
    machines: dict[Path, None] = {}
    for folder in folders:
        found = [folder] if (folder / "train").is_dir() else sorted(p.parent for p in folder.glob("*/train"))
        if not found:
            raise CorpusError(f"{folder}: holds no machine's folder with normal sound in train")
        machines |= dict.fromkeys(p.resolve() for p in found)
    for machine in machines:
        clips = read_clips(machine.parent, machine.name, "train")
        if machine == target.resolve():
            clips = [c for c in clips if c.machine_id not in ids]
        # A copy of what is trained on would stand on both sides of every split.
        clips = [c for c in clips if digest(c) not in trained]
        if not clips:
            continue
        windows = load_windows(clips, LogMelParameters(), title=f"log-Mel of {machine.name}, background")
        known = sorted({c.machine_id for c in clips})
        index = np.array([known.index(clips[i].machine_id) for i in windows.clip], np.intp)
        yield Background(machine.name, len(clips), Images(windows.log_mel, index))


def finish(
    kind: str,
    module: nn.Module,
    training: TrainingSet,
    held_out: NDArray[np.float64],
    out: Path,
    *,
    settings: dict[str, Any],
    licence: str | None,
    ablations: tuple[str, ...] = (),
    reconstructs: bool = False,
    model: onnx.ModelProto | None = None,
    search_steps: int | None = None,
    heard: NDArray[np.intp] | None = None,
) -> Detector:
    """Calibrate on held-out scores, export, check and write.

    Args:
        kind: of detector.
        module: (log_mel, machine_id), and with ablations their number, to (score, anomaly map, report score), and its
            reconstruction where it ``reconstructs``.
        training: what it was fitted to.
        held_out: out-of-fold score of every window.
        out: the detector file.
        settings: for the metadata.
        licence: of the recordings, for the metadata.
        ablations: names of the module's ablations; number i + 1 is ``ablations[i]``, 0 is none.
        reconstructs: see ``module``.
        model: the exported graph where ``module`` cannot be exported as it is.
        search_steps: for the parity check and the self-check, where the detector searches.
        heard: indices of the windows that have a held-out score; all unless given.
    """
    is_heard = np.zeros(len(training.windows), bool)
    is_heard[slice(None) if heard is None else heard] = True
    starts, calibration = training.starts, {}
    for i, machine_id in enumerate(training.ids):
        own = training.machine_index == i
        levels = training.windows.level_dbfs[own]
        own &= is_heard
        calibration[machine_id] = Calibration.from_scores(
            held_out[own].tolist(),
            level_dbfs=float(np.median(levels)),
            level_low_dbfs=float(np.quantile(levels, 0.01)),
            stretches=None if starts is None else stretches_in_time(starts[own], WINDOW_SECONDS),
            sound=fingerprint([training.clips[i] for i in np.unique(training.windows.clip[own])]),
            source=("" if is_heard.all() else "some of the ")
            + "training clips, each scored by networks and distances that had not heard its recording",
        )
    made = Made(
        kind=kind,
        machine_type=training.machine,
        ids=training.ids,
        ablations=ablations,
        calibration=calibration,
        settings=settings,
        data={
            "clips": len(training.clips),
            "recordings": len({c.recording for c in training.clips}),
            "fingerprint": fingerprint(training.clips),
            "clips_sha256": digests(training.clips),
            "background": {b.name: b.clips for b in training.background},
            "licence": licence or "not stated",
        },
    )
    if model is None:
        mel, frame = training.log_mel.shape[1:]
        model = to_onnx(module, (mel, frame), ablations=bool(ablations), reconstructs=reconstructs)
    sample = parity_sample(len(training.windows), training.machine_index)
    inputs = torch.from_numpy(training.log_mel[sample]), torch.from_numpy(training.machine_index[sample])
    with torch.no_grad():
        expected = [module(*inputs, *([torch.tensor(n)] if ablations else []))[0] for n in range(len(ablations) + 1)]
    return write_detector(
        with_defaults(model, len(training.ids)),
        made,
        out,
        reference=training.log_mel[sample],
        machine_index=training.machine_index[sample],
        expected=torch.stack(expected).double().numpy(),
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
    collapse = {name: value for name, value in detector.metadata.settings["collapse"].items() if value is not None}
    print("  on held-out normal clips: " + ", ".join(f"{name} {value}" for name, value in collapse.items()))
