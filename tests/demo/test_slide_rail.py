"""The simulated slide rail: the same from the same seed, faults that are heard and that loudness does not give away."""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_asd.demo import clips
from edge_asd.demo.clips import (
    DEMO_PHASES,
    GAIN_SPREAD_DB,
    MACHINE_IDS,
    demo_scene,
    microphone_gain_db,
    simulate,
    write_dataset,
)
from edge_asd.demo.slide_rail import SAMPLE_RATE, Fault, Filter, slide_rail
from edge_asd.logmel import Float32Array, Float64Array, LogMelParameters, log_mel


def power_db(samples: Float32Array) -> float:
    return float(10.0 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


def auc(normal: list[float], anomalous: list[float]) -> float:
    """Chance that an anomalous score exceeds a normal one, ties counting half."""
    difference = np.subtract.outer(anomalous, normal)
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def features(samples: Float32Array) -> Float64Array:
    """Mean of each mel band and how much it jumps from frame to frame, shape ``[256]``."""
    mel = log_mel(samples, LogMelParameters()).astype(np.float64)
    return np.concatenate([mel.mean(axis=1), np.diff(mel, axis=1).std(axis=1)])


def mahalanobis(train: list[Float64Array], tested: list[Float64Array]) -> list[float]:
    covariance = np.cov(np.transpose(train))
    # Fewer clips than features: a fifth of the way to the diagonal makes the covariance invertible.
    inverse = np.linalg.inv(0.8 * covariance + 0.2 * np.diag(np.diag(covariance)))
    deviations = np.array(tested) - np.mean(train, axis=0)
    return [float(d @ inverse @ d) for d in deviations]


def test_same_seed_same_sound() -> None:
    first = simulate("id_02", 3.0, seed=7, fault=Fault.LOOSE_BELT)
    again = simulate("id_02", 3.0, seed=7, fault=Fault.LOOSE_BELT)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, simulate("id_02", 3.0, seed=8, fault=Fault.LOOSE_BELT))


def test_a_longer_recording_begins_like_a_shorter_one() -> None:
    assert np.array_equal(simulate("id_00", 2.0, seed=3), simulate("id_00", 5.0, seed=3)[: 2 * SAMPLE_RATE])


@pytest.mark.parametrize("fault", Fault)
def test_severity_zero_is_the_sound_machine(fault: Fault) -> None:
    assert np.array_equal(simulate("id_04", 2.0, seed=1, fault=fault, severity=0.0), simulate("id_04", 2.0, seed=1))


@pytest.mark.parametrize("fault", [None, *Fault])
@pytest.mark.parametrize("machine_id", ["id_00", "id_31"])
def test_samples_are_whole(machine_id: str, fault: Fault | None) -> None:
    samples = simulate(machine_id, 4.3217, seed=11, fault=fault, severity=1.0)
    assert samples.dtype == np.float32
    assert samples.shape == (round(4.3217 * SAMPLE_RATE),)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() < 0.99


def test_ids_sound_different() -> None:
    """Between two machines the mean log-Mel differs by far more than between two recordings of one."""
    mels = {
        machine_id: [log_mel(simulate(machine_id, 6.0, seed=s), LogMelParameters()).mean(axis=1) for s in (0, 1)]
        for machine_id in MACHINE_IDS
    }

    def distance(a: Float32Array, b: Float32Array) -> float:
        return float(np.std(a - b))  # blind to the gain

    own = max(distance(*pair) for pair in mels.values())
    for a, b in ((a, b) for a in MACHINE_IDS for b in MACHINE_IDS if a < b):
        assert distance(mels[a][0], mels[b][0]) > 1.2 * own, (a, b)


def test_signal_to_noise_ratio() -> None:
    for machine_id in MACHINE_IDS:
        machine = np.mean([power_db(simulate(machine_id, 10.0, seed=s, snr_db=np.inf)) for s in range(3)])
        factory = np.mean([power_db(simulate(machine_id, 10.0, seed=s, snr_db=-np.inf)) for s in range(3)])
        assert machine == pytest.approx(factory, abs=1.5)


def test_gain_is_spread_evenly() -> None:
    gains = np.sort([microphone_gain_db(seed) for seed in range(5_000_000, 5_000_025)])
    assert np.abs(gains).max() <= GAIN_SPREAD_DB
    assert np.diff(gains).max() < 0.12 * GAIN_SPREAD_DB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"machine_id": "slider"}, "machine id"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"severity": 1.5}, "severity"),
        ({"severity": float("nan")}, "severity"),
        ({"seed": -1}, "seed"),
        ({"snr_db": float("nan")}, "snr_db"),
        ({"fault": "rust"}, "rust"),
    ],
)
def test_senseless_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**({"machine_id": "id_00", "seconds": 1.0, "seed": 0} | arguments))  # type: ignore[arg-type]


