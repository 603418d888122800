"""edge-asd-train evaluate: its options, and what it does with them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from edge_asd.errors import EXIT_DONE, UsageError

from .cache_folder import add_cache_option
from .disturb_cli import add_disturbance, disturbance_of


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="AUC, pAUC, what each part adds, and false alarms on labelled clips",
        description="Judges detectors on DIR/MACHINE/test: AUC and pAUC with intervals, beside trivial scorers and "
        "beside themselves without a part; the combination of the detectors of a machine, as the daemon makes it; "
        "false alarms on normal windows. Intervals are of 95 %, over recordings. A column tells how far each score "
        "orders normal clips as their level does.",
    )
    parser.add_argument("detectors", nargs="+", type=Path, metavar="DETECTOR", help="detector files, of any machines")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder in the DCASE 2020 layout")
    parser.add_argument(
        "--machine",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="folders within it (default: the detectors' machine types)",
    )
    parser.add_argument(
        "--normal",
        type=Path,
        metavar="DIR",
        help="count false alarms on the train clips of this folder too, less those that a detector was trained on",
    )
    parser.add_argument(
        "--recording-digits",
        type=int,
        default=1,
        metavar="N",
        help="clips whose numbers agree but for the last N digits are of one recording (default: 1)",
    )
    parser.add_argument(
        "--target",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="of normal windows that may pass the threshold of the false-alarm count (default: 0.01, rarity 2)",
    )
    parser.add_argument(
        "--each-id-alone",
        action="store_true",
        help="train the same kinds on each machine id alone, which is what a plant has, and set them beside (takes as "
        "long as training did; what was trained is kept for the next time)",
    )
    disturbing = parser.add_argument_group("disturbed test clips: what a detector stands that it was not trained for")
    add_disturbance(disturbing)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON to this file too")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="write a page to look at and listen to: tables, ROC curves, histograms, and the clips that say most",
    )
    add_cache_option(parser)
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; returns the exit status."""
    from edge_asd.report.page import check_page_path, write_page
    from edge_asd.verification import default_cache, load_detector

    from .evaluate import as_document, evaluate_machines
    from .evaluate_table import table
    from .evaluation_page import evaluation_page
    from .machine_evaluation import Choices

    if not 0 < options.target < 1:
        raise UsageError(f"--target {options.target:g}: must be a share between 0 and 1, for example 0.01")
    if not 0 <= options.recording_digits <= 8:
        raise UsageError(f"--recording-digits {options.recording_digits}: must be from 0 to 8")
    if options.out:
        _check_out(options.out)
    if options.report:
        check_page_path(options.report)
    disturbance = disturbance_of(options)
    detectors = [load_detector(path) for path in dict.fromkeys(options.detectors)]
    with tempfile.TemporaryDirectory(prefix="edge-asd-") as work:
        choices = Choices(
            options.normal,
            options.recording_digits,
            options.target,
            disturbance=disturbance,
            refits=default_cache().parent / "refits",
            each_id_alone=options.each_id_alone,
            work=Path(work),
        )
        found = evaluate_machines(detectors, options.data, options.machine, choices)
        document = as_document(found, choices)
        if options.report:
            size = write_page(options.report, evaluation_page(found, document))
            print(f"{options.report}: {size / 1e6:.1f} MB", file=sys.stderr)
    text = json.dumps(document, indent=1, allow_nan=False)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else table(document))
    return EXIT_DONE


def _check_out(out: Path) -> None:
    # Before the minutes of scoring, not after them.
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; give the name of a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out {out}: its folder cannot be written to")
