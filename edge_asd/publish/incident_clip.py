"""The sound of an incident: what is remembered of a machine until one is raised, and the FLAC that is made of it."""

from __future__ import annotations

import io
from collections import deque
from datetime import datetime, timedelta

import soundfile

from edge_asd.audio.ring import Clip, SoundRing
from edge_asd.audio.windows import Window
from edge_asd.pipeline import Pipeline, Reading

_MOST_SECONDS = 120.0
_MOST_BYTES = 64_000_000
"""Of all machines' sound in memory: a minute of each of 33 machines, 20 s of each of 100."""


class HeardLately:
    """What is remembered of one machine until something happens."""

    def __init__(self, pipeline: Pipeline, before_seconds: float, machines: int) -> None:
        """
        Args:
            pipeline: the machine's.
            before_seconds: wanted of what came before the first window that counted.
            machines: that share the memory for this: the more, the less is remembered of each, a window at least.
        """
        window_seconds = pipeline.window / pipeline.sample_rate
        wanted = before_seconds + (pipeline.rule.raise_window - 1) * pipeline.hop_seconds + window_seconds
        share = _MOST_BYTES / machines / 2 / pipeline.sample_rate
        self.ring = SoundRing(max(window_seconds, min(wanted, share, _MOST_SECONDS)), pipeline.sample_rate)
        self._before = round(before_seconds * pipeline.sample_rate)
        self._pipeline = pipeline
        self._votes: deque[tuple[int, bool]] = deque()
        """Of the windows that were scored: start, and whether anomalous."""

    def hear(self, window: Window, reading: Reading) -> None:
        """Remember the next window."""
        self.ring.hear(window)
        if reading.rarity is not None:
            self._votes.append((reading.start, reading.is_anomalous))
            while len(self._votes) > self._pipeline.rule.raise_window:  # which a reload may change
                self._votes.popleft()
        if reading.event is not None and reading.event.event == "cleared":
            self._votes.clear()

    def clip(self, reading: Reading) -> Clip | None:
        """The windows that raised an incident, the last of them ``reading``'s, and what came before."""
        first = min((start for start, is_anomalous in self._votes if is_anomalous), default=reading.start)
        longest = round(self.ring.seconds * reading.sample_rate)
        return self.ring.clip(max(first - self._before, reading.end - longest), reading.end)


def encode(clip: Clip, sample_rate: int, machine: str, incident: str, end: datetime) -> bytes:
    """A 16-bit FLAC whose comment says what it is, when it begins, and where nothing was heard.

    In memory: soundfile answers a disk that is full half-way with an assertion.

    Args:
        clip: of the machine's stream.
        sample_rate: Hz.
        machine: its name.
        incident: UUID.
        end: of the clip, UTC.
    """
    begin = end - timedelta(seconds=clip.samples.size / sample_rate)
    comment = f"incident {incident}; begins {begin.isoformat(timespec='milliseconds')}"
    if clip.gaps:
        gaps = ", ".join(f"{a / sample_rate:.3f} to {b / sample_rate:.3f} s" for a, b in clip.gaps)
        comment += f"; not heard, and silent here: {gaps}"
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", sample_rate, 1, "PCM_16", format="FLAC") as file:
        file.title, file.comment = machine, comment
        file.write(clip.samples)
    return content.getvalue()
