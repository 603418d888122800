"""``edge-asd demo``: a simulated slide rail runs, breaks and is repaired, before the real pipeline."""

from __future__ import annotations

import sys
import time
from importlib.resources import files
from pathlib import Path

from edge_asd.alarm import AlarmRule
from edge_asd.demo.clips import DEMO_PHASES, demo_scene
from edge_asd.detector import Detector
from edge_asd.errors import DetectorError
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline, Reading
from edge_asd.verification import load_detector

MACHINE_ID = "id_00"
DETECTORS = ("slide-rail.cae.onnx", "slide-rail.anogan.onnx")
"""Made by ``make demo-detectors``."""
_BAR_CELLS = 40
_FULL_BAR = 6.0
"""Rarity at which the bar is full: one window in a million."""
_RED, _GREEN, _DIM, _BOLD, _PLAIN = "\033[31m", "\033[32m", "\033[2m", "\033[1m", "\033[0m"

_WHAT_NEXT = """
What you heard: rarity is -log10 of the probability that the machine, when normal, sounds like this.
Where to look next:
  edge-asd replay --detector FILE PATH...     score your own recordings, with a table or --json
  edge-asd-train simulate --out DIR           the simulated slide rail as WAVs, normal and faulty
  edge-asd-train cae --data DIR --machine slider --out FILE    make a detector from normal sound
  edge-asd run -c CONFIG                      the daemon: MQTT alerts, Prometheus metrics, a log
  README.md                                   all of this, in order
"""


def load_demo_detectors() -> list[Detector]:
    """The detectors that come with the package.

    Raises:
        DetectorError: they are missing or broken.
    """
    folder = Path(str(files("edge_asd.demo")))
    for name in DETECTORS:
        if not (folder / name).exists():
            raise DetectorError(folder / name, "is missing; `make demo-detectors` makes it")
    return [load_detector(folder / name) for name in DETECTORS]


def show(seed: int) -> int:
    """Play the scene and print a line for each window; returns the exit status, 0."""
    begun = time.monotonic()
    detectors = load_demo_detectors()
    pipeline = Pipeline([MachineDetector.of(d, MACHINE_ID) for d in detectors], AlarmSettings(), hop_seconds=10.0)
    colours = sys.stdout.isatty()
    print(f"A simulated slide rail, {MACHINE_ID}, heard by {' and '.join(d.metadata.kind for d in detectors)}.")
    rule = pipeline.rule
    print(f"Alarm: raised by {rule} windows, cleared by {rule.clear_after} in a row below {rule.clear_below:.2f};")
    print(f"{pipeline.operating_point}.\n")
    cutter = pipeline.cutter()
    heard_phase, windows, alerts = "", 0, 0
    for phase, block in demo_scene(seed):
        if phase != heard_phase:
            print(_paint(f"--- the machine is {_in_words(phase)} ---", _BOLD, colours))
            heard_phase = phase
        for window in cutter.push(block):
            reading = pipeline.read(window)
            windows += 1
            print(_line(reading, rule, colours), flush=True)
            if reading.event is not None:
                alerts += 1
                print(_alert(reading, colours), flush=True)
    took = time.monotonic() - begun
    minutes = sum(seconds for _, _, seconds in DEMO_PHASES) / 60
    print(f"\n{minutes:.0f} minutes of sound, {windows} windows, {alerts} alerts, in {took:.0f} s.")
    print(_WHAT_NEXT, end="")
    return 0


def _in_words(phase: str) -> str:
    return {"normal": "normal", "rail_damage": "faulty: its rail is damaged", "repaired": "repaired"}.get(phase, phase)


def _line(reading: Reading, rule: AlarmRule, colours: bool) -> str:
    seconds = reading.start / reading.sample_rate
    rarity = reading.rarity or 0.0
    filled = min(_BAR_CELLS, round(rarity / _FULL_BAR * _BAR_CELLS))
    mark = min(_BAR_CELLS - 1, round(rule.threshold / _FULL_BAR * _BAR_CELLS))
    cells = ["#" if cell < filled else "." for cell in range(_BAR_CELLS)]
    cells[mark] = "|"
    bar = _paint("".join(cells), _RED if reading.is_anomalous else _GREEN, colours)
    each = "  ".join(f"{d.kind} {d.rarity:5.2f}" for d in reading.detectors)
    clock = f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
    return f"{clock}  rarity {rarity:5.2f} {bar} {_paint(each, _DIM, colours)}  {reading.condition}"


def _alert(reading: Reading, colours: bool) -> str:
    assert reading.event is not None  # asked for only where something happened
    word = reading.event.event.upper()
    text = f"      ALERT {word}  incident {reading.event.incident}  rarity {reading.rarity:.2f}"
    return _paint(text, (_RED if word == "RAISED" else _GREEN) + _BOLD, colours)


def _paint(text: str, colour: str, colours: bool) -> str:
    return f"{colour}{text}{_PLAIN}" if colours else text
