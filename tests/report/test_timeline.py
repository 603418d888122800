"""The timeline: no peak is lost, nothing grows with the length of the sound."""

from __future__ import annotations

import itertools
import re

import pytest
from parts.html import Element, assert_complete, read_html

from edge_asd.report.timeline import Incident, Lane, Moment, Span, clock, timeline


def drawn(moments: list[Moment], seconds: float, **more: object) -> Element:
    return read_html(timeline(moments, seconds=seconds, threshold=2.0, clear_below=1.0, **more))  # type: ignore[arg-type]


def bars(page: Element, over: bool) -> list[tuple[float, float, float]]:
    """(from, to, height) of the bars."""
    found = []
    for path in page.all("path", "rarity"):
        if ("over" in path.classes) == over:
            for x, bottom, y, right in re.findall(r"M(\d+) (\d+)V([\d.]+)H(\d+)V\d+Z", path.attributes["d"]):
                found.append((float(x), float(right), float(bottom) - float(y)))
    return found


def test_one_loud_window_in_a_day_is_seen() -> None:
    day = [Moment(t, t + 1, 0.1) for t in range(86_400)]
    day[50_000] = Moment(50_000, 50_001, 8.0)
    svg = timeline(day, seconds=86_400, threshold=2.0, clear_below=1.0)
    assert len(svg) < 20_000
    ((begin, end, height),) = bars(read_html(svg), over=True)
    assert end - begin == 1 and height > 150
    low, high = bars(read_html(svg), over=False)[0], bars(read_html(svg), over=False)[-1]
    assert (begin - low[0]) / (high[1] - low[0]) == pytest.approx(50_000 / 86_400, abs=2e-3)


def test_heights_are_rarities_and_gaps_are_gaps() -> None:
    page = drawn([Moment(0, 10, 1.0), Moment(10, 20, None), Moment(20, 30, 3.0), Moment(30, 40, 0.0)], 40)
    first, third, last = bars(page, over=False)
    assert third[2] == pytest.approx(3 * first[2], abs=0.2) and last[2] == 0
    assert third[0] - first[1] == pytest.approx(first[1] - first[0], abs=1)
    assert [b[:2] for b in bars(page, over=True)] == [third[:2]]


def test_a_window_at_the_threshold_is_over_it() -> None:
    page = drawn([Moment(0, 10, 2.0), Moment(10, 20, 1.9999)], 20)
    assert len(bars(page, over=True)) == 1


def test_incidents_are_numbered_and_linked() -> None:
    page = drawn([Moment(0, 100, 3.0)], 100, incidents=[Incident(1, 20, 50, "#incident-1"), Incident(2, 60, 100, "#x")])
    first, second = page.all("a")
    assert (first.attributes["href"], second.attributes["href"]) == ("#incident-1", "#x")
    (one,), (two,) = first.all("rect", "incident"), second.all("rect", "incident")
    width = float(two.attributes["width"]) / 40
    assert float(one.attributes["width"]) == pytest.approx(30 * width, abs=0.2)
    assert float(two.attributes["x"]) - float(one.attributes["x"]) == pytest.approx(40 * width, abs=0.2)
    assert [t.text for t in page.all("text", "incident-number")] == ["1", "2"]


def test_very_many_incidents_stay_light_and_legible() -> None:
    incidents = [Incident(n, 10.0 * n, 10.0 * n + 5, f"#incident-{n}") for n in range(1, 10_000)]
    svg = timeline([Moment(0, 1e5, 3.0)], seconds=1e5, threshold=2.0, clear_below=1.0, incidents=incidents)
    assert len(svg) < 200_000
    places = [float(t.attributes["x"]) for t in read_html(svg).all("text", "incident-number")]
    assert len(places) >= 2 and min(b - a for a, b in itertools.pairwise(places)) >= 16


def test_a_lane_shows_what_matters_most() -> None:
    spans = [Span(t, t + 1, "ok", "ok") for t in range(36_000)]
    spans[7000] = Span(7000, 7001, "suspect", "suspect (clipping)")
    page = drawn([Moment(0, 36_000, 0.0)], 36_000, lanes=[Lane("signal", spans, ["suspect", "ok"])])
    (suspect,) = page.all("rect", "suspect")
    assert float(suspect.attributes["width"]) == 1
    assert len(page.all("rect", "ok")) == 2
    assert "signal: suspect (clipping)" in page.text


def test_names_cannot_break_out() -> None:
    nasty = "</svg><img src=x onerror=alert(1)>"
    lane = Lane(nasty, [Span(0, 5, "ok", nasty)], ["ok"])
    page = drawn([Moment(0, 5, 1.0)], 5, lanes=[lane], label=nasty, incidents=[Incident(1, 0, 5, '#"><b>')])
    assert not page.all("img") and not page.all("b")
    assert_complete(page)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 9.9, 59, 3601, 1e6])
def test_any_length_has_a_few_ticks(seconds: float) -> None:
    page = drawn([Moment(0, seconds, 1.0)], seconds)
    assert 1 <= len(page.all("path", "tick")) <= 14


def test_times_in_words() -> None:
    assert [clock(s) for s in (0, 7.5, 59.9, 187, 3787, 90_000)] == [
        "0:00",
        "0:07",
        "0:59",
        "3:07",
        "1:03:07",
        "25:00:00",
    ]
