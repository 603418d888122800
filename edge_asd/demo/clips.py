"""Simulated recordings: a slide rail in a factory, before a microphone, as clips, as a scene and as a data set.

The factory stands behind the machine at a chosen signal-to-noise ratio: the machine's mean power over the mean power of
what is steady behind it, clanks not counted. Together they always have the same level, so that a noisier factory is not
a louder recording; only the microphone's gain differs from recording to recording, sound and faulty alike.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import PCG64, Generator, SeedSequence

from edge_asd.demo.slide_rail import (
    SAMPLE_RATE,
    Fault,
    Filter,
    SlideRailSound,
    colour,
    ringing,
    sine,
    slide_rail,
)
from edge_asd.logmel import Float32Array

MACHINE_IDS = ("id_00", "id_02", "id_04", "id_06")
"""The ids that MIMII has too."""

LEVEL_DBFS = -36.0
"""Mean level of a recording before the gain of its microphone; MIMII's slide rails lie at about -39."""

GAIN_SPREAD_DB = 3.0
"""The microphone's gain lies within plus or minus this."""

DEMO_PHASES: tuple[tuple[str, Fault | None, int], ...] = (
    ("normal", None, 8 * 60),
    ("rail_damage", Fault.RAIL_DAMAGE, 6 * 60),
    ("repaired", None, 6 * 60),
)
"""Name, fault and length in seconds of the phases of ``demo_scene``."""

_CLANKS_PER_SECOND = 0.08
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def microphone_gain_db(seed: int) -> float:
    """Gain of the recording with this seed, dB.

    Consecutive seeds fill the range evenly (the golden ratio's sequence) rather than at random: with 25 clips against
    25 chance alone moves the AUC of loudness by 0.08, and a small test set should not be solved by chance.
    """
    return GAIN_SPREAD_DB * (2.0 * ((0.5 + seed % 1_000_000 * _GOLDEN) % 1.0) - 1.0)


class Factory:
    """A hall's rumble, hum and blowers, a neighbour at work, now and then a clank; every recording's is different."""

    def __init__(self, seed: SeedSequence) -> None:
        self._rng = rng = Generator(PCG64(seed))
        tilt = rng.normal(0.0, 1.2)
        self._hall = Filter(colour((40, 120, 1000, 4000, 8000), (-10, 8, -8 + tilt, -17 + 2 * tilt, -24 + 3 * tilt)))
        centre = rng.uniform(800.0, 2500.0)
        self._neighbour = Filter(colour((centre / 4, centre, centre * 3, 8000), (-24, 0, -9, -24)))
        self._clank = Filter(ringing(tuple(rng.uniform((700, 1500, 2600), (1300, 2400, 4200))), 45.0, 0.3))
        blower_hz = rng.uniform(420.0, 520.0)
        mains_hz = 50.0 * (1.0 + rng.normal(0.0, 0.0005))
        tones_hz = [mains_hz, 2 * mains_hz, 4 * mains_hz, blower_hz, 2 * blower_hz, 4 * blower_hz]
        self._steps = np.array(tones_hz) / SAMPLE_RATE
        self._phases = rng.random(len(tones_hz))
        amplitudes = np.array([0.25, 0.4, 0.2, 0.2, 0.22, 0.1]) * np.exp(0.4 * rng.standard_normal(len(tones_hz)))
        # Powers: a quarter the neighbour, a fifth at most the tones, the rest the hall.
        amplitudes *= min(1.0, math.sqrt(0.2 / float(np.sum(amplitudes**2 / 2.0))))
        self._amplitudes = amplitudes.astype(np.float32)
        self._hall_amplitude = np.float32(math.sqrt(0.75 - float(np.sum(amplitudes**2 / 2.0))))
        self._slow_hz = rng.uniform(0.06, 0.45, 2)
        self._slow_phases = rng.random(2)
        self._sample = 0

    def next(self, samples: int) -> Float32Array:
        """What comes next of it, shape ``[sample]``; of unit mean power, clanks aside, and without a seam."""
        rng = self._rng
        hall = self._hall(rng.standard_normal(samples, np.float32)) * self._hall_amplitude
        neighbour = self._neighbour(rng.standard_normal(samples, np.float32)) * self._neighbour_amplitude(samples)
        time = np.arange(self._sample, self._sample + samples)
        out = hall + neighbour
        for amplitude, step, phase in zip(self._amplitudes, self._steps, self._phases, strict=True):
            out += amplitude * sine(time * step + phase)
        blows = np.zeros(samples, np.float32)
        at = rng.integers(0, samples, rng.poisson(_CLANKS_PER_SECOND * samples / SAMPLE_RATE))
        blows[at] = rng.uniform(4.0, 20.0, len(at))
        self._sample += samples
        return out + self._clank(blows)

    def _neighbour_amplitude(self, samples: int) -> Float32Array:
        """The neighbour's slow coming and going, mean power a quarter, ``[sample]``."""
        time = np.arange(self._sample, self._sample + samples) / SAMPLE_RATE
        first, second = (sine(time * hz + phase) for hz, phase in zip(self._slow_hz, self._slow_phases, strict=True))
        return np.float32(0.5 / math.sqrt(1.16)) * (np.float32(1.0) + np.float32(0.4) * (first + second))


