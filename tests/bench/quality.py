"""Quality for time: the loss that a search reaches after so many steps, on normal windows that nobody trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge_asd.demo.clips import simulate
from edge_asd.demo.show import MACHINE_ID
from edge_asd.logmel import Float32Array, LogMelParameters, log_mel

from .graphs import SearchCurve
from .networks import Networks, crops_of
from .scale import Scale
from .table import Row, Table
from .timing import ALL_CORES, cores

_FIRST_SEED = 7_000_000
"""Of the held-out windows. Clips of data set number n have seeds from 3,000,000 n on; the demo's is number 1,000."""
_SHOWN = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_STUDENT = {1: 12.71, 11: 2.201}
"""97.5 % point of Student's t by its degrees of freedom."""
REPORT_RATE = 1e-3
"""Adam's step in the report, which searches 1,000 steps from a random z."""
_SHORT = 100
"""Steps that the default's searches are followed."""


def held_out_window(number: int) -> Float32Array:
    """Log-Mel of a normal window, ``[mel, frame]``."""
    return log_mel(simulate(MACHINE_ID, 10, seed=_FIRST_SEED + number), LogMelParameters())


def measure_quality(
    table: Table, networks: Networks, detector: Path, default: SearchCurve, report: SearchCurve, scale: Scale
) -> None:
    """Rows for the loss after some steps, and for the difference that must be reached.

    Args:
        table: takes them.
        networks: G, D and E of both.
        detector: makes crops of windows.
        default: the search with the default's Adam.
        report: with the report's.
        scale: how much.
    """
    rate, steps = networks.settings.search_learning_rate, networks.settings.search_steps
    deep, short = scale.deep_steps, min(_SHORT, scale.deep_steps)
    queries = [crops_of(detector, held_out_window(n), 0)[0] for n in range(scale.held_out_windows)]
    warm = networks.search()

    def losses(number: int) -> dict[str, NDArray[np.floating]]:
        query = queries[number]
        with torch.no_grad():
            encoded = warm.start(torch.from_numpy(query))[1].numpy()
        random = np.random.default_rng(number).standard_normal(encoded.shape).astype(np.float32)
        return {
            f"from the encoder, Adam {rate:g}": default(query, encoded, short).mean(axis=1),
            f"from zero, Adam {rate:g}": default(query, np.zeros_like(encoded), short).mean(axis=1),
            f"from random, Adam {rate:g}": default(query, random, short).mean(axis=1),
            f"from random, Adam {REPORT_RATE:g}": report(query, random, deep).mean(axis=1),
        }

    with cores(len(ALL_CORES)), ThreadPoolExecutor(len(ALL_CORES)) as pool:
        found = list(pool.map(losses, range(len(queries))))
    curves = {name: np.stack([of[name] for of in found]) for name in found[0]}  # [window, step]
    shown = [k for k in _SHOWN if k <= deep]
    print(f"\nLoss A(x) after so many steps: mean of {len(queries)} held-out normal windows, over all their crops")
    print("  " + f"{'steps':<28}" + "".join(f"{k:>8}" for k in shown))
    common = {"net": networks.name, "crops": len(queries[0]), "cores": len(ALL_CORES)}
    for name, of_windows in curves.items():
        mean = of_windows.mean(axis=0)
        print("  " + f"{name:<28}" + "".join(f"{mean[k]:8.1f}" for k in shown if k < len(mean)))
        for k in shown:
            if k < len(mean):
                table.add(Row(f"loss, {name}", float(mean[k]), "A(x)", **common, steps=k), show=False)
    table.section("Quality for time")
    ours, theirs = curves[f"from the encoder, Adam {rate:g}"], curves[f"from random, Adam {REPORT_RATE:g}"]
    steps = min(steps, short)
    difference = ours[:, steps] - theirs[:, deep]
    low, high = _interval(difference)
    table.add(
        Row(
            f"loss of the default less the report's after {deep}",
            float(difference.mean()),
            "A(x)",
            **common,
            steps=steps,
            at_most=0.0,
            note=f"95 % of the mean, paired: {low:.1f} to {high:.1f}",
        )
    )
    for start in ("the encoder", "zero"):
        mean = curves[f"from {start}, Adam {rate:g}"].mean(axis=0)
        reached = np.flatnonzero(mean <= theirs.mean(axis=0)[deep])
        needed = float(reached[0]) if reached.size else math.inf
        limit = deep / 20 if start == "the encoder" else None  # the default's start
        table.add(Row(f"steps from {start} to the report's loss", needed, "steps", **common, at_most=limit))


def _interval(values: Sequence[float] | NDArray[np.floating]) -> tuple[float, float]:
    """95 % of the mean, by Student."""
    mean, count = float(np.mean(values)), len(values)
    half = _STUDENT[count - 1] * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half
