"""Checks the frame of a WAV file before libsndfile opens it.

libsndfile repairs silently what a header promises and the file does not hold, and can hang on malformed chunks (1.2.2).
Here the chunks are walked once: a file passes when its format is sane and its data are all there.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from edge_asd.errors import RecordingError

_STREAMED = 0xFFFFFFFF
"""Size written by programs that cannot seek back (ffmpeg into a pipe), and by RF64, which keeps it elsewhere."""
_MAX_CHUNKS = 1000
_MAX_CHANNELS = 64
_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64), _EXTENSIBLE: (8, 16, 24, 32, 64)}


def check_wav(path: Path, file: BinaryIO, size: int) -> None:
    """Walk the chunks of an open WAV file of ``size`` bytes.

    Raises:
        RecordingError: malformed, of an unknown encoding, without samples, or truncated.
    """
    file.seek(12)
    position, bytes_per_frame, rate, long_data_size = 12, 0, 0, None
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise RecordingError(path, "is truncated: its header promises sound that is not there")
        name, length = struct.unpack("<4sI", head)
        position += 8
        if name == b"fmt ":
            bytes_per_frame, rate = _check_format(path, file.read(min(length, 40)))
        elif name == b"ds64":
            long_data_size = int(struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0])
        elif name == b"data":
            if not bytes_per_frame:
                raise RecordingError(path, "is malformed: its samples come before their format")
            _check_data(path, size - position, length, long_data_size, bytes_per_frame, rate)
            return
        position += length + length % 2
        if position > size:
            raise RecordingError(path, f"is truncated within its {name.decode('ascii', 'replace')!r} chunk")
        file.seek(position)
    raise RecordingError(path, f"is malformed: no samples within its first {_MAX_CHUNKS} chunks")


def _check_format(path: Path, chunk: bytes) -> tuple[int, int]:
    """Bytes per frame and frames per second of a ``fmt`` chunk."""
    if len(chunk) < 16:
        raise RecordingError(path, "is malformed: its format chunk is too short")
    encoding, channels, rate, _, bytes_per_frame, bits = struct.unpack("<HHIIHH", chunk[:16])
    if encoding not in _BITS or bits not in _BITS[encoding]:
        raise RecordingError(path, f"holds encoding 0x{encoding:04x} with {bits} bits; WAV is read as PCM or float")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise RecordingError(path, f"claims {channels} channels; 1 to {_MAX_CHANNELS} are read")
    if bytes_per_frame != channels * bits // 8:
        raise RecordingError(path, "is malformed: its block size does not fit its channels and bits")
    return bytes_per_frame, rate


def _check_data(path: Path, there: int, length: int, long_size: int | None, bytes_per_frame: int, rate: int) -> None:
    if length == _STREAMED:
        length = there if long_size is None else long_size
    if length < bytes_per_frame:
        raise RecordingError(path, "holds no samples")
    if length > there:
        promised, found = (n / bytes_per_frame / max(rate, 1) for n in (length, there))
        raise RecordingError(path, f"is truncated: its header promises {promised:.2f} s, {found:.2f} s are there")
