"""The commands as a user runs them: start, replay, and the daemon with its memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import soundfile
from parts.daemon import Daemon

import edge_asd.demo
from edge_asd.demo.clips import simulate
from edge_asd.demo.show import DETECTORS, MACHINE_ID

from .scale import Scale
from .table import Row, Table

_COMMAND = (sys.executable, "-m", "edge_asd.cli")
_READY_SECONDS, _RESIDENT_MB, _HELP_SECONDS, _REPLAY_SPEED = 1.0, 150.0, 0.3, 300.0
"""What must be reached."""
_SETTLED_SECONDS = 13.0
"""Until a daemon has scored its first window of 10 s."""


def measure_processes(table: Table, net: str, folder: Path, scale: Scale) -> None:
    """Rows for commands, wall time, and for the daemon's memory.

    Args:
        table: takes them.
        net: name of the AnoGAN's.
        folder: for recordings and configurations.
        scale: how much.
    """
    clips = folder / "clips"
    clips.mkdir()
    for number in range(scale.replayed_clips):
        soundfile.write(clips / f"{number:04}.flac", simulate(MACHINE_ID, 10, seed=number), 16_000)
    cae, anogan = (Path(edge_asd.demo.__file__).parent / name for name in DETECTORS)
    table.section("Commands: wall time, start included")
    helped = _median_seconds(lambda: _run(*_COMMAND, "--help"), scale.slow_rounds)
    table.add(Row("edge-asd --help", helped, "s", at_most=_HELP_SECONDS))
    replay = _median_seconds(
        lambda: _run(*_COMMAND, "replay", "--json", "--detector", str(cae), str(clips)), min(3, scale.slow_rounds)
    )
    speed = 10 * scale.replayed_clips / replay
    table.add(Row("replay", speed, "x real time", "cae", at_least=_REPLAY_SPEED, note=f"{replay:.2f} s"))
    _measure_daemon(table, f"cae, {net}", folder, (clips, cae, anogan), scale)


def _measure_daemon(table: Table, net: str, folder: Path, files: tuple[Path, Path, Path], scale: Scale) -> None:
    clips, cae, anogan = files

    def start(name: str, machines: int) -> Daemon:
        config = folder / f"{name}.yaml"
        each = "".join(
            f"  - {{name: machine-{n}, recordings: {clips}, detectors: [{cae}, {anogan}]}}\n" for n in range(machines)
        )
        config.write_text(f'site: bench\nnode: bench\nmachines:\n{each}metrics: {{listen: "127.0.0.1:0"}}\n')
        return Daemon(config)

    ready = []
    started: list[Daemon] = []
    more = 1 + scale.more_machines
    try:
        for number in range(scale.slow_rounds):
            started.append(start(f"start-{number}", 1))
            ready.append(float(started[-1].wait_for("ready")["start_seconds"]))
            if number + 1 < scale.slow_rounds:
                started[-1].terminate()
                started.pop()
        started += [start("another", 1), start("many", more)]
        for daemon in started:
            daemon.wait_for("ready")
        time.sleep(0.5 if scale.quick else _SETTLED_SECONDS)
        one, another, many = (_memory(daemon.process.pid) for daemon in started)
        for daemon in started:
            daemon.terminate()
    finally:
        for daemon in started:
            daemon.kill()
    table.add(Row("daemon, start to ready", statistics.median(ready), "s", net, at_most=_READY_SECONDS))
    table.section("The daemon's memory after a window")
    cores = len(os.sched_getaffinity(0))
    common = {"net": net, "cores": cores}
    table.add(Row("resident, one machine", one["Rss"], "MB", **common, at_most=_RESIDENT_MB))
    table.add(
        Row(
            "of it its own: a further instance costs",
            another["Private_Clean"] + another["Private_Dirty"],
            "MB",
            **common,
            note=f"proportional share {another['Pss']:.0f} MB, of the first {one['Pss']:.0f} MB",
        )
    )
    table.add(
        Row(
            "a further machine that shares the detectors",
            (many["Rss"] - one["Rss"]) / scale.more_machines,
            "MB",
            **common,
            note=f"{more} machines: {many['Rss']:.0f} MB resident",
        )
    )


def _memory(process: int) -> dict[str, float]:
    """What the kernel says of a process, MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) / 1024 for name, rest in (line.split(":", 1) for line in lines)}


def _run(*command: str) -> None:
    """Run a command that must succeed, its output thrown away."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _median_seconds(work: Callable[[], object], rounds: int) -> float:
    """By the wall clock; of several rounds one more comes first, which does not count."""
    if rounds > 1:
        work()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)
