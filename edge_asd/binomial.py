"""What share a count of windows can stand for: an exact interval, without scipy."""

from __future__ import annotations

import math

import numpy as np


def exact_interval(beyond: int, windows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share from a count, exact for windows that are independent.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika
    26, 1934. Windows of one recording are alike: for those it is too narrow.

    Args:
        beyond: 0 to ``windows``.
        windows: 1 or more.
        confidence: of both sides together.

    Raises:
        ValueError: counts that cannot be.
    """
    if not 0 <= beyond <= windows or windows < 1:
        raise ValueError(f"{beyond} of {windows} is no count")
    side = (1 - confidence) / 2
    # The chance of so many or more grows with the share: the low end is where it is just `side`. The high end is the
    # same of the windows that are not beyond.
    low = _share_where_tail_is(side, beyond, windows) if beyond else 0.0
    high = 1 - _share_where_tail_is(side, windows - beyond, windows) if beyond < windows else 1.0
    return low, high


def _share_where_tail_is(chance: float, least: int, windows: int) -> float:
    """The p at which P(Binomial(windows, p) >= least) is ``chance``, by bisection."""
    counts = np.arange(1, windows + 1)
    log_ways = np.cumsum(np.log((windows - counts + 1) / counts))[least - 1 :]
    counts = counts[least - 1 :]
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        tail = np.exp(log_ways + counts * math.log(p) + (windows - counts) * math.log1p(-p)).sum()
        low, high = (p, high) if tail < chance else (low, p)
    return (low + high) / 2
