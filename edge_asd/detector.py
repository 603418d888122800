"""The ONNX contract: what a detector file must be, how it is loaded and how it scores.

A detector takes ``log_mel`` float32 ``[window, mel, frame]`` and gives ``score`` float32 ``[window]`` and
``anomaly_map`` float32 ``[window, mel, frame]``. Further inputs have defaults: ``machine_id``, ``search_steps``, and
for evaluation ``ablation`` (int64 ``[]``: 0 is none, i + 1 is the metadata's ``ablations[i]``). Further outputs,
``report_score`` and ``reconstructed`` (the log-Mel as the networks give it back, dB, ``[window, mel, frame]``), are for
evaluation too. Nothing here knows what a network or a latent search is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_asd.errors import DetectorError
from edge_asd.logmel import Float32Array, LogMelParameters
from edge_asd.metadata import KEY, DetectorMetadata, read_metadata

MAX_BYTES = 256 * 1024 * 1024
"""A detector is a few megabytes; anything above this is something else."""
_RECONSTRUCTED = "reconstructed"
_OPTIONAL_INPUTS = {"machine_id": "tensor(int64)", "search_steps": "tensor(int64)", "ablation": "tensor(int64)"}


@dataclass(frozen=True)
class Score:
    """What a detector says of one window."""

    score: float
    """Higher is more anomalous; no unit."""
    anomaly_map: Float32Array
    """What each cell added, shape ``[mel, frame]``."""
    report_score: float | None
    """The score of the report that the design comes from, where the detector gives it."""


class Detector:
    """A loaded detector. One may be shared by machines and threads: scoring keeps no state."""

    def __init__(self, path: Path, content: bytes) -> None:
        """
        Args:
            path: where the file came from, for messages.
            content: the whole file, already verified (see `edge_asd.verification.verify`) or about to be.

        Raises:
            DetectorError: not ONNX, not a detector, of a foreign format, or with wrong inputs or outputs.
        """
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            self._session = ort.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen unrelated types, among them bare RuntimeError
            raise DetectorError(path, f"is not an ONNX model that can be loaded: {one_line(error)}") from None
        try:
            document = self._session.get_modelmeta().custom_metadata_map.get(KEY)
            self.metadata: DetectorMetadata = read_metadata(document)
            self.optional_inputs = _check_contract(self._session, self.metadata)
        except ValueError as error:
            raise DetectorError(path, one_line(error)) from None
        outputs = [o.name for o in self._session.get_outputs()]
        self.reconstructs = _RECONSTRUCTED in outputs
        """Whether `reconstruct` gives anything."""
        self._outputs = [name for name in outputs if name != _RECONSTRUCTED]

    @cached_property
    def log_mel_parameters(self) -> LogMelParameters:
        """The log-Mel it wants."""
        return self.metadata.log_mel_parameters

    def index_of(self, machine_id: str | None) -> int:
        """Index of a machine id in this detector.

        Args:
            machine_id: None means the only one there is.

        Raises:
            DetectorError: unknown, or not given where there are several; the message lists them.
        """
        ids = self.metadata.ids
        if machine_id is None and len(ids) == 1:
            return 0
        if machine_id in ids:
            return ids.index(machine_id)
        wanted = "serves several machines, and no id is given" if machine_id is None else f"does not know {machine_id}"
        raise DetectorError(self.path, f"{wanted}; it knows {', '.join(ids)}")

    def score(
        self,
        log_mel: Float32Array,
        machine_index: int = 0,
        search_steps: int | None = None,
        *,
        ablation: str | None = None,
    ) -> Score:
        """Score one window.

        One window at a time, always: a batch could change the order of sums, and with it the last bit.

        Args:
            log_mel: shape ``[mel, frame]``.
            machine_index: from `index_of`.
            search_steps: for detectors that search; None takes the file's own number.
            ablation: one of the metadata's ``ablations``: what it scores without that part. For evaluation only.

        Raises:
            DetectorError: it cannot be computed, gives NaN or infinity, does not search, or has no such ablation.
        """
        feed: dict[str, Any] = {"log_mel": log_mel[None]}
        if "machine_id" in self.optional_inputs:
            feed["machine_id"] = np.array([machine_index], np.int64)
        if search_steps is not None:
            if "search_steps" not in self.optional_inputs:
                raise DetectorError(self.path, "does not search: search_steps has no meaning for it")
            feed["search_steps"] = np.array(search_steps, np.int64)
        if ablation is not None:
            known = self.metadata.ablations
            if ablation not in known:
                raise DetectorError(self.path, f"has no ablation {ablation}; it has {', '.join(known) or 'none'}")
            feed["ablation"] = np.array(known.index(ablation) + 1, np.int64)
        try:
            values = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as error:  # see above
            raise DetectorError(self.path, f"cannot score: {one_line(error)}") from None
        score, anomaly_map, report = values["score"], values["anomaly_map"], values.get("report_score")
        if score.shape != (1,) or anomaly_map.shape != (1, *log_mel.shape):
            raise DetectorError(self.path, f"gave shapes {score.shape} and {anomaly_map.shape} for one window")
        found = Score(float(score[0]), anomaly_map[0], None if report is None else float(report.reshape(-1)[0]))
        for name, value in (("score", found.score), ("report_score", found.report_score)):
            if value is not None and not np.isfinite(value):
                raise DetectorError(self.path, f"gave a {name} of {value}")
        if not np.isfinite(anomaly_map).all():
            raise DetectorError(self.path, "gave an anomaly map with NaN or infinity")
        return found

    def reconstruct(self, log_mel: Float32Array, machine_index: int = 0) -> Float32Array | None:
        """A window's log-Mel as the networks give it back, for evaluation.

        Args:
            log_mel: dB, shape ``[mel, frame]``.
            machine_index: from `index_of`.

        Returns:
            The same shape; None where the detector reconstructs nothing.

        Raises:
            DetectorError: it cannot be computed.
        """
        if not self.reconstructs:
            return None
        feed: dict[str, Any] = {"log_mel": log_mel[None]}
        if "machine_id" in self.optional_inputs:
            feed["machine_id"] = np.array([machine_index], np.int64)
        try:
            (found,) = self._session.run([_RECONSTRUCTED], feed)
        except Exception as error:  # see above
            raise DetectorError(self.path, f"cannot reconstruct: {one_line(error)}") from None
        if found.shape != (1, *log_mel.shape) or not np.isfinite(found).all():
            raise DetectorError(self.path, "gave a reconstruction of another shape, or with NaN or infinity")
        reconstructed: Float32Array = found[0]
        return reconstructed

    def check_itself(self) -> None:
        """Compute the reference input of the file and compare.

        Raises:
            DetectorError: another score than the trainer's.
        """
        check = self.metadata.self_check
        try:
            log_mel = check.log_mel.unpack()
        except Exception as error:  # damaged base64, zlib or sizes
            raise DetectorError(self.path, f"its self-check cannot be read: {one_line(error)}") from None
        given = self.score(log_mel[0], 0, check.search_steps).score
        if not abs(given - check.score) <= check.tolerance:
            raise DetectorError(
                self.path,
                f"fails its self-check: {given:.6g} instead of {check.score:.6g} (tolerance {check.tolerance:.2g})",
            )


def session_options() -> ort.SessionOptions:
    """One thread that sleeps when idle: fastest and steadiest with many machines on few cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = True  # some megabytes a detector, for a tenth of its time
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def read_detector_file(path: Path) -> bytes:
    """The content of a detector file.

    Raises:
        DetectorError: missing, unreadable, empty or far too large.
    """
    try:
        if path.exists() and not path.is_file():
            raise DetectorError(path, "is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DetectorError(path, error.strerror or str(error)) from None
    except ValueError as error:  # a NUL within the path
        raise DetectorError(repr(str(path)), str(error)) from None
    if len(content) > MAX_BYTES:
        raise DetectorError(path, f"is larger than {MAX_BYTES // 2**20} MB, which no detector is")
    if not content:
        raise DetectorError(path, "is empty")
    return content


def _check_contract(session: ort.InferenceSession, metadata: DetectorMetadata) -> frozenset[str]:
    """Names of the optional inputs; ValueError where inputs or outputs are not the contract's."""
    mel, frame = metadata.shape
    inputs = {i.name: i for i in session.get_inputs()}
    if set(inputs) != {"log_mel"}:
        raise ValueError(f"must have the one input log_mel without a default, has {', '.join(inputs) or 'none'}")
    _check_tensor(inputs["log_mel"], "tensor(float)", [None, mel, frame])
    outputs = {o.name: o for o in session.get_outputs()}
    wanted: dict[str, list[int | None]] = {"score": [None], "anomaly_map": [None, mel, frame]}
    for name, shape in wanted.items():
        if name not in outputs:
            raise ValueError(f"has no output {name}")
        _check_tensor(outputs[name], "tensor(float)", shape)
    optional = {i.name: i.type for i in session.get_overridable_initializers()}
    known = {name for name, kind in optional.items() if _OPTIONAL_INPUTS.get(name) == kind}
    if len(metadata.ids) > 1 and "machine_id" not in known:
        raise ValueError("serves several machine ids, but has no input machine_id with a default")
    if metadata.ablations and "ablation" not in known:
        names = ", ".join(metadata.ablations)
        raise ValueError(f"names ablations ({names}), but has no int64 input ablation with a default")
    return frozenset(known)


def _check_tensor(tensor: ort.NodeArg, kind: str, shape: list[int | None]) -> None:
    fits = tensor.type == kind and len(tensor.shape) == len(shape)
    if fits:
        # A fixed size must be ours; a name is a free dimension, which the windows (first) must be.
        fits = all(
            isinstance(there, str) if want is None else there == want or isinstance(there, str)
            for there, want in zip(tensor.shape, shape, strict=True)
        )
    if not fits:
        wanted = ["window" if n is None else n for n in shape]
        raise ValueError(f"its {tensor.name} is {tensor.type} {tensor.shape} instead of {kind} {wanted}")


def one_line(error: Exception) -> str:
    """The message of an exception, without line breaks or anything else that a terminal obeys, and not endless."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(error).split()))
    return text if len(text) <= 300 else text[:297] + "..."
