"""A window of 10 s from its samples to its score, for each kind of detector; the log-Mel against librosa's."""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

from edge_asd.demo.clips import write_dataset
from edge_asd.demo.show import MACHINE_ID, load_demo_detectors
from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array, LogMelParameters, log_mel
from edge_asd.verification import load_detector

from .scale import Scale
from .table import Row, Table
from .timing import ALL_CORES, cores, interleaved

WINDOW_SECONDS = 10
_AT_MOST_MS = {"anogan": 60.0, "cae": 5.0, "statistics": 4.0}
_AT_MOST_MS_DEEP = 2500.0


def measure_windows(table: Table, sound: Float32Array, net: str, folder: Path, scale: Scale) -> None:
    """Rows for the log-Mel and for whole windows.

    Args:
        table: takes them.
        sound: a window's samples.
        net: name of the AnoGAN's.
        folder: for what is written on the way.
        scale: how much.
    """
    parameters = LogMelParameters()
    detectors = {d.metadata.kind: d for d in load_demo_detectors()}
    if not scale.quick:
        detectors["statistics"] = _fit_statistics(folder, scale.fitted_clips)
    works = {
        "log-Mel": lambda: log_mel(sound, parameters),
        "librosa": lambda: librosa_log_mel(sound),
    } | {kind: lambda d=d: d.score(log_mel(sound, parameters)) for kind, d in detectors.items()}
    if not np.allclose(works["log-Mel"](), works["librosa"](), atol=1e-2):
        raise ValueError("librosa's log-Mel is another one")
    took = interleaved(works, scale.rounds)
    table.section("A window of 10 s: processor time, log-Mel included")
    table.add(Row("log-Mel", took.milliseconds("log-Mel"), "ms", wall=took.wall_milliseconds("log-Mel")))
    table.add(Row("log-Mel by librosa", took.milliseconds("librosa"), "ms", wall=took.wall_milliseconds("librosa")))
    table.add(Row("log-Mel as fast as librosa's", took.ratio("librosa", "log-Mel"), "times"))
    for kind, detector in detectors.items():
        steps = detector.metadata.settings.get("search_steps")
        common = {"net": net if kind == "anogan" else kind, "steps": steps, "crops": 5 if kind == "anogan" else None}
        taken = took.milliseconds(kind)
        table.add(
            Row(f"window, {kind}", taken, "ms", **common, wall=took.wall_milliseconds(kind), at_most=_AT_MOST_MS[kind])
        )
        table.add(Row(f"machines per core, {kind}", 1e3 * WINDOW_SECONDS / taken, "machines", **common))
        for count in sorted({1, len(ALL_CORES)}):
            each_second = _windows_each_second(detector, sound, count, scale)
            table.add(Row(f"windows per second, {kind}", each_second, "per s", **common | {"cores": count}))
    deep = scale.deep_steps
    took = interleaved(
        {"deep": lambda: detectors["anogan"].score(log_mel(sound, parameters), search_steps=deep)},
        min(scale.slow_rounds, 3),
    )
    table.add(
        Row(
            "window, anogan, the report's steps",
            took.milliseconds("deep"),
            "ms",
            net,
            5,
            deep,
            wall=took.wall_milliseconds("deep"),
            at_most=_AT_MOST_MS_DEEP,
        )
    )


def _windows_each_second(detector: Detector, sound: Float32Array, count: int, scale: Scale) -> float:
    """Throughput by the wall clock, a thread for each core."""
    parameters = LogMelParameters()

    def work(_: int) -> None:
        detector.score(log_mel(sound, parameters))

    windows = 2 * count * scale.rounds
    with cores(count), ThreadPoolExecutor(count) as pool:
        begun = perf_counter()
        list(pool.map(work, range(windows)))
        return windows / (perf_counter() - begun)


def _fit_statistics(folder: Path, clips: int) -> Detector:
    """A detector of the kind that is not part of the package."""
    from edge_asd_train.statistics import train
    from edge_asd_train.training import read_training_set

    data, out = folder / "data", folder / "statistics.onnx"
    write_dataset(data, seed=1, ids=(MACHINE_ID,), train_clips=clips, test_normal=0, test_per_fault=0)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(read_training_set(data, "slider"), out)
    return load_detector(out)


def librosa_log_mel(sound: Float32Array) -> Float32Array:
    """The same log-Mel by librosa."""
    import librosa

    power = librosa.feature.melspectrogram(
        y=sound, sr=16_000, n_fft=1024, hop_length=512, n_mels=128, fmin=0.0, fmax=8000.0, pad_mode="constant"
    )
    found: Float32Array = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    return found
