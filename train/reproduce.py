"""Trains the rows of the technical report, ours, and a peer on one set of recordings, and scores its test clips.

Every row leaves its detector and its scores, clip by clip, in the output folder: a run that was killed goes on where it
was. The document that comes of it (``reproduce.json``):

``schema``
    1.
``data``
    ``machine``, ``ids``, numbers of ``train`` and ``test`` clips, ``fingerprint`` of both.
``rows``
    Of each row ``key``, ``title``, ``table``, ``per_id`` (``auc``, ``pauc``), ``mean`` and ``without_id_06`` (``auc``
    and ``pauc``, each ``value`` and ``interval``; the second None where the ids are others), ``published`` (``per_id``,
    ``mean``, ``without_id_06``, each a pair of AUC and pAUC, or None), ``collapsed`` (what is wrong, or None),
    ``curve`` of the training (batch, error on crops trained on, error on clips left out; or None), ``minutes``. A row
    that could not be trained has ``failed`` and the reason instead of numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_asd.detector import Detector
from edge_asd.errors import DetectorError, EdgeAsdError, UsageError
from edge_asd.logmel import LogMelParameters
from edge_asd.verification import load_detector

from .bootstrap import Bootstrap, estimated_areas
from .collapse import CollapseError
from .corpus import Windows, fingerprint, load_windows
from .dcase2020 import without_id_06
from .expected_time import expected_seconds
from .export import ExportError, write_atomically
from .kinds import FOLDS, train_detector
from .recording_set import RecordingSet
from .report_rows import DENSE, REPORT, TRIVIAL, Row
from .scorers import ENERGY, MEAN_DISTANCE, Floats, distance_to_mean
from .training import read_training_set

SCHEMA = 1


class ReproduceError(EdgeAsdError):
    """The output folder cannot be used."""


class Reproduction:
    """The rows of one set of recordings, in one folder."""

    def __init__(self, recordings: RecordingSet, out: Path, *, recording_digits: int, seed: int = 0) -> None:
        """
        Args:
            recordings: to train on and to judge on.
            out: folder; what it holds of other recordings is refused.
            recording_digits: see `edge_asd_train.corpus.read_clips`.
            seed: of everything.

        Raises:
            UsageError: the folder holds rows of other recordings.
        """
        self.recordings, self.out, self.seed, self.digits = recordings, out, seed, recording_digits
        self.data = {
            "machine": recordings.machine,
            "ids": list(recordings.ids),
            "train": len(recordings.train),
            "test": len(recordings.test),
            "fingerprint": fingerprint([*recordings.train, *recordings.test]),
            "seed": seed,
            "recording_digits": recording_digits,
        }
        self._bind()
        self.windows: Windows = load_windows(recordings.test, LogMelParameters(), title=f"{recordings.name} test")
        self._owners = [recordings.test[i].machine_id for i in self.windows.clip]
        heard = [recordings.test[i] for i in self.windows.heard]
        self._bootstrap = Bootstrap(
            [c.machine_id for c in heard],
            [c.is_anomaly for c in heard],
            [c.recording for c in heard],
            seed=zlib.crc32(recordings.machine.encode()),
        )

    def row(self, row: Row) -> dict[str, Any]:
        """Train and score a row, or what is left to do of it.

        A row that collapses is marked; one that diverges, or cannot be written or scored, has no numbers. Neither ends
        the run.

        Raises:
            CorpusError: too little to train on.
            ReproduceError: what the folder holds of the row is damaged, or of other settings.
        """
        begun = time.monotonic()
        settled = {"key": row.key, "title": row.title, "table": row.table, "published": _published(row)}
        try:
            scores, collapsed, curve = self._scores(row)
        except (CollapseError, ExportError, DetectorError) as error:
            return {**settled, "failed": str(error)}
        minutes = self._minutes(row, (time.monotonic() - begun) / 60)
        return {**settled, **self._areas(scores), "collapsed": collapsed, "curve": curve, "minutes": minutes}

    def trivial(self) -> list[dict[str, Any]]:
        """The rows that need no training."""
        train = load_windows(self.recordings.train, LogMelParameters(), title=f"{self.recordings.name} train")
        owners = [self.recordings.train[i].machine_id for i in train.clip]
        distance = distance_to_mean(train, owners, self.windows, self._owners)
        return [
            {"key": key, "title": title, "table": TRIVIAL, "published": None, **self._areas(scores)}
            for key, title, scores in (
                ("energy", ENERGY, self.windows.level_dbfs),
                ("mean-distance", MEAN_DISTANCE, distance),
            )
        ]

    def is_done(self, row: Row) -> bool:
        """Nothing is left to do."""
        return len(_read_scores(self._scores_file(row))) == len(self.windows)

    def expected_seconds(self, row: Row) -> float:
        """That the whole row takes, roughly."""
        train, test = len(self.recordings.train), len(self.windows)
        return expected_seconds(row.kind, row.settings, FOLDS.get(row.kind, 1), train, test)

    def _scores(self, row: Row) -> tuple[Floats, str | None, Any]:
        """Scores of all windows; what is wrong with the networks; the curve of the training."""
        if row.kind == DENSE:
            return self._kept(row, lambda: self._dense(row)), None, None
        path = self.out / f"{row.key}.onnx"
        if not path.is_file():
            # Of a detector that is gone.
            self._scores_file(row).unlink(missing_ok=True)
            self._train(row, path)
        detector = load_detector(path)
        settings = detector.metadata.settings
        _check_settings(row, path, settings)
        collapse = settings["collapse"]
        wrong = None
        if collapse["collapsed"]:
            wrong = ", ".join(f"{name} {value}" for name, value in collapse.items() if isinstance(value, float))
        return self._score(detector, row), wrong, settings.get("curve")

    def _train(self, row: Row, path: Path) -> None:
        training = read_training_set(
            self.recordings.data,
            self.recordings.machine,
            ids=self.recordings.ids,
            folds=FOLDS[row.kind],
            recording_digits=self.digits,
            seed=self.seed,
        )
        with contextlib.redirect_stdout(sys.stderr):
            train_detector(
                row.kind, training, path, row.settings, preset=row.preset, allow_collapse=row.table == REPORT
            )

    def _score(self, detector: Detector, row: Row) -> Floats:
        """Score what is not scored yet, and write each score down as it comes."""
        path = self._scores_file(row)
        known = _read_scores(path)
        left = [i for i in range(len(self.windows)) if i not in known]

        def score(i: int) -> float:
            index = detector.index_of(self._owners[i] if len(detector.metadata.ids) > 1 else None)
            return detector.score(self.windows.log_mel[i], index).score

        bar = tqdm(total=len(self.windows), initial=len(known), desc=f"{row.key}: scoring", unit="window", leave=False)
        with bar, path.open("a", encoding="utf-8") as file, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for i, value in zip(left, pool.map(score, left), strict=True):
                known[i] = value
                file.write(json.dumps([i, value]) + "\n")
                file.flush()
                bar.update()
        return np.array([known[i] for i in range(len(self.windows))])

    def _dense(self, row: Row) -> Floats:
        from . import dense_baseline

        train = load_windows(self.recordings.train, LogMelParameters(), title=f"{self.recordings.name} train")
        steps = row.settings.steps(len(train))
        with tqdm(total=steps, desc=f"{row.key}: training", unit="step", leave=False) as bar:
            network = dense_baseline.fit(train.log_mel, row.settings, self.seed, bar)
        return dense_baseline.scores(network, self.windows.log_mel)

    def _kept(self, row: Row, make: Callable[[], Floats]) -> Floats:
        """Scores that are made all at once."""
        path = self._scores_file(row)
        known = _read_scores(path)
        if len(known) < len(self.windows):
            known = dict(enumerate(make().tolist()))
            write_atomically(path, "".join(json.dumps([i, s]) + "\n" for i, s in known.items()).encode())
        return np.array([known[i] for i in range(len(self.windows))])

    def _areas(self, scores: Floats) -> dict[str, Any]:
        areas = self._bootstrap.areas(self.windows.per_clip(scores))
        ids = self._bootstrap.ids
        reported = without_id_06(ids)
        three = None if reported is None else areas[[ids.index(i) for i in reported]].mean(axis=0)
        return {
            "per_id": {i: {"auc": float(a[0, 0]), "pauc": float(a[1, 0])} for i, a in zip(ids, areas, strict=True)},
            "mean": estimated_areas(areas.mean(axis=0)),
            "without_id_06": None if three is None else estimated_areas(three),
        }

    def _minutes(self, row: Row, now: float) -> float:
        """Of all runs that worked on this row."""
        path = self.out / f"{row.key}.minutes"
        before = float(path.read_text()) if path.is_file() else 0.0
        total = before + now if now > 0.02 or not before else before
        path.write_text(f"{total:.3f}")
        return round(total, 2)

    def _scores_file(self, row: Row) -> Path:
        return self.out / f"{row.key}.scores.jsonl"

    def _bind(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "data.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != self.data:
            raise UsageError(f"{self.out}: holds rows of other recordings or another seed; take a new folder")
        write_atomically(path, json.dumps(self.data, indent=1).encode())


def _check_settings(row: Row, path: Path, stored: dict[str, Any]) -> None:
    """A detector that an older version left must not stand for a row that has changed since."""
    if row.settings is None:
        return
    for name, value in json.loads(json.dumps(asdict(row.settings))).items():
        if name != "seed" and stored.get(name) != value:
            raise ReproduceError(f"{path}: was trained with {name} {stored.get(name)}, the row has {value}; delete it")


def _published(row: Row) -> dict[str, Any]:
    return {
        "per_id": {i: list(p) for i, p in row.published.per_id.items()},
        "mean": row.published.mean,
        "without_id_06": row.published.without_id_06,
    }


def _read_scores(path: Path) -> dict[int, float]:
    """By window; a line that was cut off is left out, and cut off for good."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        write_atomically(path, whole)
    try:
        return {int(i): float(score) for i, score in map(json.loads, whole.splitlines())}
    except (ValueError, TypeError):
        raise ReproduceError(f"{path}: is damaged; delete it, and its row is scored again") from None
