"""How far a training has come, kept beside its output, so that the same command goes on where a killed one was.

``.NAME.onnx.work/`` holds ``training.json``, which says what is trained; a file for each network that is finished; and
of the one that is being trained a checkpoint, written about every minute. A training that goes on gives the detector
that it would have given without the break, to the bit. The folder is removed when the detector is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from edge_asd.detector import Detector
from edge_asd.errors import EdgeAsdError

from .corpus import fingerprint
from .reproducible import machine
from .training import TrainingSet, report

VERSION = 1
"""Of the networks' training and of the files; raised when either changes."""
SECONDS = 60.0
"""From checkpoint to checkpoint."""


class WorkError(EdgeAsdError):
    """Two trainings want to write the same detector, or what is kept of one cannot be used."""


class Stateful(Protocol):
    """A network, an optimiser or a schedule."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Resumable:
    """What a training must find again to go on as if nothing had happened."""

    parts: Mapping[str, Stateful]
    """Networks, optimisers, schedules."""
    random: torch.Generator
    """Of the draw; torch's own random numbers, which dropout takes, are kept too."""

    def state(self, batch: int) -> dict[str, Any]:
        """After so many batches."""
        return {
            "batch": batch,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "random": self.random.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Back to it; gives the number of batches that are done."""
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.random.set_state(state["random"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        return int(state["batch"])


class NetworkWork:
    """How far one network is. Without a folder nothing is kept, and nothing found."""

    def __init__(self, folder: Path | None = None, number: int = 0) -> None:
        self._folder, self._number = folder, number
        self._saved = time.monotonic()

    @property
    def search_log(self) -> Path | None:
        """Where its searches can be kept, see `edge_asd_train.search_log`."""
        return self._folder and self._folder / f"search-{self._number}.f32"

    def finished(self) -> dict[str, Any] | None:
        """The state of the network, if its training has ended."""
        return self._load("network")

    def finish(self, state: dict[str, Any]) -> None:
        """Keep it; its checkpoint is not needed any more."""
        self._save("network", state)
        if self._folder is not None and self._path("network").exists():
            self._path("checkpoint").unlink(missing_ok=True)

    def begin(self, training: Resumable) -> int:
        """Take the training up where its last checkpoint was; gives the number of batches that are done.

        Raises:
            WorkError: the checkpoint is of something else.
        """
        self._saved = time.monotonic()
        state = self._load("checkpoint")
        if state is None:
            return 0
        try:
            return training.restore(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WorkError(f"{self._path('checkpoint')}: does not fit; remove {self._folder} ({error})") from None

    def after_batch(self, training: Resumable, done: int) -> None:
        """Write a checkpoint after so many batches, if it is time."""
        if self._folder is not None and time.monotonic() - self._saved >= SECONDS:
            self._save("checkpoint", training.state(done))
            self._saved = time.monotonic()

    def _path(self, what: str) -> Path:
        assert self._folder is not None  # asked where there is one only
        return self._folder / f"{what}-{self._number}.pt"

    def _load(self, what: str) -> dict[str, Any] | None:
        if self._folder is None or not self._path(what).exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path(what), map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
            print(f"{self._path(what)}: is damaged, and not taken", file=sys.stderr)
            return None
        return state

    def _save(self, what: str, state: dict[str, Any]) -> None:
        if self._folder is None:
            return
        path = self._path(what)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch has its own word for a disk that is full
            # It is worse to lose the training than to lose the way back into it.
            print(f"{path}: cannot be kept, the training goes on ({error})", file=sys.stderr)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


class WorkFolder:
    """The work folder of a detector, for one process at a time; a context manager."""

    def __init__(self, out: Path, kind: str, training: TrainingSet, settings: Any) -> None:
        """Open it, or begin anew where what is there is of another training; says which.

        Args:
            out: the detector file.
            kind: of detector.
            training: what is trained on.
            settings: a dataclass.

        Raises:
            WorkError: another process trains this detector.
            OSError: it cannot be made.
        """
        self.folder = out.parent / f".{out.name}.work"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise WorkError(f"{out}: another process is training this detector") from None
        except OSError:
            pass  # a file system without locks
        split = training.split
        told = {
            "version": VERSION,
            "kind": kind,
            "settings": asdict(settings),
            "seed": training.seed,
            "ids": training.ids,
            "data": fingerprint(training.clips),
            "split": hashlib.sha256(split.fold.tobytes() + split.guarded.tobytes()).hexdigest(),
            "torch": torch.__version__,
            **machine(),
        }
        told = json.loads(json.dumps(told))
        try:
            before = json.loads((self.folder / "training.json").read_bytes())
        except (OSError, ValueError):
            before = None
        if before != told:
            self._begin_anew(before, told)
        elif came := self._came():
            print(f"going on from {self.folder}: {came}", file=sys.stderr)

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def network(self, number: int) -> NetworkWork:
        """Of the network with this number, from 0."""
        return NetworkWork(self.folder, number)

    def remove(self) -> None:
        """The detector is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin_anew(self, before: Any, told: dict[str, Any]) -> None:
        if self._came():
            names = [n for n in told if not isinstance(before, dict) or before.get(n) != told[n]]
            print(f"{self.folder}: is of a training with other {', '.join(names)}; begun anew", file=sys.stderr)
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        part = self.folder / "training.part"
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(self.folder / "training.json")

    def _came(self) -> str:
        """How far, in words; empty for not at all."""
        finished = len(list(self.folder.glob("network-*.pt")))
        found = [f"{finished} network{'s' if finished > 1 else ''} finished"] if finished else []
        found += ["one begun" for _ in self.folder.glob("checkpoint-*.pt")]
        return ", ".join(found)


def make_resumably(
    kind: str, training: TrainingSet, out: Path, settings: Any, make: Callable[[WorkFolder], Detector]
) -> Detector:
    """Make a detector in its work folder, remove that, and say what was made.

    Args:
        kind: of detector.
        training: what is trained on.
        out: the detector file.
        settings: a dataclass.
        make: trains and writes the detector.

    Raises:
        WorkError: another process trains the same detector.
    """
    started = time.monotonic()
    with WorkFolder(out, kind, training, settings) as work:
        detector = make(work)
        work.remove()
    report(detector, training, started)
    return detector
