"""Axes of a plot: nice ticks, from values to places, drawn as SVG.

Everything here is text that Python makes: a page of many plots opens at once and prints well. Colours and fonts come
from the style of ``base.html``; what is written is in ``currentColor``, so light and dark pages both work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520.0, 320.0
"""Of a plot, in its own units; the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 58.0, 22.0, 12.0, 46.0
"""Margins, for the ticks' and the axes' words."""


@dataclass(frozen=True)
class Axis:
    """One axis: what it is called, what it spans, where it lies."""

    label: str
    low: float
    high: float
    start: float
    """Place of ``low``, in the plot's units."""
    stop: float
    """Place of ``high``."""
    is_logarithmic: bool = False
    words: Callable[[float], str] = field(default=lambda value: number(value))
    """Of a tick."""

    def place(self, value: float) -> float:
        """Where a value lies; values beyond the ends lie at them."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Nice values along it, about ``most``."""
        if self.is_logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first + 1) / most))
            decades = [10.0**power for power in range(first, last + 1, step)]
            if len(decades) >= 3:
                return decades
            between = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
            return [value for value in between if self.low <= value <= self.high]
        return nice_ticks(self.low, self.high, most)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two values, about ``most``."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A value in few figures, without an exponent where it can be done."""
    text = f"{value:.3g}"
    if "e" in text and 1e-4 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.6f}".rstrip("0")
    return text.replace("-", "\N{MINUS SIGN}")


def frame(horizontal: Axis, vertical: Axis) -> Markup:
    """Both axes with ticks, a faint grid and words; to be drawn first."""
    parts = [Markup('<g class="axes">')]
    for value in vertical.ticks():
        y = vertical.place(value)
        parts.append(
            Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                horizontal.start, horizontal.stop, y, y
            )
        )
        parts.append(text(horizontal.start - 6, y + 4, vertical.words(value), anchor="end"))
    for value in horizontal.ticks():
        x = horizontal.place(value)
        parts.append(
            Markup('<line class="tick" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                x, x, vertical.start, vertical.start + 4
            )
        )
        parts.append(text(x, vertical.start + 17, horizontal.words(value), anchor="middle"))
    parts.append(
        Markup('<path class="axis" d="M{:.1f} {:.1f}V{:.1f}H{:.1f}"/>').format(
            horizontal.start, vertical.stop, vertical.start, horizontal.stop
        )
    )
    middle = (horizontal.start + horizontal.stop) / 2
    parts.append(text(middle, vertical.start + 36, horizontal.label, anchor="middle"))
    y = (vertical.start + vertical.stop) / 2
    parts.append(
        Markup('<text transform="translate(14 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>').format(
            y, vertical.label
        )
    )
    parts.append(Markup("</g>"))
    return join(parts)


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> Markup:
    """Words at a place; ``kind`` is a class of the style."""
    named = Markup(' class="{}"').format(kind) if kind else Markup("")
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>').format(x, y, anchor, named, words)


def path(points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> Markup:
    """A line through points; ``kind`` is a class of the style."""
    if not points:
        return Markup("")
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="M{}{}"/>').format(kind, steps, "Z" if closed else "")


def svg(parts: Sequence[Markup], title: str, *, width: float = WIDTH, height: float = HEIGHT, kind: str = "") -> Markup:
    """The whole drawing; ``title`` is read out to those who cannot see it."""
    return Markup(
        '<svg class="plot {}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}" '
        'xmlns="http://www.w3.org/2000/svg">{}</svg>'
    ).format(kind, width, height, title, join(parts))


def join(parts: Sequence[Markup]) -> Markup:
    """Parts one after another."""
    return Markup("").join(parts)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Names beside the colours of their classes, to stand under a plot.

    Args:
        entries: (class of the style, name).
    """
    items = [Markup('<li><span class="swatch {}"></span>{}</li>').format(kind, escape(name)) for kind, name in entries]
    return Markup('<ul class="legend">{}</ul>').format(join(items))
