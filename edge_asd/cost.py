"""What scoring costs on this computer, measured: log-Mel, detectors, and the listening itself.

Processor time is what is added up, not wall time: the daemons that run while this measures, and whatever else does,
would otherwise be counted twice. It is taken with all allowed cores busy, since they share caches, memory and their
top speed; wall time on one core, the rest at peace, stands beside it.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from edge_asd.audio.stream import MachineStream
from edge_asd.audio.windows import WindowCutter
from edge_asd.logmel import Float32Array, log_mel
from edge_asd.pipeline import Pipeline

_ROUNDS = 7
_LEAST_ROUNDS = 3
_LONGEST_SECONDS = 4.0
"""After so long a measurement ends with what rounds it has; a slow detector needs no many to be known as slow."""
_BLOCK_SECONDS = 0.1
"""The daemon's tick."""
_HEARD_SECONDS = 10
DEVICE_RATE = 48_000
"""Hz; of a device whose rate the configuration does not say."""


@dataclass(frozen=True)
class Cost:
    """Medians of one piece of work, in seconds."""

    wall: float
    """On one core."""
    processor: float
    """On one core."""
    busy_wall: float
    """With all allowed cores doing the same."""
    busy_processor: float
    """Likewise; this is what counts."""

    @property
    def competition(self) -> float:
        """How often the wall time the processor time was, alone: well above 1, something else had the cores."""
        return self.wall / self.processor if self.processor else 1.0


@dataclass(frozen=True)
class MachineCost:
    """Seconds of processor time per second of sound."""

    scoring: float
    """Log-Mel and detectors; of one machine, never on two cores at once."""
    hearing: float
    """Signal health, resampling, cutting."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.scoring + self.hearing


class CostMeter:
    """Measures each thing once, however many machines share it."""

    def __init__(self, cores: int) -> None:
        """``cores``: that are kept busy at once."""
        self._cores = cores
        self._known: dict[object, Cost] = {}
        self.detectors: dict[str, tuple[str, str, Cost]] = {}
        """By sha256: file name, kind, and the cost of a window without its log-Mel."""
        self.log_mels: list[Cost] = []
        """Of a window, of each distinct kind of log-Mel."""

    def machine(self, pipeline: Pipeline, device_rate: int | None) -> MachineCost:
        """What a machine costs that is always running.

        Args:
            pipeline: its detectors and hop.
            device_rate: Hz; None for recordings.
        """
        sound = _noise(pipeline.window)
        window = 0.0
        for parameters in dict.fromkeys(used.detector.log_mel_parameters for used in pipeline.detectors):
            if (parameters, sound.size) not in self._known:
                self.log_mels.append(self._cost((parameters, sound.size), partial(log_mel, sound, parameters)))
            window += self._known[parameters, sound.size].busy_processor
        for used in pipeline.detectors:
            detector = used.detector
            mel = log_mel(sound, detector.log_mel_parameters)
            cost = self._cost(detector.sha256, partial(detector.score, mel, detector.index_of(used.machine_id)))
            self.detectors.setdefault(detector.sha256, (used.name, detector.metadata.kind, cost))
            window += cost.busy_processor
        rate = device_rate or pipeline.sample_rate
        key = "hearing", rate, pipeline.sample_rate
        hearing = self._cost(key, lambda: _hear(rate, pipeline.sample_rate)).busy_processor / _HEARD_SECONDS
        return MachineCost(window / pipeline.hop_seconds, hearing)

    def _cost(self, key: object, work: Callable[[], object]) -> Cost:
        if key not in self._known:
            work()  # what is set up once
            alone = _medians(_times(work))
            busy = alone
            if self._cores > 1:
                busy = _medians(_all_at_once(work, self._cores))
            self._known[key] = Cost(*alone, *busy)
        return self._known[key]


def _times(work: Callable[[], object]) -> list[tuple[float, float]]:
    taken: list[tuple[float, float]] = []
    end = time.perf_counter() + _LONGEST_SECONDS
    while len(taken) < _ROUNDS and (len(taken) < _LEAST_ROUNDS or time.perf_counter() < end):
        wall, processor = time.perf_counter(), time.thread_time()
        work()
        taken.append((time.perf_counter() - wall, time.thread_time() - processor))
    return taken


def _all_at_once(work: Callable[[], object], cores: int) -> list[tuple[float, float]]:
    """Times of all cores; their last round stays out, in which the others may have been done already."""
    taken: list[tuple[float, float]] = []
    threads = [threading.Thread(target=lambda: taken.extend(_times(work)[:-1])) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def _medians(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    walls, processors = zip(*times, strict=True)
    return statistics.median(walls), statistics.median(processors)


def _noise(samples: int) -> Float32Array:
    return np.random.default_rng(0).normal(0.0, 0.03, samples).astype(np.float32)


def _hear(rate: int, sample_rate: int) -> None:
    stream = MachineStream(WindowCutter(sample_rate, sample_rate), sample_rate)
    sound, block = _noise(rate * _HEARD_SECONDS), round(rate * _BLOCK_SECONDS)
    for start in range(0, sound.size, block):
        for _ in stream.push(start, rate, sound[start : start + block]):
            pass
