"""What was heard over time, as SVG: rarity against its threshold, alarms, and lanes such as condition and signal.

However long the sound, the drawing has one value for each of its columns: the highest that falls into it, so that no
peak is lost, and the page stays light.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edge_asd.logmel import Float64Array
from edge_asd.report.axes import Axis, frame, legend, number, path, svg, text

WIDTH = 1000.0
_LEFT, _RIGHT, _TOP = 76.0, 24.0, 22.0
_PLOT_HEIGHT = 170.0
_LANE_HEIGHT, _LANE_GAP = 13.0, 7.0
_COLUMNS = int(WIDTH - _LEFT - _RIGHT)
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between ticks that people count in."""
_LEAST_RARITY = 2.5
"""The rarity axis reaches as far at least: a quiet machine shall look quiet."""
_DIGIT_WIDTH = 8.0
"""Of an incident's number."""
_MOST_INCIDENTS = 400
"""Beyond that they are drawn in the lanes only."""
_MOST_BOUNDARIES = 120


@dataclass(frozen=True)
class Moment:
    """What one window says, and the stretch of time that it stands for."""

    begin: float
    """Seconds."""
    end: float
    rarity: float | None
    """None where the window was not scored."""


@dataclass(frozen=True)
class Span:
    """A stretch of time in one state."""

    begin: float
    """Seconds."""
    end: float
    state: str
    """A class of the style."""
    words: str
    """What it means."""


@dataclass(frozen=True)
class Lane:
    """A strip under the plot."""

    name: str
    spans: Sequence[Span]
    order: Sequence[str]
    """States, the one to be seen first: of several in one column it shows the first."""


@dataclass(frozen=True)
class Incident:
    """An alarm from raised to cleared."""

    number: int
    begin: float
    """Seconds."""
    end: float
    link: str
    """Of the place where the page tells about it, such as ``#incident-1``."""


@dataclass(frozen=True)
class _TimeAxis(Axis):
    def ticks(self, most: int = 12) -> list[float]:
        raw = (self.high - self.low) / most
        day = _TIME_STEPS[-1]
        step = next((s for s in _TIME_STEPS if s >= raw), math.ceil(raw / day) * day)
        return [float(t) for t in range(0, int(self.high - self.low) + 1, step)]


def timeline(
    moments: Sequence[Moment],
    *,
    seconds: float,
    threshold: float,
    clear_below: float,
    incidents: Sequence[Incident] = (),
    lanes: Sequence[Lane] = (),
    boundaries: Sequence[float] = (),
    label: str = "time",
) -> Markup:
    """Rarity over time, with what the alarm made of it.

    Args:
        moments: in order of time.
        seconds: length of the axis.
        threshold, clear_below: rarities from which a window is anomalous, and below which it counts towards clearing.
        incidents: shaded, numbered and linked.
        lanes: strips below the plot.
        boundaries: where one recording ends and the next begins, seconds; drawn unless there are too many.
        label: of the axis of time.
    """
    highest = max([_LEAST_RARITY, threshold * 1.3, *(m.rarity for m in moments if m.rarity is not None)])
    bottom = _TOP + _PLOT_HEIGHT
    lanes_bottom = bottom + len(lanes) * (_LANE_HEIGHT + _LANE_GAP)
    seconds = max(seconds, 1e-3)
    time = _TimeAxis("", 0.0, seconds, _LEFT, WIDTH - _RIGHT, words=_clock(seconds))
    rarity = Axis("rarity", 0.0, highest * 1.04, bottom, _TOP)
    parts = [_incidents(incidents, time, bottom)]
    # The axis of time is drawn below the lanes, the grid of rarity behind the plot.
    parts.append(_rarity_grid(rarity))
    columns = _highest_by_column(moments, seconds)
    parts.append(_bars(columns, rarity, _LEFT, "rarity", columns == columns))
    parts.append(_bars(columns, rarity, _LEFT, "rarity over", columns >= threshold))
    for value, kind in ((clear_below, "clear-below"), (threshold, "threshold")):
        parts.append(path([(_LEFT, rarity.place(value)), (WIDTH - _RIGHT, rarity.place(value))], kind))
    if len(boundaries) <= _MOST_BOUNDARIES:
        parts += [path([(time.place(b), bottom), (time.place(b), bottom - 5)], "boundary") for b in boundaries]
    shown: dict[str, str] = {}
    for index, lane in enumerate(lanes):
        top = bottom + _LANE_GAP + index * (_LANE_HEIGHT + _LANE_GAP)
        parts.append(text(_LEFT - 8, top + _LANE_HEIGHT - 2, lane.name, anchor="end"))
        parts.append(_strip(lane, time, seconds, top))
        shown |= {f"lane {span.state}": f"{lane.name}: {span.words}" for span in lane.spans}
    parts.append(_time_axis(time, lanes_bottom + 4, label))
    raised = f"{len(incidents)} incident{'' if len(incidents) == 1 else 's'}"
    title = f"Rarity over {_clock(seconds)(seconds)}, threshold {threshold:.2f}, {raised}"
    drawing = svg(parts, title, width=WIDTH, height=lanes_bottom + 50, kind="wide")
    entries = [("rarity", "rarity"), ("rarity over", "at or over the threshold")]
    entries += [("dashes", f"threshold {threshold:.2f}"), ("dots", f"clears below {clear_below:.2f}")]
    entries += [("incident", "alarm raised")] if incidents else []
    return Markup('<div class="scroll">{}</div>').format(drawing) + legend(entries + list(shown.items()))


