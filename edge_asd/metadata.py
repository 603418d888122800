"""What a detector file says about itself: the JSON document under ``edge_asd`` in its ONNX metadata."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from edge_asd.calibration import Calibration
from edge_asd.logmel import FIXED_CHOICES, Float32Array, LogMelParameters

KEY = "edge_asd"
FORMAT = 1
"""The format of detector files that this version writes and reads."""
_MAX_BYTES = 64 * 1024 * 1024
_MAX_CELLS = 16 * 1024 * 1024

_AblationName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class PackedLogMel(BaseModel):
    """A log-Mel in 8 bits a cell, zlib-compressed: value = offset + step * byte."""

    model_config = _STRICT

    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    """``[window, mel, frame]``."""
    offset: FiniteFloat
    step: Annotated[FiniteFloat, Field(gt=0)]
    data: str
    """Base64."""

    @classmethod
    def pack(cls, log_mel: Float32Array) -> PackedLogMel:
        """Pack a log-Mel, shape ``[window, mel, frame]``, rounding to 1/255 of its range."""
        low, high = float(log_mel.min()), float(log_mel.max())
        step = max(high - low, 1e-3) / 255
        cells = np.round((log_mel - low) / step).astype(np.uint8)
        windows, mels, frames = log_mel.shape
        data = base64.b64encode(zlib.compress(cells.tobytes(), 9)).decode()
        return cls(shape=(windows, mels, frames), offset=low, step=step, data=data)

    def unpack(self) -> Float32Array:
        """The log-Mel, float32, shape ``[window, mel, frame]``.

        Raises:
            ValueError: the data do not fill the shape.
        """
        size = int(np.prod([float(n) for n in self.shape]))
        if size > _MAX_CELLS:
            raise ValueError(f"a self-check of {size} cells is too large")
        cells = zlib.decompressobj().decompress(base64.b64decode(self.data, validate=True), size + 1)
        if len(cells) != size:
            raise ValueError("the self-check's log-Mel does not fill its shape")
        values = self.offset + self.step * np.frombuffer(cells, np.uint8).reshape(self.shape).astype(np.float64)
        return values.astype(np.float32)


class SelfCheck(BaseModel):
    """An input and the score it must give: shows that this processor computes what the trainer's did."""

    model_config = _STRICT

    log_mel: PackedLogMel
    search_steps: Annotated[int, Field(ge=0, le=100)] | None = None
    """Given to the detector where it searches; few, since long searches are mildly chaotic."""
    score: FiniteFloat
    """What the first window must give, for the first machine id."""
    tolerance: Annotated[FiniteFloat, Field(gt=0)]
    """Absolute."""


class DetectorMetadata(BaseModel):
    """The whole document. Keys that a reader does not know are an error: a change of meaning is a change of format."""

    model_config = _STRICT

    format: int
    kind: Annotated[str, Field(min_length=1, max_length=40)]
    """For people; nothing is decided by it. ``statistics``, ``cae``, ``anogan``."""
    machine_type: Annotated[str, Field(min_length=1, max_length=80)]
    ids: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    """The machine ids it knows; ``machine_id`` is an index into this list."""
    log_mel: dict[str, Any]
    """`LogMelParameters`, and the choices that all log-Mels here have in common."""
    window_seconds: Annotated[float, Field(ge=1, le=60)]
    ablations: Annotated[tuple[_AblationName, ...], Field(max_length=16)] = ()
    """What can be taken away to show what it is worth: value i + 1 of the input ``ablation`` means ``ablations[i]``.

    In use: ``mean_image`` (reconstruction replaced by the training mean, with distances fitted to that) and
    ``untrained_start`` (the latent search starts from z = 0 instead of the encoder's z).
    """
    calibration: dict[str, Calibration]
    """By machine id."""
    self_check: SelfCheck
    settings: dict[str, Any] = {}
    """What it was trained with."""
    data: dict[str, Any] = {}
    """What it was trained on: clips, recordings, fingerprint, licence."""
    versions: dict[str, str] = {}
    """Of the libraries that made it."""
    made: str = ""
    """UTC, ISO 8601."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        missing = set(self.ids) ^ set(self.calibration)
        if missing or len(set(self.ids)) != len(self.ids):
            raise ValueError(f"ids and calibration do not match: {', '.join(sorted(missing)) or 'an id twice'}")
        if len(set(self.ablations)) != len(self.ablations):
            raise ValueError(f"an ablation twice: {', '.join(self.ablations)}")
        if self.self_check.log_mel.shape[1:] != self.shape:
            raise ValueError(f"the self-check's input is not [window, {self.shape[0]}, {self.shape[1]}]")
        return self

    @property
    def log_mel_parameters(self) -> LogMelParameters:
        """The log-Mel it wants.

        Raises:
            ValueError: it wants one that this version does not make.
        """
        wanted = dict(self.log_mel)
        for name, value in FIXED_CHOICES.items():
            if wanted.pop(name, value) != value:
                raise ValueError(f"wants a log-Mel with {name} = {self.log_mel[name]!r}; only {value!r} is made here")
        try:
            parameters = LogMelParameters(**wanted)
            for name, usual in asdict(LogMelParameters()).items():
                if type(getattr(parameters, name)) is not type(usual):
                    raise TypeError(f"{name} must be {'a whole number' if isinstance(usual, int) else 'a decimal'}")
        except TypeError as error:
            raise ValueError(f"its log-Mel parameters do not fit: {error}") from None
        return parameters

    @property
    def window_samples(self) -> int:
        """Samples in a window at its sample rate."""
        return round(self.window_seconds * self.log_mel_parameters.sample_rate)

    @property
    def shape(self) -> tuple[int, int]:
        """``(mel, frame)`` of a window's log-Mel."""
        parameters = self.log_mel_parameters
        return parameters.n_mels, parameters.frames(self.window_samples)

    def to_json(self) -> str:
        """The document as it is written into the file."""
        return self.model_dump_json(by_alias=True)


def read_metadata(document: str | None) -> DetectorMetadata:
    """Read and check the document.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
    if document is None:
        raise ValueError("is ONNX, but not a detector: it has no edge_asd metadata")
    if len(document) > _MAX_BYTES:
        raise ValueError("its metadata are too large")
    try:
        loose = json.loads(document)
    except (ValueError, RecursionError):
        raise ValueError("its metadata are not JSON") from None
    number = loose.get("format") if isinstance(loose, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("its metadata state no format number")
    if number != FORMAT:
        raise ValueError(f"has detector format {number}; this version of edge-asd reads format {FORMAT}")
    try:
        return DetectorMetadata.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"its metadata are wrong at {place or 'the top'}: {first['msg']}") from None
