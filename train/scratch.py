"""Arrays in files that have no name: as large as the disk, and gone when nobody looks at them any more.

The kernel keeps of such an array in memory what there is room for, and writes the rest to disk: a training on 100,000
clips needs no more memory than one on 1,000. What is computed over all windows is computed chunk by chunk.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_asd.errors import EdgeAsdError

from .cache_folder import cache_folder

CHUNK = 64
"""Windows that are computed with at a time: 10 MB of log-Mel."""


class ScratchError(EdgeAsdError):
    """There is no room for working files."""


def scratch(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """An array of zeros on the disk of the cache, or of ``TMPDIR`` where there is no room for it.

    Raises:
        ScratchError: there is no room on either.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    folders = [cache_folder(), Path(tempfile.gettempdir())]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                # Room is taken now: a disk that fills up later would kill the process while it writes to the array.
                os.posix_fallocate(file.fileno(), 0, size)
                return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
        except OSError as error:
            reason = error.strerror or str(error)
    raise ScratchError(
        f"{size / 1e9:.1f} GB of working files do not fit into {' or '.join(map(str, folders))} ({reason}); --cache"
        " names a folder on another disk"
    )


def chunks(count: int, size: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices that cover ``count`` entries."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def all_rows(count: int) -> NDArray[np.intp]:
    """Indices of all windows."""
    return np.arange(count, dtype=np.intp)
