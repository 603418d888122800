"""Sound in a page: what was heard, in 16 bits, made louder by whole bits at most."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile

from edge_asd.demo.clips import simulate
from edge_asd.report.sound import MAX_DOUBLINGS, doublings_for, playable


def decoded(uri: str) -> tuple[np.ndarray, int]:
    assert uri.startswith("data:audio/flac;base64,")
    content = io.BytesIO(base64.b64decode(uri.split(",")[1], validate=True))
    assert soundfile.info(content).subtype == "PCM_16"
    content.seek(0)
    samples, rate = soundfile.read(content, dtype="int16")
    return samples, rate


def test_it_is_what_was_heard() -> None:
    samples = simulate("id_00", 2.0, seed=1)
    heard, rate = decoded(playable(samples, 16_000))
    assert rate == 16_000
    assert np.abs(heard / 32_767 - samples).max() <= 0.5001 / 32_767


def test_louder_costs_nothing_and_is_exact() -> None:
    samples = simulate("id_00", 2.0, seed=1)
    doublings = doublings_for([samples])
    plain, loud = playable(samples, 16_000), playable(samples, 16_000, doublings=doublings)
    assert doublings > 0 and (decoded(loud)[0] == decoded(plain)[0].astype(int) << doublings).all()
    assert len(loud) < 1.02 * len(plain)


def test_nothing_overflows() -> None:
    steep = np.array([1.0, -1.0, 3.0, -3.0, 0.6, -0.6] * 100, np.float32)
    for doublings in range(MAX_DOUBLINGS + 1):
        heard, _ = decoded(playable(steep, 16_000, doublings=doublings))
        assert ((heard > 0) == (steep > 0)).all() and np.abs(heard.astype(int)).min() > 16_000


def test_high_rates_are_brought_down() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(96_000) / 96_000).astype(np.float32) * 0.5
    heard, rate = decoded(playable(tone, 96_000))
    assert rate == 48_000 and heard.size == 48_000
    assert np.fft.rfft(heard * np.hanning(heard.size)).__abs__().argmax() == 1000


def test_one_gain_for_all_sounds_of_a_page() -> None:
    quiet, louder = np.full(10, 0.01, np.float32), np.full(10, -0.2, np.float32)
    assert doublings_for([quiet]) == MAX_DOUBLINGS
    assert doublings_for([quiet, louder]) == 2
    assert doublings_for([]) == doublings_for([np.zeros(10, np.float32)]) == 0
    assert doublings_for([np.ones(3, np.float32) * 2]) == 0
