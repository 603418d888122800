"""Measure, print a table, write the JSON beside it. Read the ratios: milliseconds are of one machine at one time."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# One thread for every library, said before any of them is imported: they read it then.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch

import edge_asd.demo
from edge_asd.demo.clips import simulate
from edge_asd.demo.show import DETECTORS, MACHINE_ID

from .graphs import curve, cut_out, export, timed
from .networks import crops_of, load_networks
from .processes import measure_processes
from .quality import REPORT_RATE, held_out_window, measure_quality
from .scale import FULL, QUICK
from .search import measure_steps
from .table import Table
from .timing import cores
from .windows import measure_windows


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 where something must be reached and is not, if ``--strict``."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it runs: the figures mean nothing")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if something that must be reached is not")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), metavar="FILE")
    parser.add_argument("--networks", type=Path, metavar="FILE", help="weights of the demo's AnoGAN (.npz, .pt)")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    begun = time.monotonic()
    torch.set_num_threads(1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    table = Table(judged=not scale.quick)
    with cores(1), tempfile.TemporaryDirectory() as folder:
        detector = Path(edge_asd.demo.__file__).parent / DETECTORS[1]
        window = held_out_window(0)
        networks = load_networks(detector, window, options.networks)
        say("exporting the search, with the default's and with the report's rate")
        steps = networks.settings.search_steps
        ours = cut_out(detector) if scale.quick else export(networks.search(), steps)
        theirs = ours if scale.quick else export(networks.search(learning_rate=REPORT_RATE), scale.deep_steps)
        query = torch.from_numpy(crops_of(detector, window, 0)[0])
        measure_steps(table, networks, timed(ours), query, scale)
        say("fitting a statistics detector, timing windows")
        measure_windows(table, simulate(MACHINE_ID, 10, seed=1), networks.name, Path(folder), scale)
        say("searching held-out windows, on all cores")
        latent = networks.settings.latent
        measure_quality(table, networks, detector, curve(ours, latent), curve(theirs, latent), scale)
        say("running commands and daemons")
        measure_processes(table, networks.name, Path(folder), scale)
    table.write(options.out, seconds=time.monotonic() - begun)
    for row in table.missed:
        print(f"NOT REACHED  {row.what}, {row.net}: {row.value:.4g} {row.unit}, {row.limit.split(':')[0]}")
    print(f"\n{options.out}, {time.monotonic() - begun:.0f} s")
    return 1 if options.strict and table.missed else 0


def say(what: str) -> None:
    """Progress, which is not part of the table."""
    print(f"... {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
