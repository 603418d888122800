"""edge-asd-train fetch: its options, and what it does with them. Needs no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_asd.errors import EXIT_DONE, EdgeAsdError, UsageError

from .dcase2020 import MACHINES, SUBSETS

_INTERRUPTED = 130


def add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "fetch",
        help="download a public data set of machine sound (non-commercial) from Zenodo",
        description="Downloads the archives of DCASE 2020 Task 2 from Zenodo, records 3678171, 3727685 and 3841772, "
        "with the labels of the evaluation set, record 3951620; prints their licence, checks their checksums, and "
        "unpacks DIR/development/NAME and DIR/evaluation/NAME. Some gigabytes a machine. What is there is not fetched "
        "again, and what was interrupted goes on.",
    )
    parser.add_argument("dataset", choices=("dcase2020",), help="the data set")
    parser.add_argument(
        "--machine",
        nargs="+",
        action="extend",
        required=True,
        choices=MACHINES,
        metavar="NAME",
        help=f"machine types to fetch, of {', '.join(MACHINES)}",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument(
        "--only",
        choices=SUBSETS,
        help="one of the two sets: development has ids 00, 02, 04, 06 (ToyCar 01 to 04, ToyConveyor 01 to 03), "
        "evaluation the others",
    )
    parser.add_argument("--keep-archives", action="store_true", help="in DIR/archives, once they are unpacked")
    parser.add_argument(
        "--base-url", default="https://zenodo.org", metavar="URL", help="a mirror that answers like Zenodo's API"
    )
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Fetch; returns the exit status."""
    from .fetch import fetch

    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out}: is a file; give the name of a folder")
    subsets = (options.only,) if options.only else SUBSETS
    try:
        fetch(
            options.out,
            options.machine,
            subsets,
            base_url=options.base_url,
            keep_archives=options.keep_archives,
        )
    except KeyboardInterrupt:
        print(
            f"\nedge-asd-train: interrupted; what was downloaded is kept in {options.out / 'archives'}, and the same "
            "command goes on from there",
            file=sys.stderr,
        )
        return _INTERRUPTED
    except OSError as error:
        where = error.filename or options.out
        raise EdgeAsdError(
            f"{where}: {error.strerror or error}: make room or choose another folder with --out"
        ) from None
    return EXIT_DONE