def test_machines_by_number() -> None:
    assert slide_rail("id_00") == slide_rail("id_00")
    assert len({slide_rail(f"id_{number:02d}").belt_hz for number in range(100)}) == 100


def test_filter_does_not_care_about_blocks() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(9_000).astype(np.float32)
    response = rng.standard_normal(700)
    blocks = np.split(noise, [10, 900, 5_000])
    by_block = Filter(response)
    expected = np.convolve(noise, response)[: len(noise)]
    assert np.allclose(np.concatenate([by_block(block) for block in blocks]), expected, atol=1e-3)


def test_scene_is_one_continuous_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [seconds for _, _, seconds in DEMO_PHASES] == [8 * 60, 6 * 60, 6 * 60]
    phases = [(name, fault, seconds // 6) for name, fault, seconds in DEMO_PHASES]
    monkeypatch.setattr(clips, "DEMO_PHASES", phases)
    scene = list(demo_scene(seed=0))
    blocks = {name: [block for _, block in group] for name, group in groupby(scene, key=lambda pair: pair[0])}
    assert list(blocks) == ["normal", "rail_damage", "repaired"]
    lengths = [sum(map(len, blocks[name])) for name in blocks]
    assert sum(lengths) == 200 * SAMPLE_RATE
    for length, (_, _, seconds) in zip(lengths, phases, strict=True):
        assert length == pytest.approx(seconds * SAMPLE_RATE, abs=3 * SAMPLE_RATE)
    assert np.ptp([power_db(np.concatenate(blocks[name])) for name in blocks]) < 1.0
    # The normal phase is the start of the same recording without any fault, and the border leaves no step.
    recording = clips.Recording("id_00", seed=0)
    sound = [recording.stroke() for _ in blocks["normal"]]
    assert all(np.array_equal(a, b) for a, b in zip(sound, blocks["normal"], strict=True))
    steps = np.abs(np.diff(np.concatenate([block for _, block in scene])))
    borders = np.cumsum(lengths[:2]) - 1
    assert steps[borders].max() < 6.0 * np.median(steps)


def test_dataset_layout(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = write_dataset(
        tmp_path / "data",
        seed=4,
        ids=("id_00", "id_02"),
        train_clips=2,
        test_normal=1,
        test_per_fault=1,
        seconds=1.0,
        progress=lambda made, of: calls.append((made, of)),
    )
    assert manifest == tmp_path / "data" / "slider" / "manifest.csv"
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    assert list(rows[0]) == ["file", "id", "fault", "severity", "seed"]
    files = {str(path.relative_to(manifest.parent)) for path in manifest.parent.rglob("*") if path.is_file()}
    assert files == {row["file"] for row in rows} | {"manifest.csv"}
    assert {"train/normal_id_00_00000001.flac", "test/normal_id_02_00000000.flac"} <= files
    assert [row["fault"] for row in rows if row["file"].startswith("test/anomaly_id_02")] == [*Fault]
    assert calls == [(made, 12) for made in range(1, 13)]
    assert len({(row["id"], row["seed"]) for row in rows}) == 12
    for row in rows[-2:]:
        samples, rate = soundfile.read(manifest.parent / row["file"], dtype="float32")
        fault, severity = Fault(row["fault"]), float(row["severity"])
        remade = simulate(row["id"], 1.0, seed=int(row["seed"]), fault=fault, severity=severity)
        assert rate == SAMPLE_RATE
        assert np.abs(samples - remade).max() <= 1.0 / 32768
    assert soundfile.info(manifest.parent / rows[0]["file"]).subtype == "PCM_16"


def test_dataset_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(FileExistsError, match=r"holiday\.jpg"):
        write_dataset(tmp_path, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_faults_are_heard_but_not_by_level() -> None:
    """At default severity: loudness ranks nothing, a distance in the log-Mel ranks nearly all."""
    energy: dict[Fault, list[float]] = {fault: [] for fault in Fault}
    distance: dict[Fault, list[float]] = {fault: [] for fault in Fault}
    for machine_id in ("id_00", "id_06"):
        train = [features(simulate(machine_id, 10.0, seed=seed)) for seed in range(1_000_000, 1_000_036)]
        normal = [simulate(machine_id, 10.0, seed=seed) for seed in range(2_000_000, 2_000_010)]
        normal_distances = mahalanobis(train, [features(clip) for clip in normal])
        for place, fault in enumerate(Fault):
            seeds = range(3_000_000 + 10 * place, 3_000_010 + 10 * place)
            faulty = [simulate(machine_id, 10.0, seed=seed, fault=fault) for seed in seeds]
            energy[fault].append(auc([power_db(clip) for clip in normal], [power_db(clip) for clip in faulty]))
            distances = mahalanobis(train, [features(clip) for clip in faulty])
            distance[fault].append(auc(normal_distances, distances))
    for fault in Fault:
        assert 0.4 < np.mean(energy[fault]) < 0.7, (fault, energy)
        assert np.mean(distance[fault]) > 0.9, (fault, distance)
