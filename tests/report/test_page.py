"""Pages: complete in themselves, escaped, and written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import jinja2
import numpy as np
import pytest
from parts.html import Element, assert_complete, read_html

from edge_asd.demo.clips import simulate
from edge_asd.errors import ReportError, UsageError
from edge_asd.logmel import LogMelParameters, log_mel
from edge_asd.report.clip_figure import ClipFigure
from edge_asd.report.page import check_page_path, render, write_page

PARAMETERS = LogMelParameters()
NASTY = "<img src=x onerror=alert(1)>.wav"
OWN = jinja2.DictLoader(
    {
        "own.html": '{% extends "base.html" %}{% from "clip.html" import clip_figure %}'
        "{% block content %}<h1>{{ title }}</h1>{% for f in figures %}{{ clip_figure(f) }}{% endfor %}{% endblock %}"
    }
)


def figure(*detectors: str, seconds: float = 10.0, sound: bool = True) -> ClipFigure:
    samples = simulate("id_00", seconds, seed=3)
    mels = log_mel(samples, PARAMETERS)
    maps = {name: np.maximum(mels + 20, 0) for name in detectors}
    facts = [("rarity", "3.20"), (NASTY, NASTY)]
    return ClipFigure.of(NASTY, mels, maps, samples if sound else None, PARAMETERS, facts=facts)


def page_of(*figures: ClipFigure) -> Element:
    return read_html(render("own.html", templates=[OWN], title=NASTY, figures=figures))


def test_a_page_of_ones_own_extends_the_base() -> None:
    page = page_of(figure("cae", "anogan"), figure("cae"), figure())
    assert_complete(page)
    assert page.all("h1")[0].text == NASTY, "as text"
    assert [len(clip.all("img", "clip-overlay")) for clip in page.all("figure", "clip")] == [2, 1, 0]
    assert [len(clip.all("button")) for clip in page.all("figure", "clip")] == [2, 0, 0]
    assert [len(clip.all("input")) for clip in page.all("figure", "clip")] == [1, 1, 0]
    assert len(page.all("script")) == 1 and "prefers-color-scheme: dark" in page.all("style")[0].text


def test_only_one_overlay_shows_at_first() -> None:
    overlays = page_of(figure("a", "b", "c")).all("img", "clip-overlay")
    assert ["hidden" in overlay.attributes for overlay in overlays] == [False, True, True]


def test_names_of_files_are_text_everywhere() -> None:
    page = page_of(figure(NASTY, f"{NASTY} 2"))
    assert not [i for i in page.all("img") if i.attributes["src"] == "x"]
    assert page.all("figcaption")[0].text.strip() == NASTY
    assert page.all("dl")[0].text.count(NASTY) == 4


def test_sound_plays_on_demand_or_is_said_to_be_left_out() -> None:
    (audio,) = page_of(figure("a")).all("audio")
    assert audio.attributes["preload"] == "none" and "controls" in audio.attributes
    assert audio.attributes["src"].startswith("data:audio/flac;base64,")
    silent = page_of(figure("a", sound=False))
    assert not silent.all("audio") and "sound is left out" in silent.text


def test_the_size_of_a_figure_is_known_before() -> None:
    one, two = figure("a"), figure("a", "b")
    empty = len(render("own.html", templates=[OWN], title="", figures=[]))
    for figures in ([one], [two, one]):
        grown = len(render("own.html", templates=[OWN], title="", figures=figures)) - empty
        assert grown <= sum(f.size for f in figures) <= grown + 6000 * len(figures)


def test_frequency_ticks_lie_where_tones_are() -> None:
    ticks = {tick.words: tick.percent for tick in figure().frequency_ticks}
    assert {"500 Hz", "1 kHz", "2 kHz", "4 kHz"} <= set(ticks)
    times = np.arange(160_000) / 16_000
    for words, hz in [("500 Hz", 500), ("1 kHz", 1000), ("2 kHz", 2000), ("4 kHz", 4000)]:
        row = log_mel(np.sin(2 * np.pi * hz * times), PARAMETERS)[:, 100].argmax()
        assert ticks[words] == pytest.approx(100 * (row + 0.5) / 128, abs=0.8), words
    percents = list(ticks.values())
    assert percents == sorted(percents) and min(np.diff(percents)) >= 7


def test_time_ticks_lie_where_knocks_are() -> None:
    samples = np.zeros(160_000, np.float32)
    samples[4 * 16_000] = 1.0
    mels = log_mel(samples, PARAMETERS)
    made = ClipFigure.of("knock", mels, {}, samples, PARAMETERS)
    four = next(tick.percent for tick in made.time_ticks if tick.words == "4")
    assert four == pytest.approx(100 * (mels[50].argmax() + 0.5) / mels.shape[1], abs=0.2)


def test_a_value_that_a_template_misses_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("own.html", templates=[OWN], figures=[])


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_page(path, "n\u00e9w \udcff") == len(path.read_bytes())
    assert path.read_text() == "n\u00e9w \\udcff", "names of files need not be UTF-8"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"none.*x\.html: cannot be written: No such file"):
        write_page(tmp_path / "none" / "x.html", "x")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ReportError, match=r"folder\.html: cannot be written"):
        write_page(tmp_path / "folder.html", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.html"], "nothing is left lying about"


def test_paths_are_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "old.html").write_text("old")
    check_page_path(tmp_path / "old.html")
    check_page_path(tmp_path / "new.HTM")
    assert [p.name for p in tmp_path.iterdir()] == ["old.html"] and (tmp_path / "old.html").read_text() == "old"
    (tmp_path / "folder.html").mkdir()
    for path, words in [
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "folder.html", "is a folder"),
        (tmp_path / "none" / "x.html", "there is no folder"),
        (tmp_path / "old.html" / "x.html", "there is no folder"),
        (tmp_path / "detector.onnx", "ends in .html"),
        (Path("/dev/null"), "is not a file"),
        (Path("/proc/x.html"), "cannot be written"),
        (tmp_path / ("x" * 300 + ".html"), "cannot be written"),
        (tmp_path / "nul\0.html", "cannot be written"),
    ]:
        with pytest.raises(UsageError, match=words):
            check_page_path(path)