def clock(seconds: float) -> str:
    """A time of a recording for people, such as ``3:07`` or ``1:03:07``."""
    return _clock(max(seconds, 60.0))(seconds)


def _clock(longest: float) -> Callable[[float], str]:
    if longest < 60.0:
        return lambda value: f"{number(value)} s"

    def words(value: float) -> str:
        whole = int(value + 1e-6)
        hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours or longest >= 3600.0 else f"{minutes}:{rest:02d}"

    return words


def _highest_by_column(moments: Sequence[Moment], seconds: float) -> Float64Array:
    """The highest rarity in each column, shape ``[column]``; NaN where nothing was scored."""
    columns = np.full(_COLUMNS, np.nan)
    for moment in moments:
        if moment.rarity is not None:
            within = _columns(moment.begin, moment.end, seconds)
            columns[within] = np.fmax(columns[within], moment.rarity)
    return columns


def _columns(begin: float, end: float, seconds: float) -> slice:
    """Columns that a stretch covers, one at least."""
    first = min(_COLUMNS - 1, max(0, int(begin / seconds * _COLUMNS + 1e-6)))
    return slice(first, max(first + 1, min(_COLUMNS, int(end / seconds * _COLUMNS + 1e-6))))


def _bars(columns: Float64Array, rarity: Axis, left: float, kind: str, is_shown: NDArray[np.bool_]) -> Markup:
    """Columns as one path; neighbours of the same height are one bar."""
    steps = []
    heights = np.where(is_shown, columns, np.nan)
    for first, last in _runs(heights):
        if not math.isnan(heights[first]):
            y = rarity.place(float(heights[first]))
            steps.append(f"M{left + first:.0f} {rarity.start:.0f}V{y:.1f}H{left + last:.0f}V{rarity.start:.0f}Z")
    return Markup('<path class="{}" d="{}"/>').format(kind, "".join(steps)) if steps else Markup("")


def _runs(values: Float64Array) -> list[tuple[int, int]]:
    """Stretches ``[from, to)`` of equal values; NaN equals NaN."""
    changes = np.flatnonzero((values[1:] != values[:-1]) & ~(np.isnan(values[1:]) & np.isnan(values[:-1]))) + 1
    borders = [0, *changes.tolist(), values.size]
    return list(itertools.pairwise(borders))


def _incidents(incidents: Sequence[Incident], time: Axis, bottom: float) -> Markup:
    parts = []
    free = -math.inf
    for incident in incidents[:_MOST_INCIDENTS]:
        x, right = time.place(incident.begin), time.place(incident.end)
        label = Markup("")
        if x >= free:
            label = text(x + 2, _TOP - 7, str(incident.number), kind="incident-number")
            free = x + _DIGIT_WIDTH * (len(str(incident.number)) + 1)
        parts.append(
            Markup(
                '<a href="{}"><title>incident {}</title><rect class="incident" x="{:.1f}" y="{:.0f}" width="{:.1f}" '
                'height="{:.0f}"/><path class="raised" d="M{:.1f} {:.0f}V{:.0f}"/>{}</a>'
            ).format(
                incident.link, incident.number, x, _TOP, max(1.0, right - x), bottom - _TOP, x, _TOP - 4, bottom, label
            )
        )
    return Markup("").join(parts)


def _strip(lane: Lane, time: Axis, seconds: float, top: float) -> Markup:
    """One lane, column by column the state that is to be seen first."""
    order = {state: place for place, state in enumerate(lane.order)}
    nothing = len(order)
    columns = np.full(_COLUMNS, float(nothing))
    words = {}
    for span in lane.spans:
        within = _columns(span.begin, span.end, seconds)
        columns[within] = np.minimum(columns[within], order[span.state])
        words[span.state] = span.words
    parts = []
    for first, last in _runs(columns):
        if columns[first] < nothing:
            state = lane.order[int(columns[first])]
            parts.append(
                Markup('<rect class="lane {}" x="{:.0f}" y="{:.0f}" width="{:.0f}" height="{:.0f}"/>').format(
                    state, time.start + first, top, last - first, _LANE_HEIGHT
                )
            )
    return Markup("").join(parts)


def _rarity_grid(rarity: Axis) -> Markup:
    horizontal = _TimeAxis("", 0.0, 1.0, _LEFT, WIDTH - _RIGHT, words=lambda _: "")
    return frame(horizontal, rarity)


def _time_axis(time: Axis, y: float, label: str) -> Markup:
    parts = []
    for value in time.ticks():
        x = time.place(value)
        parts.append(path([(x, y), (x, y + 4)], "tick"))
        parts.append(text(x, y + 17, time.words(value), anchor="middle"))
    parts.append(text((time.start + time.stop) / 2, y + 36, label, anchor="middle"))
    return Markup('<g class="axes">{}</g>').format(Markup("").join(parts))
