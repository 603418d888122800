"""ROC curves and score histograms, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from edge_asd.logmel import Float64Array
from edge_asd.report.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, frame, legend, path, svg, text
from edge_asd.roc import MAX_FPR

COLOURS = 8
"""Colours of the style; more curves or groups begin anew."""
_ROC_SIDE = 360.0
"""A ROC curve is square."""
_BINS = 30
_RUG_UP_TO = 60
"""Groups of no more values show every one of them."""
_LOGARITHMIC_FROM = 50.0
"""Positive values of a wider ratio get a logarithmic axis."""
_OUTLIERS = 0.02
"""Of groups' values, so many at each end may lie in the outermost bin, where the axis would else be mostly empty."""
_MOST_POINTS = 2000
"""Of a curve: finer than the page's pixels."""


@dataclass(frozen=True)
class Curve:
    """A ROC curve."""

    name: str
    false_positive: ArrayLike
    """Rates from 0 to 1, not falling, shape ``[threshold]``, as of `edge_asd.roc.roc_curve`."""
    true_positive: ArrayLike
    """Likewise."""


@dataclass(frozen=True)
class Group:
    """Values that belong together, such as the scores of normal recordings."""

    name: str
    values: ArrayLike
    """Shape ``[value]``; NaN and infinity are left out."""


def roc(curves: Sequence[Curve]) -> Markup:
    """ROC curves with the diagonal of chance and, shaded, the part that pAUC counts."""
    horizontal = Axis("normal recordings that pass (false positives)", 0.0, 1.0, LEFT, _ROC_SIDE - RIGHT, words=_share)
    vertical = Axis("anomalous ones found", 0.0, 1.0, _ROC_SIDE - BOTTOM, TOP, words=_share)
    counted = horizontal.place(MAX_FPR)
    parts = [
        Markup('<rect class="shade" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            horizontal.start, TOP, counted - horizontal.start, vertical.start - TOP
        ),
        frame(horizontal, vertical),
        text(counted + 4, TOP + 11, "pAUC", kind="note"),
        path([(horizontal.start, vertical.start), (horizontal.stop, vertical.stop)], "chance"),
    ]
    for index, curve in enumerate(curves):
        x, y = _thinned(np.asarray(curve.false_positive, np.float64), np.asarray(curve.true_positive, np.float64))
        points = [(horizontal.place(a), vertical.place(b)) for a, b in zip(x, y, strict=True)]
        parts.append(path(points, f"line colour-{index % COLOURS}"))
    names = ", ".join(curve.name for curve in curves)
    drawing = svg(parts, f"ROC curves of {names}", width=_ROC_SIDE, height=_ROC_SIDE, kind="square")
    return drawing + legend([(f"colour-{i % COLOURS}", curve.name) for i, curve in enumerate(curves)])


def histogram(
    groups: Sequence[Group],
    threshold: float | None,
    *,
    label: str = "score",
    counted: str = "recordings",
    may_be_logarithmic: bool = True,
) -> Markup:
    """Groups of values over one axis, overlaid; a rug of single values where a group has few.

    Args:
        groups: the first in the colour of normal, the second in that of anomalous.
        threshold: drawn as a line, if there is one.
        label: of the axis of values.
        counted: what there are so many of.
        may_be_logarithmic: where positive values span a wide range; not for a rarity, which is a logarithm already.
    """
    values = [_finite(group.values) for group in groups]
    together = np.concatenate([*values, np.array([] if threshold is None else [threshold])])
    if not together.size:
        return Markup('<p class="empty">No values.</p>')
    low, high, is_logarithmic = _range(together, threshold, may_be_logarithmic)
    bottom = HEIGHT - BOTTOM
    horizontal = Axis(label, low, high, LEFT, WIDTH - RIGHT, is_logarithmic)
    space = np.geomspace if is_logarithmic else np.linspace
    edges = space(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # to the bit: what lies at an end must not fall out
    counts = [np.histogram(np.clip(v, low, high), edges)[0] for v in values]
    vertical = Axis(counted, 0.0, max([1, *(int(c.max()) for c in counts)]) * 1.05, bottom, TOP, words=_whole)
    parts = [frame(horizontal, vertical)]
    for index, count in enumerate(counts):
        points = [(horizontal.place(low), bottom)]
        for left, right, height in zip(edges[:-1], edges[1:], count, strict=True):
            y = vertical.place(float(height))
            points += [(horizontal.place(float(left)), y), (horizontal.place(float(right)), y)]
        points.append((horizontal.place(high), bottom))
        parts.append(path(points, f"area {_kind(index)}", closed=True))
    for index, one in enumerate(values):
        if one.size <= _RUG_UP_TO:
            parts += [_rug(horizontal.place(float(v)), bottom - 9.0 * index, _kind(index)) for v in one]
    if threshold is not None:
        x = horizontal.place(threshold)
        parts.append(path([(x, bottom), (x, TOP)], "threshold"))
        is_left = x < (horizontal.start + horizontal.stop) / 2
        parts.append(text(x + (5 if is_left else -5), TOP + 11, "threshold", anchor="start" if is_left else "end"))
    names = ", ".join(f"{g.name} ({v.size})" for g, v in zip(groups, values, strict=True))
    drawing = svg(parts, f"Histogram of the {label} of {names}")
    entries = [(_kind(i), f"{g.name} ({v.size})") for i, (g, v) in enumerate(zip(groups, values, strict=True))]
    return drawing + legend(entries)


def _kind(index: int) -> str:
    return {0: "normal", 1: "anomalous"}.get(index, f"colour-{index % COLOURS}")


def _rug(x: float, y: float, kind: str) -> Markup:
    return Markup('<path class="rug {}" d="M{:.1f} {:.1f}v-8"/>').format(kind, x, y)


def _range(values: Float64Array, threshold: float | None, may_be_logarithmic: bool) -> tuple[float, float, bool]:
    """From, to and whether logarithmic: where nearly all values lie, not squeezed by a few far ones."""
    low, high = float(values.min()), float(values.max())
    if may_be_logarithmic and low > 0.0 and high / low > _LOGARITHMIC_FROM:
        return low / 1.1, high * 1.1, True
    inner = np.quantile(values, [_OUTLIERS, 1.0 - _OUTLIERS])
    spread = float(inner[1] - inner[0])
    if spread > 0.0:
        low, high = max(low, float(inner[0]) - spread), min(high, float(inner[1]) + spread)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    margin = 0.03 * (high - low) or max(abs(high) * 0.05, 0.5)
    return low - margin, high + margin, False


def _finite(values: ArrayLike) -> Float64Array:
    array = np.asarray(values, np.float64).ravel()
    return array[np.isfinite(array)]


def _thinned(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Without the points within a straight stretch, and no more than `_MOST_POINTS`."""
    if x.size > 2:
        keep = np.ones(x.size, np.bool_)
        keep[1:-1] = ~(((x[1:-1] == x[:-2]) & (x[1:-1] == x[2:])) | ((y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])))
        x, y = x[keep], y[keep]
    if x.size > _MOST_POINTS:
        chosen = np.unique(np.linspace(0, x.size - 1, _MOST_POINTS).astype(np.intp))
        x, y = x[chosen], y[chosen]
    return x, y


def _share(value: float) -> str:
    return f"{value:.0%}"


def _whole(value: float) -> str:
    return f"{value:.0f}" if abs(value - round(value)) < 1e-9 else ""
