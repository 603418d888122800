"""What ``edge-asd mute`` takes on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_mute(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    mute = commands.add_parser(
        "mute",
        help="raise nothing while a machine is serviced",
        description="Puts a machine into maintenance for some hours, from now on: it is heard, scored and published as "
        "ever, but its condition is maintenance and nothing is raised. An incident that is open stays open, and is "
        "neither raised again nor cleared. Afterwards k of n are counted anew. The daemon takes it up within about a "
        "second, or at its next start, and keeps it over restarts.",
    )
    mute.add_argument("machine", nargs="?", metavar="MACHINE", help="of the configuration")
    what = mute.add_mutually_exclusive_group(required=True)
    what.add_argument("--hours", type=float, metavar="N", help="from now on; may be 0.5; 31 days at most")
    what.add_argument("--off", action="store_true", help="its maintenance is over now")
    what.add_argument("--list", action="store_true", help="show who is in maintenance until when")
    mute.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration of the daemon (YAML)")
    mute.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="state folder of the daemon (default $STATE_DIRECTORY, else that of the configuration)",
    )


def run_mute(options: argparse.Namespace) -> int:
    """Mute as the options say; returns the exit status."""
    from edge_asd.mute import mute

    return mute(options)
