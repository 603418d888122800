"""Plays recordings as a microphone would give them: joined in order of their names, at the pace of a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_asd.audio.recording import read_blocks
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array


class RecordingPlayer:
    """A stream of samples from recordings; `take` gives what has become due."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        sample_rate: int,
        channel: int = 1,
        repeat: bool = False,
        on_failure: Callable[[RecordingError], None],
    ) -> None:
        """
        Args:
            paths: in the order of playing.
            sample_rate: Hz to resample to.
            channel: from 1.
            repeat: begin again after the last, if a round lasts a second at least.
            on_failure: told once of a recording that cannot be read; the next one follows it.
        """
        self._paths, self._repeat, self._on_failure = list(paths), repeat, on_failure
        self._sample_rate, self._channel = sample_rate, channel
        self._blocks = self._stream()
        self._held: Float32Array = np.zeros(0, np.float32)
        self.given = 0
        """Samples given so far."""
        self.has_ended = False
        """Everything was given."""

    def take(self, position: int) -> Float32Array:
        """Samples from ``given`` up to a position of the stream, fewer at its end, shape ``[sample]``."""
        wanted = position - self.given
        parts, there = [self._held], self._held.size
        while there < wanted and not self.has_ended:
            block = next(self._blocks, None)
            if block is None:
                self.has_ended = True
            else:
                parts.append(block)
                there += block.size
        joined = np.concatenate(parts)
        samples, self._held = joined[: max(wanted, 0)], joined[max(wanted, 0) :]
        self.given += samples.size
        return samples

    def _stream(self) -> Iterator[Float32Array]:
        complained: set[Path] = set()
        while True:
            played = 0
            for path in self._paths:
                try:
                    for block in read_blocks(path, sample_rate=self._sample_rate, channel=self._channel):
                        played += block.size
                        yield block
                except RecordingError as error:
                    if path not in complained:
                        complained.add(path)
                        self._on_failure(error)
            # A round of next to nothing would be over again at once.
            if not self._repeat or played < self._sample_rate:
                return
