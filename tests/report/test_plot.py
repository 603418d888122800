"""ROC curves and histograms: every value at its place, and names that cannot break out."""

from __future__ import annotations

import re

import numpy as np
import pytest
from parts.html import Element, assert_complete, read_html

from edge_asd.report.axes import Axis, nice_ticks, number
from edge_asd.report.plot import Curve, Group, histogram, roc
from edge_asd.roc import roc_curve

NASTY = "<script>alert('1')</script> & \"quoted\""
NORMAL, ANOMALOUS = [0.1, 0.4, 0.35, 0.8], [0.7, 0.9, 0.3, 2.0, 1.1]


def points(path: Element) -> list[tuple[float, float]]:
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.attributes["d"])]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_a_roc_curve_goes_through_its_rates() -> None:
    page = read_html(roc([Curve("one", *roc_curve(NORMAL, ANOMALOUS))]))
    (line,) = page.all("path", "line")
    drawn = points(line)
    (chance,) = page.all("path", "chance")
    (left, bottom), (right, top) = points(chance)
    rates = {((x - left) / (right - left), (bottom - y) / (bottom - top)) for x, y in drawn}
    expected = set(zip(*roc_curve(NORMAL, ANOMALOUS), strict=True))
    # All that is drawn is in the curve; what is left out lies within a straight stretch.
    assert all(any(np.allclose(r, e, atol=1e-3) for e in expected) for r in rates)
    area = np.trapezoid([y for _, y in sorted(rates)], [x for x, _ in sorted(rates)])
    wins = np.mean([[(a > n) + 0.5 * (a == n) for a in ANOMALOUS] for n in NORMAL])
    assert area == pytest.approx(wins, abs=2e-3)
    (shade,) = page.all("rect", "shade")
    assert float(shade.attributes["width"]) == pytest.approx(0.1 * (right - left), abs=0.1)


def test_a_roc_of_many_recordings_stays_light() -> None:
    rng = np.random.default_rng(0)
    curve = Curve("many", *roc_curve(rng.normal(0, 1, 50_000), rng.normal(1, 1, 50_000)))
    assert len(roc([curve])) < 60_000


def test_histograms_count_everything_once() -> None:
    page = read_html(histogram([Group("normal", NORMAL), Group("anomalous", ANOMALOUS)], 0.6))
    assert len(page.all("path", "rug")) == 9, "few values are all shown"
    left = [points(area) for area in page.all("path", "area")]
    assert len(left) == 2
    unit = _height_of_one(page)
    for drawn, values in zip(left, (NORMAL, ANOMALOUS), strict=True):
        bottom = drawn[0][1]
        assert sum((bottom - y) / unit for _, y in drawn[1:-1:2]) == pytest.approx(len(values), abs=0.1)
    assert "normal (4)" in page.text and "anomalous (5)" in page.text


def _height_of_one(page: Element) -> float:
    texts = {t.text: float(t.attributes["y"]) for t in page.all("text") if t.attributes.get("text-anchor") == "end"}
    return texts["0"] - texts["1"]


def test_the_threshold_lies_between_its_neighbours() -> None:
    page = read_html(histogram([Group("normal", [0.0, 1.0]), Group("anomalous", [2.0, 4.0])], 1.5))
    (line,) = page.all("path", "threshold")
    rugs = sorted(float(re.findall(r"[\d.]+", rug.attributes["d"])[0]) for rug in page.all("path", "rug"))
    x = points(line)[0][0]
    assert rugs[1] < x < rugs[2] and x - rugs[1] == pytest.approx(rugs[2] - x, abs=0.2)
    assert "threshold" in page.text


@pytest.mark.parametrize(
    "groups",
    [
        [Group("normal", [])],
        [],
        [Group("normal", [np.nan, np.inf])],
    ],
)
def test_nothing_to_draw(groups: list[Group]) -> None:
    assert "No values" in histogram(groups, None)


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [-5.0, 1e300, np.nan], [1e-9, 1e9], np.arange(10_000.0)])
def test_whatever_values_there_are(values: list[float]) -> None:
    page = read_html(histogram([Group("normal", values)], None) + histogram([Group("x", values)] * 10, 2.0))
    text = " ".join(path.attributes["d"] for path in page.all("path"))
    assert "nan" not in text and "inf" not in text
    assert len(page.all("svg")) == 2


def test_a_far_value_does_not_squeeze_the_others() -> None:
    many = [*np.linspace(0, 1, 200), 1000.0]
    page = read_html(histogram([Group("normal", [*many, -1.0])], None))
    (area,) = page.all("path", "area")
    assert len({y for _, y in points(area)}) >= 3
    assert sum(y < points(area)[0][1] - 1 for _, y in points(area)) > 8, "spread over several bins"


def test_names_cannot_break_out() -> None:
    plots = roc([Curve(NASTY, [0, 1], [0, 1])]) + histogram([Group(NASTY, [1.0, 2.0])], 1.0, label=NASTY, counted=NASTY)
    page = read_html(plots)
    assert not page.all("script") and NASTY in page.text
    assert NASTY in page.all("svg")[0].attributes["aria-label"]
    assert_complete(page)


def test_ticks_are_nice() -> None:
    assert nice_ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(-7, 123, 6) == [0, 50, 100]
    assert nice_ticks(2, 2) == [2]
    axis = Axis("x", 0.01, 1000, 0, 100, is_logarithmic=True)
    assert axis.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])
    assert axis.place(0.01) == 0 and axis.place(1000) == 100 and axis.place(10) == pytest.approx(60)
    assert axis.place(1e9) == 100
    assert [number(v) for v in (0, 0.25, 1500, 123456, -2.5)] == ["0", "0.25", "1,500", "123,456", "\u22122.5"]
