"""What latent searches have found, kept window by window: a search of 1,000 steps takes seconds for each.

The file has a record for each window: its residual and its loss, float32, and their CRC-32. A record that was cut off,
and all after one that is damaged, are searched for again.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray


class SearchLog:
    """The file; a context manager. Without a path nothing is kept."""

    def __init__(self, path: Path | None, shape: tuple[int, ...]) -> None:
        """
        Args:
            path: of the file; made where it is missing.
            shape: of a residual, (mel, frame).

        Raises:
            OSError: it cannot be opened.
        """
        self._shape, self._cells = shape, int(np.prod(shape))
        self._file: IO[bytes] | None = None if path is None else path.open("a+b")

    def __enter__(self) -> SearchLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def found(self, wanted: int, multiple: int) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Residuals ``[mel, frame]`` and losses, in the order in which they were added.

        Args:
            wanted: windows that are to be searched.
            multiple: windows in a batch; if they are not all there, what follows the last whole batch is cut off, so
                that the windows of a batch are searched together as they would have been. Exhaust the iterator.
        """
        if self._file is None:
            return
        size = 4 * (self._cells + 1) + 4
        count = self._whole(size)
        count = wanted if count >= wanted else count - count % multiple
        self._file.truncate(count * size)
        for number in range(count):
            self._file.seek(number * size)
            values = np.frombuffer(self._file.read(size)[:-4], np.float32)
            yield values[:-1].reshape(self._shape), float(values[-1])

    def add(self, residuals: NDArray[np.float32], losses: NDArray[np.float32]) -> None:
        """Add windows ``[window, mel, frame]`` and ``[window]``."""
        if self._file is None:
            return
        try:
            for residual, loss in zip(residuals, losses, strict=True):
                record = residual.astype(np.float32).tobytes() + np.float32(loss).tobytes()
                self._file.write(record + zlib.crc32(record).to_bytes(4, "little"))
            self._file.flush()
        except OSError as error:
            print(f"{self._file.name}: cannot be kept, the search goes on ({error.strerror})", file=sys.stderr)
            self._close()

    def _whole(self, size: int) -> int:
        """Records up to the first that is cut off or damaged."""
        assert self._file is not None
        self._file.seek(0)
        count = 0
        while len(record := self._file.read(size)) == size:
            if zlib.crc32(record[:-4]) != int.from_bytes(record[-4:], "little"):
                break
            count += 1
        return count

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