class Recording:
    """One machine in one factory, recorded without a break, stroke after stroke.

    Args:
        machine_id: such as ``id_00``.
        seed: any integer from 0; the same seed makes the same recording.
        snr_db: machine over factory, dB; infinity leaves out the factory, minus infinity the machine.

    Raises:
        ValueError: the id is none, the seed is negative or the ratio is not a number.
    """

    def __init__(self, machine_id: str, *, seed: int, snr_db: float = 6.0) -> None:
        if seed < 0:
            raise ValueError(f"seed {seed} is negative")
        if math.isnan(snr_db):
            raise ValueError("snr_db is not a number")
        rail = slide_rail(machine_id)
        machine_seed, factory_seed = SeedSequence((seed, rail.number)).spawn(2)
        self._machine = SlideRailSound(rail, machine_seed)
        self._factory = Factory(factory_seed)
        factory_share = 1.0 / (1.0 + 10.0 ** (snr_db / 10.0)) if snr_db < 300.0 else 0.0
        amplitude = 10.0 ** ((LEVEL_DBFS + microphone_gain_db(seed)) / 20.0)
        self._machine_amplitude = np.float32(amplitude * math.sqrt(1.0 - factory_share))
        self._factory_amplitude = np.float32(amplitude * math.sqrt(factory_share))

    def stroke(self, fault: Fault | None = None, severity: float = 0.7) -> Float32Array:
        """The next stroke with its dwell, float32, full scale 1.0, shape ``[sample]``, about 1 to 2 s.

        Raises:
            ValueError: the severity is outside 0 to 1.
        """
        if not 0.0 <= severity <= 1.0:
            raise ValueError(f"severity {severity} is outside 0 to 1")
        machine = self._machine.stroke(fault, severity)
        return machine * self._machine_amplitude + self._factory.next(len(machine)) * self._factory_amplitude


def simulate(
    machine_id: str,
    seconds: float,
    *,
    seed: int,
    fault: Fault | None = None,
    severity: float = 0.7,
    snr_db: float = 6.0,
) -> Float32Array:
    """A recording of any length that begins somewhere in the machine's cycle.

    Args:
        machine_id, seconds: which machine (any number makes one) and how much of it.
        seed: any integer from 0. Machine, factory and gain follow from it; the same seed with and without a fault is
            the same machine making the same strokes in the same factory.
        fault: what is wrong; None is a sound machine.
        severity: how much of it, 0 (the sound machine, to the bit) to 1.
        snr_db: machine over factory, dB.

    Returns:
        float32, full scale 1.0, at ``SAMPLE_RATE``, shape ``[seconds * SAMPLE_RATE]``.

    Raises:
        ValueError: an argument is outside its range; the message says which.
    """
    samples = round(seconds * SAMPLE_RATE) if math.isfinite(seconds) else 0
    if samples < 1:
        raise ValueError(f"cannot make a recording of {seconds} seconds")
    recording = Recording(machine_id, seed=seed, snr_db=snr_db)
    cycle = [recording.stroke(fault, severity) for _ in range(2)]
    # The first stroke also fills the filters; a clip begins after it, at any moment of the second.
    begin = int(len(cycle[1]) * ((0.25 + seed % 1_000_000 * math.sqrt(2.0)) % 1.0))
    blocks, made = [cycle[1][begin:]], len(cycle[1]) - begin
    while made < samples:
        blocks.append(recording.stroke(fault, severity))
        made += len(blocks[-1])
    return np.concatenate(blocks)[:samples]


