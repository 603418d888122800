"""edge-asd-train simulate: its options, and what it does with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_asd.errors import EXIT_DONE, UsageError

from .settings import HelpFormatter


def add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    simulate = commands.add_parser(
        "simulate",
        help="write recordings of a simulated slide rail in the DCASE layout",
        description="Writes DIR/slider/train and DIR/slider/test: a simulated slide rail in a factory, normal and with "
        "the faults that MIMII names (rail_damage, loose_belt, no_grease), and a manifest. The same seed gives "
        "the same recordings.",
        formatter_class=HelpFormatter,
    )
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    simulate.add_argument("--id", nargs="+", metavar="ID", help="machine ids; four unless given")
    simulate.add_argument("--train-clips", type=int, default=60, metavar="N", help="normal training clips of each id")
    simulate.add_argument("--test-normal", type=int, default=25, metavar="N", help="normal test clips of each id")
    simulate.add_argument("--test-per-fault", type=int, default=8, metavar="N", help="test clips of each id and fault")
    simulate.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    simulate.add_argument("--severity", type=float, default=0.7, help="of the faults, 0 to 1")
    simulate.add_argument("--snr", type=float, default=6.0, metavar="DB", help="machine over factory")
    simulate.add_argument("--seed", type=int, default=0, help="of everything")
    simulate.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Simulate; returns the exit status."""
    from edge_asd.demo.clips import MACHINE_IDS, write_dataset

    def progress(made: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{made} of {total} clips", end="" if made < total else "\n", file=sys.stderr)

    if min(options.seed, options.train_clips, options.test_normal, options.test_per_fault) < 0:
        raise UsageError("--seed and numbers of clips must not be negative")
    try:
        manifest = write_dataset(
            options.out,
            seed=options.seed,
            ids=options.id or MACHINE_IDS,
            train_clips=options.train_clips,
            test_normal=options.test_normal,
            test_per_fault=options.test_per_fault,
            seconds=options.seconds,
            severity=options.severity,
            snr_db=options.snr,
            progress=progress,
        )
    except (FileExistsError, ValueError) as error:
        raise UsageError(str(error)) from None
    print(f"{manifest}: what was made")
    return EXIT_DONE
