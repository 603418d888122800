"""What ``edge-asd replay`` takes on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_asd.errors import UsageError


def add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    replay = commands.add_parser(
        "replay",
        help="score recordings at full speed",
        description="Scores WAV and FLAC files, or folders of them, as the daemon would. Each file is taken by itself: "
        "its score is the mean over its windows of 10 s. Names like anomaly_id_02_00000017.wav carry a machine id and "
        "a label; where both labels are there, AUC and pAUC are shown. --report makes a page of it to look at and to "
        "listen to: whether the detector will do before it goes live.",
    )
    replay.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="recordings or folders")
    replay.add_argument(
        "--detector",
        nargs="+",
        action="append",
        type=Path,
        required=True,
        metavar="FILE",
        help="detector file; several (.onnx) are combined",
    )
    replay.add_argument("--id", metavar="ID", help="machine id, for detectors that serve several; else from file names")
    replay.add_argument("--channel", type=int, default=1, metavar="N", help="of recordings with several (default 1)")
    replay.add_argument("--hop", type=float, default=10.0, metavar="SECONDS", help="from window to window (default 10)")
    replay.add_argument("--stream", action="store_true", help="join the files of each folder in order into one stream")
    replay.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    replay.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="also write a page: timeline, incidents with picture and sound, and the verdict; below 20 MB",
    )
    replay.add_argument(
        "--false-alarms-per-day",
        type=float,
        default=0.1,
        metavar="N",
        help="incidents normal sound may raise (default 0.1)",
    )


def run_replay(options: argparse.Namespace) -> int:
    """Replay as the options say; returns the exit status."""
    from edge_asd.replay_output import replay

    # "--detector a.onnx b.onnx sounds/" does not say where the detectors end: a first one, then what is called .onnx.
    given = [(number, path) for group in options.detector for number, path in enumerate(group)]
    options.detector = [path for number, path in given if number == 0 or path.suffix == ".onnx"]
    options.paths = [path for number, path in given if number > 0 and path.suffix != ".onnx"] + options.paths
    if not options.paths:
        raise UsageError("replay: say which recordings or folders, after the detectors")
    return replay(options)
