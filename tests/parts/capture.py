"""A program: listens as the daemon does, and keeps every sample that it was given.

    python capture.py DEVICE FILE.npz [DETECTOR]

Until SIGTERM. The file then holds the stretches (``starts``, ``lengths``, ``is_lost``, ``samples`` of those heard), the
windows of channel 1 (``window_starts``, ``windows``, their ``scores``), and the books (``captured``, ``lost``,
``expected``, ``rate``). Lines on standard output, each with seconds since the start: ``heard``, ``not heard: REASON``.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import numpy as np

from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.ledger import Stretch
from edge_asd.audio.microphone import Microphone
from edge_asd.audio.stream import DeviceStreams, MachineStream
from edge_asd.audio.windows import Window, WindowCutter
from edge_asd.clock import boot_time
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.verification import load_detector

RATE = 16_000
WINDOW = 10 * RATE


def main() -> None:
    device, out = sys.argv[1], Path(sys.argv[2])
    pipeline = None
    if len(sys.argv) > 3:
        detector = MachineDetector.of(load_detector(Path(sys.argv[3])), None)
        pipeline = Pipeline([detector], AlarmSettings(threshold=2.0), hop_seconds=10.0)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    microphone = Microphone(DeviceSettings(name=device))
    streams = DeviceStreams({"machine": (1, MachineStream(WindowCutter(WINDOW, WINDOW), RATE))})
    began = boot_time()
    microphone.start()
    status, stretches, windows = None, [], []
    while not stopping.wait(0.05):
        if microphone.status != status:
            status = microphone.status
            said = "heard" if status.is_heard else f"not heard: {status.reason}"
            print(f"{boot_time() - began:.2f} {said}", flush=True)
        for disturbance in microphone.take_disturbances():
            print(f"{boot_time() - began:.2f} {disturbance.kind} {disturbance.seconds:.2f}", flush=True)
        for stretch in microphone.take():
            stretches.append(stretch)
            windows += [w for _, w in streams.push(stretch)]
    microphone.stop()
    expected = microphone.ledger.expected(boot_time())
    stretches += microphone.take()
    save(out, stretches, [w for w in windows if not w.lost], pipeline, microphone, expected)


def save(
    out: Path,
    stretches: list[Stretch],
    windows: list[Window],
    pipeline: Pipeline | None,
    microphone: Microphone,
    expected: int,
) -> None:
    ledger = microphone.ledger
    heard = [s.samples for s in stretches if s.samples is not None]
    readings = [pipeline.read(w) for w in windows] if pipeline is not None else []
    np.savez(
        out,
        starts=np.array([s.start for s in stretches]),
        lengths=np.array([s.frames for s in stretches]),
        is_lost=np.array([s.samples is None for s in stretches]),
        samples=np.concatenate(heard) if heard else np.zeros((0, 1), np.float32),
        window_starts=np.array([w.start for w in windows]),
        windows=np.array([w.samples for w in windows]),
        scores=np.array([r.detectors[0].score if r.detectors else np.nan for r in readings]),
        captured=ledger.captured,
        lost=ledger.lost,
        expected=expected,
        rate=ledger.rate,
    )


if __name__ == "__main__":
    main()
