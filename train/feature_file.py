"""The log-Mels of one folder's clips in one file, which grows, with an index beside it.

``NAME.f32`` holds the rows, float32 ``[row, mel, frame]``. ``NAME.jsonl`` says on its first line what they are of, and
then on a line for each clip its name, size and time of change, its first row, the level of each of its windows (dBFS)
and the CRC-32 of its rows. Every line ends with a CRC-32 of its own. Rows are written before the line that names them,
and never changed or removed while the file lives, so that a process which reads them is not disturbed by one that adds
to them. One process adds at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr

from edge_asd.audio.recording import read_windows
from edge_asd.audio.windows import WINDOW_SECONDS
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array, LogMelParameters, log_mel

VERSION = 2
"""Of the computation and the format; raised when either changes: what earlier versions computed is not taken."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip whose log-Mels are in the file."""

    size: int
    """Bytes, of the recording."""
    mtime_ns: int
    row: int
    """Of its first window."""
    levels: tuple[float, ...]
    """Of each of its windows, dBFS."""
    crc: int
    """CRC-32 of its rows."""


class FeatureFile:
    """A folder's log-Mels, open and locked; a context manager. Any method raises OSError where the disk fails."""

    def __init__(self, folder: Path, parameters: LogMelParameters, cache: Path | None) -> None:
        """Open, and go on where an earlier process ended; what is damaged or of another version is thrown away.

        Args:
            folder: of the clips.
            parameters: of the log-Mel.
            cache: folder of the file; None for a temporary one that no other process sees.
        """
        self._parameters = parameters
        self._window = round(WINDOW_SECONDS * parameters.sample_rate)
        self._shape = (parameters.n_mels, parameters.frames(self._window))
        self._row_bytes = 4 * self._shape[0] * self._shape[1]
        self._header = {
            "edge_asd_log_mel": VERSION,
            "folder": str(folder.resolve()),
            "parameters": parameters.as_dict(),
            "window_seconds": WINDOW_SECONDS,
            "versions": {m.__name__: m.__version__ for m in (np, soundfile, soxr)}
            | {"libsndfile": soundfile.__libsndfile_version__},
        }
        self._entries: dict[str, Entry] = {}
        self._rows = self._outdated = 0
        self._open = contextlib.ExitStack()
        self._data: IO[bytes]
        self._index: IO[bytes]
        if cache is None:
            self._data = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            self._index = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            return
        key = json.dumps({k: v for k, v in self._header.items() if k != "versions"}, sort_keys=True)
        stem = f"{folder.resolve().parent.name[:40]}-{folder.name[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        cache.mkdir(parents=True, exist_ok=True)
        self.path = cache / f"{stem}.f32"
        try:
            _wait_for_lock(self._open.enter_context((cache / f"{stem}.lock").open("wb")), folder)
            self._open_files()
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # of a disk that is full; what counts was flushed before
            self._open.close()

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return self._rows * self._row_bytes

    def find(self, path: Path) -> Entry | None:
        """The entry of a clip, if it is the clip that was computed and the rows are those that were written.

        Raises:
            RecordingError: there is no such clip.
        """
        entry = self._entries.get(path.name)
        if entry is None:
            return None
        if (entry.size, entry.mtime_ns) != _size_and_time(path):
            return None
        self._data.seek(entry.row * self._row_bytes)
        crc = 0
        for _ in entry.levels:
            crc = zlib.crc32(self._data.read(self._row_bytes), crc)
        return entry if crc == entry.crc else None

    def add(self, path: Path) -> Entry:
        """Compute the log-Mels of a clip.

        Raises:
            RecordingError: it cannot be read; nothing was added.
        """
        size, mtime_ns = _size_and_time(path)
        start = self._rows * self._row_bytes
        self._data.seek(start)
        levels, crc = [], 0
        try:
            windows = read_windows(
                path, sample_rate=self._parameters.sample_rate, window=self._window, hop=self._window
            )
            for window in windows:
                row = log_mel(window.samples, self._parameters).tobytes()
                crc = zlib.crc32(row, crc)
                self._data.write(row)
                level = window.level_dbfs
                assert level is not None  # of a recording nothing is lost
                levels.append(level)
            self._data.flush()
        except RecordingError:
            self._data.truncate(start)
            raise
        entry = Entry(size, mtime_ns, self._rows, tuple(levels), crc)
        self._write_line({"name": path.name, **{name: getattr(entry, name) for name in Entry.__slots__}})
        self._outdated += len(self._entries[path.name].levels) if path.name in self._entries else 0
        self._entries[path.name] = entry
        self._rows += len(levels)
        return entry

    def rows(self) -> Float32Array:
        """All rows as they are now, one at least, ``[row, mel, frame]``, mapped from the file and read-only."""
        self._data.flush()
        return np.asarray(np.memmap(self._data, np.float32, "r", shape=(self._rows, *self._shape)))

    def _open_files(self) -> None:
        index = self.path.with_suffix(".jsonl")
        try:
            self._read_index(index)
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            if index.exists():
                print(f"{index}: is damaged or of another version, and made anew ({error})", file=sys.stderr)
            self._entries, self._rows, self._outdated = {}, 0, 0
            # New files, not the old ones emptied: another process may have those mapped.
            index.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._data = self._open.enter_context(self.path.open("a+b"))
        self._index = self._open.enter_context(index.open("a+b"))
        # Of a process that was killed while it wrote a clip.
        self._data.truncate(self._rows * self._row_bytes)
        if not self._entries:
            self._index.truncate(0)
            self._write_line(self._header)

    def _read_index(self, path: Path) -> None:
        """Entries and number of rows.

        Raises:
            ValueError, KeyError, TypeError: a line is not what was written, or it is of something else.
            FileNotFoundError: there is none.
        """
        with path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)  # a line that was cut off half-way
        for number, line in enumerate(content[:whole].split(b"\n")[:-1]):
            text, _, crc = line.rpartition(b" ")
            if int(crc, 16) != zlib.crc32(text):
                raise ValueError(f"line {number + 1}")
            told = json.loads(text)
            if number == 0:
                if told != self._header:
                    raise ValueError("of another version")
                continue
            name = told.pop("name")
            entry = Entry(**{**told, "levels": tuple(told["levels"])})
            self._outdated += len(self._entries[name].levels) if name in self._entries else 0
            self._entries[name] = entry
            self._rows = max(self._rows, entry.row + len(entry.levels))
        if not self._entries:
            return
        if self.path.stat().st_size < self.bytes:
            raise ValueError("rows are missing")
        if self._outdated > self._rows - self._outdated:
            raise ValueError("most of it is of clips that have changed")

    def _write_line(self, told: dict[str, Any]) -> None:
        text = json.dumps(told).encode()
        self._index.write(text + f" {zlib.crc32(text):08x}\n".encode())
        self._index.flush()


def _wait_for_lock(lock: IO[bytes], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that computes the log-Mels of {folder}", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise RecordingError(path, error.strerror or str(error)) from None
    return status.st_size, status.st_mtime_ns
