"""What is new around: cards that come and go, inputs that are held and let go, sources of a sound server."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_asd.audio import surroundings
from edge_asd.audio.surroundings import Surroundings


@pytest.fixture(autouse=True)
def no_sound_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/nobody")


def plug(proc: Path, *cards: int, held: bool = False) -> None:
    (proc / "asound").mkdir(exist_ok=True)
    (proc / "asound" / "cards").write_text("".join(f" {n} [Card{n}]\n" for n in cards))
    for n in cards:
        status = proc / "asound" / f"card{n}" / "pcm0c" / "sub0" / "status"
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text("state: RUNNING\nhw_ptr: 7\n" if held else "closed\n")


def test_cards_and_who_holds_them(tmp_path: Path) -> None:
    around = Surroundings(tmp_path)
    assert around.have_changed(), "nothing was seen before"
    assert not around.have_changed()
    for change in ({"cards": (1,)}, {"cards": (1, 2)}, {"cards": (1, 2), "held": True}, {"cards": (2,)}):
        plug(tmp_path, *change["cards"], held=bool(change.get("held")))
        assert around.have_changed(), change
        assert not around.have_changed(), change


def test_a_position_that_moves_on_is_nothing_new(tmp_path: Path) -> None:
    plug(tmp_path, 1, held=True)
    around = Surroundings(tmp_path)
    assert around.have_changed()
    (tmp_path / "asound" / "card1" / "pcm0c" / "sub0" / "status").write_text("state: RUNNING\nhw_ptr: 4807\n")
    assert not around.have_changed()


def test_now_and_then_it_is_looked_anyway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    around = Surroundings(tmp_path)
    assert around.have_changed() and not around.have_changed()
    monkeypatch.setattr(surroundings, "_ANYWAY_SECONDS", 0.0)
    assert around.have_changed()
