"""Writes normal sound as training wants it: one FLAC file a window in the DCASE 2020 layout, with a manifest.

``OUT/MACHINE/train/normal_id_00_00000000.flac`` and so on; ``OUT/MACHINE/manifest.jsonl`` has a line for each clip and
for each stretch that was refused. A line is written before its clip gets its name, so that no clip is ever without one;
a line whose clip is missing tells of a crash just then.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edge_asd.errors import EdgeAsdError
from edge_asd.logmel import Float32Array

SCHEMA = 1
MANIFEST = "manifest.jsonl"
KEEP_FREE_BYTES = 500_000_000
"""A recording never fills the disk of a factory PC to its end."""
_GROUP = 10
"""Clips whose numbers agree but for the last digit count as one recording in training: a session begins a new ten."""
_16_BIT = 32768.0


class ClipFolderError(EdgeAsdError):
    """Clips cannot be written there."""


class DiskBudgetError(ClipFolderError):
    """No more may be written."""


class ClipFolder:
    """The clips of one machine; open for one process at a time."""

    def __init__(self, out: Path, machine: str, machine_id: str, *, most_bytes: int, sample_rate: int) -> None:
        """Open, and go on where an earlier recording ended.

        Args:
            out: the data set's folder; made where it is missing.
            machine: name of the machine's folder in it.
            machine_id: ``id_XX``.
            most_bytes: that all clips of this folder may take up.
            sample_rate: Hz, of the clips.

        Raises:
            ClipFolderError: the folder cannot be written, or another process writes to it.
        """
        self.folder = out / machine
        self.train = self.folder / "train"
        self.sample_rate = sample_rate
        self._prefix = f"normal_{machine_id}_"
        self._most = most_bytes
        try:
            self.train.mkdir(parents=True, exist_ok=True)
            self._manifest = (self.folder / MANIFEST).open("a+", encoding="utf-8")
            fcntl.flock(self._manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in self.train.glob(".*.part"):
                left.unlink()
            self._mend_last_line()
            clips = list(self.train.glob(f"{self._prefix}*.flac"))
            self.bytes = sum(p.stat().st_size for p in self.train.iterdir())
        except BlockingIOError:
            raise ClipFolderError(f"{self.folder}: another recording is writing here") from None
        except OSError as error:
            raise ClipFolderError(f"{error.filename or self.folder}: {error.strerror or error}") from None
        self.clips = len(clips)
        """There already, earlier sessions included."""
        numbers = [int(n) for p in clips if (n := p.stem.removeprefix(self._prefix)).isdecimal()]
        self._next = -(-(max(numbers) + 1) // _GROUP) * _GROUP if numbers else 0

    def write(self, samples: Float32Array, facts: dict[str, Any]) -> Path:
        """Write a clip.

        Args:
            samples: shape ``[sample]``. Written with 16 bits where that is exact, else with 24.
            facts: for its line in the manifest.

        Raises:
            DiskBudgetError: the budget is used up, or the disk nearly full; nothing was written.
            ClipFolderError: it cannot be written; nothing is left behind.
        """
        self._check_budget(samples.size)
        name = f"{self._prefix}{self._next:08d}.flac"
        path, part = self.train / name, self.train / f".{name}.part"
        encoded = _flac(samples, self.sample_rate)
        try:
            with part.open("wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            self.note({"clip": f"train/{name}", **facts})
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ClipFolderError(f"{path}: {error.strerror or error}") from None
        self._next += 1
        self.clips += 1
        self.bytes += len(encoded)
        return path

    def note(self, line: dict[str, Any]) -> None:
        """Add a line to the manifest.

        Raises:
            OSError: it cannot be written.
        """
        self._manifest.write(json.dumps({"schema": SCHEMA, **line}) + "\n")
        self._manifest.flush()
        os.fsync(self._manifest.fileno())

    def close(self) -> None:
        """Let others write here."""
        self._manifest.close()

    def _check_budget(self, samples: int) -> None:
        # A clip that does not compress at all takes 3 bytes a sample.
        size = 3 * samples
        if self.bytes + size > self._most:
            raise DiskBudgetError(
                f"{self.folder}: the disk budget of {self._most / 1e9:g} GB is used up; see --max-gigabytes"
            )
        if shutil.disk_usage(self.train).free < KEEP_FREE_BYTES + size:
            raise DiskBudgetError(
                f"{self.folder}: less than {KEEP_FREE_BYTES / 1e6:g} MB would be left free on this disk"
            )

    def _mend_last_line(self) -> None:
        """A crash may have left half a line."""
        path = self.folder / MANIFEST
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


def _flac(samples: Float32Array, sample_rate: int) -> bytes:
    """In memory: soundfile answers a disk that is full half-way with an assertion."""
    is_16_bit = bool(np.array_equal(samples * _16_BIT, np.rint(samples * _16_BIT)))
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, format="FLAC", subtype="PCM_16" if is_16_bit else "PCM_24")
    return encoded.getvalue()
