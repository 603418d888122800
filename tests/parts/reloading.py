"""A daemon in this process whose configuration and detectors are changed under it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edge_asd.config_file import load_config
from edge_asd.daemon import Daemon
from edge_asd.machine import Machine
from edge_asd.publish.log import Log
from edge_asd.site_calibration import SiteCalibration, write_site_calibration
from parts.waiting import until

RATE = 16_000
NORMAL, LOUD = 0.001, 0.03
"""Of noise: rarities of 0.5 and of 3.6 to the detectors below."""
OUTCOMES = ("reloaded", "reload_failed")
_MADE: dict[str, bytes] = {}
"""Detectors: each content that is new costs a second of verification."""


def noise(path: Path, *parts: tuple[int, float]) -> int:
    """Writes seconds of noise, each part with its amplitude; gives the number of samples."""
    rng = np.random.default_rng(7)
    sound = np.concatenate([amplitude * rng.standard_normal(seconds * RATE) for seconds, amplitude in parts])
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    return int(sound.size)


class Plant:
    """A daemon with rail-7 and rail-8, in a folder of its own; it need not run."""

    def __init__(self, folder: Path, tiny: Callable[..., bytes]) -> None:
        self.folder, self.config = folder, folder / "press.yaml"
        self._tiny = tiny
        self._stream = io.StringIO()
        self._thread: threading.Thread | None = None
        noise(folder / "sound.wav", (11, NORMAL))
        self.put("a.onnx")

    def put(self, name: str, kind: str = "tiny", **more: Any) -> str:
        """A detector file whose metadata have another ``kind``, or more that is other; gives its sha256."""
        key = f"{kind} {more}"
        if key not in _MADE:
            _MADE[key] = self._tiny(document=lambda document: document.update(kind=kind, **more))
        content = _MADE[key]
        (self.folder / name).write_bytes(content)
        return sha256(content).hexdigest()

    def calibrate(self, name: str, machine: str, shift: float) -> None:
        """A calibration of this site: the detector's own, its scores shifted."""
        used = next(d for d in self.machine(machine).pipeline.detectors if d.name == name)
        scores = [score + shift for score in used.calibration.scores]
        calibration = used.calibration.from_scores(scores, level_dbfs=-40.0, source="this hall")
        document = SiteCalibration(
            sha256=used.detector.sha256, machine=machine, id=used.machine_id, calibration=calibration
        )
        write_site_calibration(self.folder / f"{name.removesuffix('.onnx')}.{machine}.calibration.json", document)

    def write(self, *machines: str, head: str = "") -> None:
        """The configuration; a machine is ``name: rail-7, ...``, and what it leaves out is as usual."""
        lines = ["site: plant-3", "node: hall", head or "evidence: {pictures: false}", "machines:"]
        usual = {"recordings": "sound.wav", "detectors": "[a.onnx]", "hop_seconds": "1", "alarm": "{threshold: 2}"}
        for machine in machines:
            missing = [f"{key}: {value}" for key, value in usual.items() if f"{key}:" not in machine]
            lines.append(f"  - {{{', '.join([machine, *missing])}}}")
        self.config.write_text("\n".join(lines) + "\n")

    def begin(self) -> None:
        log, state = Log(self._stream), self.folder / "state"
        self.daemon = Daemon(load_config(self.config), instance="press", log=log, state=state)

    def run(self) -> None:
        """To the end of the recordings."""
        self._thread = threading.Thread(target=self.daemon.run, kwargs={"until_end": True})
        self._thread.start()

    def end(self) -> None:
        self.daemon.stop()
        if self._thread is None:
            self.run()
        self.join()

    def join(self) -> None:
        """Until it has ended."""
        assert self._thread is not None
        self._thread.join(20)
        assert not self._thread.is_alive()

    def machine(self, name: str) -> Machine:
        return self.daemon._machines[name]

    def reload(self) -> dict[str, Any]:
        """What came of it; the daemon's loop need not turn."""
        before = len(self.outcomes())
        self.daemon.reload()
        self.daemon._reloader.heed()
        until(lambda: len(self.outcomes()) > before, "the reload")
        thread = self.daemon._reloader._thread
        assert thread is not None
        thread.join(5)
        assert len(self.outcomes()) == before + 1
        return self.outcomes()[-1]

    def outcomes(self) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] in OUTCOMES]

    def log(self) -> list[dict[str, Any]]:
        lines = self._stream.getvalue().split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.daemon._metrics.registry.get_sample_value(f"edge_asd_{name}", labels)

    def essence(self) -> dict[str, Any]:
        """All that a reload might change."""
        found: dict[str, Any] = {}
        for name, machine in self.daemon._machines.items():
            p = machine.pipeline
            found[name] = (machine.settings, p.detectors, p.rule, p._thresholds, p.active_above_dbfs, p.operating_point)
        return found
