"""Recordings made byte by byte, and what the reader says of them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from edge_asd.audio.recording import read_blocks
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array, Float64Array

RATE = 16_000
STREAMED = 0xFFFFFFFF


def noise(*shape: int, seed: int = 0) -> Float64Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape)


def read(path: Path, sample_rate: int = RATE, channel: int = 1) -> Float32Array:
    return np.concatenate([*read_blocks(path, sample_rate=sample_rate, channel=channel)])


def complaint(path: Path, **options: int) -> str:
    """The one line about a bad recording, which must name it."""
    with pytest.raises(RecordingError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.__cause__ is None
    return message.removeprefix(f"{path}: ")


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if length is None else length) + body + b"\0" * (len(body) % 2)


def pcm_format(channels: int = 1, bits: int = 16, rate: int = RATE, encoding: int = 1) -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", encoding, channels, rate, rate * frame % 2**32, frame, bits))


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def without_length(flac: bytes) -> bytes:
    """A FLAC stream as an encoder writes it into a pipe: the number of samples in its STREAMINFO is 0, unknown."""
    return flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]


SOUND = (noise(1600) * 32767).astype("<i2")
