"""edge-asd-train reproduce: its options, and what it does with them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_asd.errors import EXIT_DONE, EXIT_SOME_FAILED, UsageError

from .cache_folder import add_cache_option

if TYPE_CHECKING:
    from .recording_set import RecordingSet
    from .report_rows import Row
    from .reproduce import Reproduction


def add_reproduce(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "reproduce",
        help="make the technical report's tables again, on the public recordings or others in that layout",
        description="Trains the rows of the report that this project's design comes from, ours, and the DCASE 2020 "
        "baseline on DIR/NAME/train, scores DIR/NAME/test, and prints the report's tables with what was published "
        "beside. `edge-asd-train fetch dcase2020` downloads the recordings. It takes hours (a day with the report's "
        "AnoGAN on two cores and the whole data set); interrupted, the same command goes on.",
    )
    parser.add_argument(
        "--development", type=Path, required=True, metavar="DIR", help="folder that holds NAME/train and NAME/test"
    )
    parser.add_argument(
        "--evaluation", type=Path, metavar="DIR", help="the same of the evaluation set (ids 01, 03, 05): rows again"
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="FILE", help="labels of the evaluation set's test clips (CSV, or a folder)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="detectors, scores, and the document")
    parser.add_argument("--machine", default="slider", metavar="NAME", help="folder within DIR (default: slider)")
    parser.add_argument(
        "--id", nargs="+", metavar="ID", help="of the development set; all unless given (the report: id_00 id_02 id_04)"
    )
    parser.add_argument("--rows", nargs="+", metavar="KEY", help="only these (--list shows them)")
    parser.add_argument("--grid", action="store_true", help="learning rates and batch sizes of the CAE too")
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    parser.add_argument("--recording-digits", type=int, default=1, metavar="N", help="as for training (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    add_cache_option(parser)
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Reproduce and print; returns the exit status: 1 where a row could not be trained."""
    from .report_rows import chosen_rows
    from .reproduce import SCHEMA
    from .reproduce_table import reproduction_table

    try:
        rows = chosen_rows(options.rows, grid=options.grid)
    except ValueError as error:
        raise UsageError(f"--rows: {error}") from None
    if options.list:
        for row in rows:
            print(f"{row.key:<30} {row.title}")
        return EXIT_DONE
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: must not be negative")
    if not 0 <= options.recording_digits <= 8:
        raise UsageError(f"--recording-digits {options.recording_digits}: must be from 0 to 8")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out}: is not a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    if not os.access(options.out, os.W_OK):
        raise UsageError(f"--out {options.out}: cannot be written to")
    document: dict[str, Any] = {"schema": SCHEMA, "sets": _reproduce(options, rows)}
    (options.out / "reproduce.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(reproduction_table(document))
    print(f"\n{options.out / 'reproduce.json'}: all of it")
    failed = any("failed" in row for found in document["sets"].values() for row in found["rows"])
    return EXIT_SOME_FAILED if failed else EXIT_DONE


def _sets(options: argparse.Namespace) -> list[RecordingSet]:
    from .recording_set import RecordingSet

    digits = options.recording_digits
    found = [
        RecordingSet.read("development", options.development, options.machine, ids=options.id, recording_digits=digits)
    ]
    if options.evaluation:
        labels = _labels(options)
        found.append(
            RecordingSet.read("evaluation", options.evaluation, options.machine, labels=labels, recording_digits=digits)
        )
    elif options.ground_truth:
        raise UsageError("--ground-truth labels the evaluation set: give --evaluation too")
    return found


def _labels(options: argparse.Namespace) -> dict[str, bool] | None:
    """From the ground truth; None where the clips' names carry their labels."""
    from .dcase2020 import GROUND_TRUTH
    from .ground_truth import read_ground_truth
    from .reproduce import ReproduceError

    test = options.evaluation / options.machine / "test"
    if not options.ground_truth and any(test.glob("normal_*")):
        return None
    # Where `fetch` leaves it.
    path = options.ground_truth or options.evaluation / GROUND_TRUTH
    if not options.ground_truth and not path.exists():
        raise ReproduceError(f"{test}: test clips have no label in their names, and there is no {path}: --ground-truth")
    return read_ground_truth(path, options.machine)


def _reproduce(options: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    from .reproduce import Reproduction

    sets = [
        Reproduction(
            recordings, options.out / recordings.name, recording_digits=options.recording_digits, seed=options.seed
        )
        for recordings in _sets(options)
    ]
    clock = _Clock([(one, row) for one in sets for row in rows])
    return {
        one.recordings.name: {
            "data": one.data,
            "rows": [*(clock.work(one, row) for row in rows), *one.trivial()],
        }
        for one in sets
    }


class _Clock:
    """Works on row after row, and says how long the rest may take, from how long the done ones took."""

    def __init__(self, work: Sequence[tuple[Reproduction, Row]]) -> None:
        self._left = [(one, row) for one, row in work if not one.is_done(row)]
        self._todo = len(self._left)
        self._spent = self._expected = 0.0

    def work(self, one: Reproduction, row: Row) -> dict[str, Any]:
        is_new = (one, row) in self._left
        if is_new:
            place = f"{self._todo - len(self._left) + 1} of {self._todo}"
            print(f"{one.recordings.name}: {row.key}, {place}{self._time_left()}", file=sys.stderr)
        begun = time.monotonic()
        found = one.row(row)
        if is_new:
            self._left.remove((one, row))
            self._spent += time.monotonic() - begun
            self._expected += one.expected_seconds(row)
        return found

    def _time_left(self) -> str:
        left = sum(one.expected_seconds(row) for one, row in self._left)
        # Until something is measured: what two cores took here.
        pace = self._spent / self._expected if self._expected else 1.0
        return f"; about {_duration(left * pace)} left"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"
