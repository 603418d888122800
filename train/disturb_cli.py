"""edge-asd-train disturb, and the options of a disturbance that `evaluate` has too."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_asd.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from .disturb import Disturbance


def add_disturb(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "disturb",
        help="write a data set again in noise and with other gains, to train and evaluate on",
        description="Writes OUT/NAME/train and OUT/NAME/test: the clips of DIR/NAME mixed with noise and made louder "
        "or quieter, each by itself, as WAV files of 32-bit floats. What a detector trained there is worth in a louder "
        "hall; `evaluate --snr` asks what one stands that was trained without.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder in the DCASE 2020 layout")
    parser.add_argument("--machine", required=True, metavar="NAME", help="folder within it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add_disturbance(parser)
    parser.set_defaults(do=run)


def add_disturbance(parser: argparse._ActionsContainer) -> None:
    """Add the options that `disturbance_of` reads."""
    parser.add_argument("--snr", type=float, metavar="DB", help="mix noise in, so far below a clip's mean power")
    parser.add_argument(
        "--noise",
        default="pink",
        metavar="KIND",
        help="white, pink, or a recording or a folder of recordings to draw it from (default: pink)",
    )
    parser.add_argument(
        "--gain", type=float, default=0.0, metavar="DB", help="make each clip louder or quieter by up to so much"
    )
    parser.add_argument("--seed", type=int, default=0, help="of noise and gains (default: 0)")


def disturbance_of(options: argparse.Namespace) -> Disturbance | None:
    """What the options ask for; None where that is nothing.

    Raises:
        UsageError: values that cannot be, or noise that is not there.
    """
    from .disturb import PINK, WHITE, Disturbance

    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: must not be negative")
    noise = options.noise if options.noise in (WHITE, PINK) else Path(options.noise)
    if isinstance(noise, Path) and not noise.exists():
        raise UsageError(f"--noise {options.noise}: is neither white nor pink, and no such file or folder exists")
    if options.snr is None and not options.gain:
        return None
    return Disturbance(options.snr, options.gain, noise, options.seed)


def run(options: argparse.Namespace) -> int:
    """Write the disturbed clips; returns the exit status."""
    from .corpus import read_clips
    from .disturb import disturbed

    disturbance = disturbance_of(options)
    if disturbance is None:
        raise UsageError("disturb: say how: --snr, --gain, or both")
    machine = options.data / options.machine
    for split in ("train", "test"):
        target = options.out / options.machine / split
        if target.exists() and any(target.iterdir()):
            raise UsageError(f"--out {options.out}: {target} holds something already; take a new folder")
        if split == "test" and not (machine / split).is_dir():
            continue
        clips = read_clips(options.data, options.machine, split)
        made = disturbed(clips, disturbance, target, title=f"{options.machine} {split}, disturbed")
        print(f"{target}: {len(made)} clips")
    return EXIT_DONE