def demo_scene(
    seed: int, *, machine_id: str = "id_00", severity: float = 0.7, snr_db: float = 6.0
) -> Iterator[tuple[str, Float32Array]]:
    """Twenty minutes of one machine: sound, then with a damaged rail, then repaired.

    One continuous recording in one factory; the phases change between two strokes, at the first that ends after the
    phase is due.

    Yields:
        The phase (``normal``, ``rail_damage``, ``repaired``) and a stroke, float32, full scale 1.0, ``[sample]``.
    """
    recording = Recording(machine_id, seed=seed, snr_db=snr_db)
    made, due = 0, 0
    for phase, fault, seconds in DEMO_PHASES:
        due += seconds * SAMPLE_RATE
        while made < due:
            block = recording.stroke(fault, severity)
            if phase == DEMO_PHASES[-1][0]:
                block = block[: due - made]
            made += len(block)
            yield phase, block


@dataclass(frozen=True)
class _Clip:
    """One file of the data set; with ``simulate`` its fields make it again."""

    file: str
    id: str
    fault: Fault | None
    severity: float
    seed: int


def _plan(
    seed: int, ids: Sequence[str], train_clips: int, test_normal: int, test_per_fault: int, severity: float
) -> Iterator[_Clip]:
    """Every clip with a seed of its own, which depends on nothing but the data set's seed and the clip's place."""
    faulty: list[Fault | None] = [fault for fault in Fault for _ in range(test_per_fault)]
    parts: tuple[tuple[str, list[Fault | None]], ...] = (
        ("train/normal", [None] * train_clips),
        ("test/normal", [None] * test_normal),
        ("test/anomaly", faulty),
    )
    for machine_id in ids:
        for part, (name, faults) in enumerate(parts):
            for place, fault in enumerate(faults):
                clip_seed = (seed * len(parts) + part) * 1_000_000 + place
                file = f"{name}_{machine_id}_{place:08d}.flac"
                yield _Clip(file, machine_id, fault, severity if fault else 0.0, clip_seed)


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_dataset(
    folder: str | Path,
    *,
    seed: int,
    machine: str = "slider",
    ids: Sequence[str] = MACHINE_IDS,
    train_clips: int = 60,
    test_normal: int = 25,
    test_per_fault: int = 8,
    seconds: float = 10.0,
    severity: float = 0.7,
    snr_db: float = 6.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write simulated clips in the layout of DCASE 2020 Task 2, each from a recording of its own.

    ``FOLDER/MACHINE/train/normal_ID_NNNNNNNN.flac``, ``FOLDER/MACHINE/test/{normal,anomaly}_ID_NNNNNNNN.flac`` (16-bit
    FLAC, mono, ``SAMPLE_RATE``) and, written last, ``FOLDER/MACHINE/manifest.csv`` with a line for each clip: file, id,
    fault (empty: none), severity, seed. Every file appears whole or not at all.

    Args:
        folder: new or empty.
        seed: any integer from 0; with the same seed a clip is the same however many others are made.
        machine, ids: the machine type, a folder's name; its machines.
        train_clips, test_normal: how many sound clips, for each id.
        test_per_fault: how many faulty ones, for each id and each ``Fault``.
        seconds, severity, snr_db: as for ``simulate``, of every clip.
        progress: called after each clip with the number made and the number of all.

    Returns:
        The manifest's path.

    Raises:
        FileExistsError: the folder holds something already; nothing is written then.
        ValueError: an argument is outside its range.
    """
    root = Path(folder)
    if root.is_dir() and (found := min(root.iterdir(), default=None)):
        raise FileExistsError(f"{root} already holds {found.name}; name a new or an empty folder to simulate into")
    clips = list(_plan(seed, ids, train_clips, test_normal, test_per_fault, severity))
    manifest = io.StringIO()
    lines = csv.writer(manifest, lineterminator="\n")
    lines.writerow(["file", "id", "fault", "severity", "seed"])
    for made, clip in enumerate(clips, 1):
        samples = simulate(clip.id, seconds, seed=clip.seed, fault=clip.fault, severity=clip.severity, snr_db=snr_db)
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        _write_atomically(root / machine / clip.file, encoded.getvalue())
        lines.writerow([clip.file, clip.id, clip.fault or "", clip.severity, clip.seed])
        if progress:
            progress(made, len(clips))
    _write_atomically(root / machine / "manifest.csv", manifest.getvalue().encode())
    return root / machine / "manifest.csv"
