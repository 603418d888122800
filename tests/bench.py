"""`make bench`: speed and memory, all in one run, medians; a table, and JSON in build/bench.json.

Timings of one machine at one time: read the ratios, not the milliseconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import librosa
import numpy as np
import soundfile

from edge_asd.demo.clips import simulate
from edge_asd.demo.show import DETECTORS, MACHINE_ID, load_demo_detectors
from edge_asd.logmel import LogMelParameters, log_mel

ROUNDS = 15
WINDOW_SECONDS = 10


def main() -> None:
    """Measure, print, write."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows: list[dict[str, object]] = []

    def row(what: str, value: float, unit: str, note: str = "") -> None:
        rows.append({"what": what, "value": value, "unit": unit, "note": note})
        print(f"{what:<48} {value:10.3f} {unit:<12} {note}")

    print("one core, medians\n")
    sound = simulate(MACHINE_ID, WINDOW_SECONDS, seed=1)
    ours = median(lambda: log_mel(sound, LogMelParameters()))
    theirs = median(lambda: librosa_log_mel(sound))
    row("log-Mel of a window, edge_asd", 1e3 * ours, "ms")
    row("log-Mel of a window, librosa", 1e3 * theirs, "ms", f"{theirs / ours:.2f} times ours")
    mel = log_mel(sound, LogMelParameters())
    for detector in load_demo_detectors():
        taken = median(lambda detector=detector: detector.score(mel))
        kind = detector.metadata.kind
        row(f"score of a window, {kind}", 1e3 * taken, "ms", f"{WINDOW_SECONDS / (taken + ours):.0f} x real time")
    with tempfile.TemporaryDirectory() as folder:
        measure_commands(Path(folder), row)
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1))
    print(f"\n{out}")


def measure_commands(folder: Path, row: Callable[..., None]) -> None:
    """The commands as a user runs them."""
    clips = folder / "clips"
    clips.mkdir()
    for number in range(60):
        soundfile.write(clips / f"{number:04}.flac", simulate(MACHINE_ID, WINDOW_SECONDS, seed=number), 16_000)
    command = [sys.executable, "-m", "edge_asd.cli"]
    row("edge-asd --help", median(lambda: run([*command, "--help"]), 5), "s", "at most 0.3")
    cae, anogan = (Path(sys.modules["edge_asd.demo"].__file__ or "").parent / name for name in DETECTORS)
    replay = median(lambda: run([*command, "replay", "--json", "--detector", str(cae), str(clips)]), 3)
    row("edge-asd replay of 600 s, CAE, start included", replay, "s", f"{600 / replay:.0f} x real time; at least 300")
    config = folder / "bench.yaml"
    config.write_text(
        f"site: bench\nnode: bench\nmachines:\n  - {{name: one, recordings: {clips}, detectors: [{cae}, {anogan}]}}\n"
        'metrics: {listen: "127.0.0.1:0"}\n'
    )
    ready, resident = [], 0.0
    for _ in range(5):
        daemon = subprocess.Popen([*command, "run", "-c", str(config)], stdout=subprocess.PIPE, text=True)
        assert daemon.stdout is not None
        for line in daemon.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                ready.append(event["start_seconds"])
                break
        time.sleep(11)
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        resident = max(resident, int(status.split("VmRSS:")[1].split()[0]) / 1024)
        daemon.terminate()
        daemon.communicate()
    row("daemon, start to ready, CAE and AnoGAN", statistics.median(ready), "s", "at most 1")
    row("daemon, resident after a window, CAE and AnoGAN", resident, "MB", "at most 150")


def librosa_log_mel(sound: np.ndarray) -> np.ndarray:
    """The same log-Mel by librosa."""
    power = librosa.feature.melspectrogram(
        y=sound, sr=16_000, n_fft=1024, hop_length=512, n_mels=128, fmin=0.0, fmax=8000.0, pad_mode="constant"
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


def run(command: list[str]) -> None:
    """Run a command that must succeed, its output thrown away."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def median(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median seconds of some rounds, after one that does not count."""
    work()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
