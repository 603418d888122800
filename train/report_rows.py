"""What is reproduced, and what was published: rows of the report's tables, our own, and those of others beside them.

All figures are AUC and pAUC (``max_fpr`` 0.1, standardised) on the slide rail of DCASE 2020 Task 2, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .anogan_networks import PRESETS as ANOGAN_PRESETS
from .cae_network import PRESETS as CAE_PRESETS
from .dense_baseline import DenseSettings
from .standardise import NONE

Pair = tuple[float, float]
REPORT, OURS, PEER, TRIVIAL = "report", "ours", "peer", "trivial"
"""Tables."""
DENSE = "dense"
"""Kind of the row that is no detector."""


@dataclass(frozen=True)
class Published:
    """AUC and pAUC that somebody states; None where they do not."""

    per_id: dict[str, Pair] = field(default_factory=dict)
    mean: Pair | None = None
    """Over ids 00, 02, 04 and 06."""
    without_id_06: Pair | None = None
    """Over ids 00, 02 and 04."""


@dataclass(frozen=True)
class Row:
    """One line of a table, to be trained and scored."""

    key: str
    """Names its files."""
    title: str
    table: str
    """`REPORT`, `OURS` or `PEER`; `TRIVIAL` needs no training."""
    kind: str
    """``statistics``, ``cae``, ``anogan``, or `DENSE`."""
    settings: Any = None
    """Of the kind."""
    published: Published = Published()

    @property
    def preset(self) -> str:
        """For the detector's metadata."""
        return "report" if self.table == REPORT else "default"


_CAE = CAE_PRESETS["report"]
ROWS = (
    Row(
        "report-cae",
        "CAE, normalised, without skips",
        REPORT,
        "cae",
        _CAE,
        Published(without_id_06=(0.904, 0.766)),
    ),
    Row(
        "report-cae-skips",
        "CAE, normalised, with skips",
        REPORT,
        "cae",
        replace(_CAE, skip=True),
        Published(without_id_06=(0.831, 0.723)),
    ),
    Row(
        "report-cae-plain",
        "CAE, not normalised, without skips",
        REPORT,
        "cae",
        replace(_CAE, normalisation=NONE),
        Published(without_id_06=(0.742, 0.644)),
    ),
    Row(
        "report-cae-plain-skips",
        "CAE, not normalised, with skips",
        REPORT,
        "cae",
        replace(_CAE, normalisation=NONE, skip=True),
    ),
    Row(
        "report-anogan",
        "AnoGAN, lambda 0.1, latent 100, 1000 steps",
        REPORT,
        "anogan",
        ANOGAN_PRESETS["report"],
        Published(
            per_id={"id_00": (0.923, 0.685), "id_02": (0.679, 0.508), "id_04": (0.552, 0.535)},
            without_id_06=(0.718, 0.576),
        ),
    ),
    Row(
        "dcase-baseline",
        "DCASE 2020 baseline, dense autoencoder",
        PEER,
        DENSE,
        DenseSettings(),
        Published(
            per_id={
                "id_00": (0.963, 0.818),
                "id_02": (0.788, 0.629),
                "id_04": (0.946, 0.740),
                "id_06": (0.702, 0.490),
            },
            mean=(0.850, 0.669),
            without_id_06=(0.899, 0.729),
        ),
    ),
    Row("statistics", "statistics, no network", OURS, "statistics"),
    Row("cae", "CAE, default preset", OURS, "cae", CAE_PRESETS["default"]),
    Row("anogan", "AnoGAN, default preset", OURS, "anogan", ANOGAN_PRESETS["default"]),
)
"""In the order in which they are made: the report's tables first."""
GRID = tuple(
    Row(
        f"report-cae-lr{rate:g}-batch{batch}",
        f"CAE, normalised, without skips, learning rate {rate:g}, batch {batch}",
        REPORT,
        "cae",
        replace(_CAE, learning_rate=rate, batch=batch),
    )
    for rate, batch in ((1e-3, 16), (1e-3, 64), (1e-4, 32), (1e-2, 32))
)
"""Table I varies learning rate and batch size too; which values it takes is our reading."""

ANCHORS = (
    ("convolutional autoencoder, UMINHO 2020", Published(mean=(0.918, 0.762))),
    ("variational autoencoder, public re-implementation", Published(mean=(0.833, 0.661), without_id_06=(0.885, 0.719))),
    ("STgram-MFN, classifies the machine id", Published(mean=(0.995, 0.976), without_id_06=(0.994, 0.969))),
)
"""Published by others, not trained here. The last needs several machines' labels, which the others do without."""

ASSUMPTIONS = (
    (
        "machine ids trained on",
        "all of the folder in one network; the report leaves out id_06: --id leaves it out here",
    ),
    ("crops", "64 frames x 128 mels from random places; at scoring on a fixed grid that covers the window, averaged"),
    ("epoch", "as many random crops as there are clips"),
    ("CAE layers", "3 x 3, stride 2, 32, 64, 128 and 256 channels; transposed 4 x 4 on the way back; linear end"),
    ("CAE dropout", "0.2 of the channels after each convolution on the way down; no batch normalisation"),
    ("CAE optimiser", "Adam, learning rate 1e-3, constant; batches of 32; mean squared error"),
    ("normalised", "one mean and one spread of all training sound, level kept; else the log-Mel in dB as it is"),
    ("CAE score", "mean over the cells of the squared error"),
    ("validation", "a tenth of the recordings is left out of training: AnoGAN stated, CAE our reading"),
    ("AnoGAN networks", "DCGAN's for 64 x 64 at half width, spectral norm in the discriminator, linear end"),
    ("AnoGAN image", "64 frames x 64 mels: pairs of neighbouring mels averaged"),
    ("F", "the discriminator's third convolution, after its activation, 8 x 8 x 4 widths"),
    ("A(x)", "sums over cells and over features, as the equation has it; the smallest of all steps' counts"),
    ("search", "Adam on z from zeros; every crop of a window is searched and the mean taken, where one is drawn there"),
)
"""What the report leaves open, as far as it is known here, and how it was read."""


def chosen_rows(keys: list[str] | None, *, grid: bool) -> list[Row]:
    """Rows by key, in their order; all unless told.

    Raises:
        ValueError: an unknown key; the message lists those there are.
    """
    rows = [*ROWS, *(GRID if grid else ())]
    if keys is None:
        return rows
    known = {r.key: r for r in (*ROWS, *GRID)}
    for key in keys:
        if key not in known:
            raise ValueError(f"no row is called {key}; there are {', '.join(known)}")
    return [r for r in known.values() if r.key in keys]
