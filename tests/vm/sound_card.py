"""Sound cards of the module snd-aloop, which can be unplugged: what is played into one is what it hears."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_asd.audio.ledger import Stretch

DRIVER = Path("/sys/bus/platform/drivers/snd_aloop")
NAME = "Loopback: PCM (hw:9,1)"
"""What PortAudio calls the microphone of each, but for the card's number."""
COUNTS = 2**20
"""A counter's values are 1/COUNTS to 1: exact as 32-bit floats, and never 0, which is what an idle card gives."""
_PLAYER_SECONDS = 1.0
"""From plugging in until the sound is there."""
_RELEASE_SECONDS = 10.0


class SoundCard:
    """One of the two."""

    def __init__(self, number: int) -> None:
        self.port = f"snd_aloop.{number}"
        self.id = ("RigA", "RigB")[number]
        """By which aplay finds it; PortAudio does not tell it."""
        self._player: subprocess.Popen[bytes] | None = None
        self._unplugging: subprocess.Popen[bytes] | None = None

    @property
    def number(self) -> int:
        """ALSA's: the first that is free when it is plugged in."""
        (card,) = (DRIVER / self.port / "sound").glob("card*")
        return int(card.name.removeprefix("card"))

    def plug(self, sound: Path, rate: int) -> None:
        """Plug it in; it hears ``sound``, samples as 32-bit floats, again and again.

        The first to open a card decides on format and rate; PortAudio takes 32-bit floats where it can. So whoever
        comes first, both are content.
        """
        self.wait_until_gone()
        self._end_player()
        (DRIVER / "bind").write_text(self.port)
        # Again, since a PortAudio that looks at what there is can be in the way.
        play = f"while cat {sound}; do :; done | {self._alsa('aplay', 0, rate)} -B 500000"
        self._player = subprocess.Popen(
            ["bash", "-c", f"while [ -e {DRIVER / self.port} ]; do {play}; sleep 0.2; done"],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )

    def record(self, rate: int) -> subprocess.Popen[bytes]:
        """Hold its microphone with another program."""
        return subprocess.Popen([*self._alsa("arecord", 1, rate).split(), "/dev/null"])

    def unplug(self) -> None:
        """Take it away. The kernel waits until all programs have let go of it; this does not."""
        self._unplugging = subprocess.Popen(["bash", "-c", f"echo {self.port} >{DRIVER}/unbind"])

    def wait_until_gone(self) -> None:
        """After `unplug`."""
        if self._unplugging is not None:
            assert self._unplugging.wait(_RELEASE_SECONDS) == 0
            self._unplugging = None

    def put_away(self) -> None:
        """As before `plug`; nobody must listen to it."""
        self.wait_until_gone()
        self._end_player()
        if (DRIVER / self.port).exists():
            self.unplug()
            self.wait_until_gone()

    def _alsa(self, program: str, device: int, rate: int) -> str:
        return f"{program} -q -t raw -f FLOAT_LE -c 1 -r {rate} -D hw:{self.id},{device}"

    def _end_player(self) -> None:
        player, self._player = self._player, None
        if player is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(player.pid, signal.SIGKILL)
            player.wait()


def load_driver() -> tuple[SoundCard, SoundCard]:
    """Two cards that are not plugged in."""
    subprocess.run(["modprobe", "snd-aloop", "enable=1,1", "id=RigA,RigB", "pcm_substreams=1,1"], check=True)
    cards = SoundCard(0), SoundCard(1)
    for card in cards:
        card.put_away()
    return cards


def wait_for_player() -> None:
    """Before the first opening, which must find the card as the player has set it."""
    time.sleep(_PLAYER_SECONDS)


def write_counter(path: Path, sign: int) -> Path:
    """A counter, upwards from 1 or downwards from -1: no two samples within `COUNTS` are the same."""
    (sign * np.arange(1, COUNTS, dtype=np.float32) / COUNTS).tofile(path)
    return path


def check_counter(stretches: Sequence[Stretch], sign: int) -> list[int]:
    """Every run of heard samples is what was played, bit by bit, and nothing is left out; gives the runs' lengths.

    A run may begin with the silence of the idle card, if the player came later.
    """
    runs: list[list[np.ndarray]] = []
    position, rate, is_in_run = 0, stretches[0].rate, False
    for stretch in stretches:
        position = round(position * stretch.rate / rate)
        rate = stretch.rate
        assert stretch.start == position, "a hole in the books"
        position += stretch.frames
        if stretch.samples is None:
            is_in_run = False
            continue
        assert stretch.samples.shape == (stretch.frames, 1)
        runs += [] if is_in_run else [[]]
        runs[-1].append(stretch.samples[:, 0])
        is_in_run = True
    lengths = []
    for run in runs:
        samples = np.concatenate(run) * COUNTS * sign
        assert samples.any(), "nothing but silence"
        counter = samples[np.argmax(samples != 0) :]
        expected = (np.arange(counter.size) + counter[:1].astype(np.int64) - 1) % (COUNTS - 1) + 1
        different = np.flatnonzero(counter != expected)
        assert not different.size, (
            f"sample {different[0]} of {counter.size}: {counter[different[0]]:g} for {expected[different[0]]}"
        )
        lengths.append(counter.size)
    return lengths
