"""What ``edge-asd check`` takes on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    check = commands.add_parser(
        "check",
        help="say whether a configuration will work on this computer, and what is wrong",
        description="Loads a configuration and its detectors as run would; looks at the clock, secrets and folders; "
        "listens to the device for a second; connects to the broker; measures each detector on this computer, and "
        "says how many seconds of work each 10 s of sound cost: for each machine, each configuration, and for all "
        "daemons of this computer together, those that run now included. All machines are taken to run all the time, "
        "whatever active_when says. The exit status is 78 if anything has failed, else 0; warnings do not count.",
    )
    check.add_argument(
        "-c", "--config", type=Path, required=True, action="append", metavar="FILE",
        help="configuration (YAML); again for further daemons of this computer",
    )  # fmt: skip
    check.add_argument(
        "--state", type=Path, metavar="DIR", help="state folder of all of them (default that of each one's daemon)"
    )
    check.add_argument(
        "--only-configuration", action="store_true",
        help="look at the configuration, its detectors and the files it names alone, as a reload does",
    )  # fmt: skip
    check.add_argument("--publish", action="store_true", help="also send a test message to the broker")
    check.add_argument("--json", action="store_true", help="print one JSON document instead of lines")


def run_check(options: argparse.Namespace) -> int:
    """Check as the options say; returns the exit status."""
    from edge_asd.check import check

    return check(options)
