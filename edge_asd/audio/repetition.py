"""Finds sound that a driver gives twice: exact repetition, which no microphone gives.

Cheap enough to listen all the time: hashes of short words are looked up in a table, and only what seems equal is
compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_asd.logmel import Float32Array

STUCK_RUN_SECONDS = 0.01
"""Chosen: the shortest block that sound systems commonly use, repeated once."""
STUCK_RUN_MIN_SAMPLES = 160
"""Chosen, for rates below 16 kHz. In 10 s of 222 real recordings no more than 7 samples in a row ever came again."""
STUCK_MIN_LAG_SECONDS = 0.001
STUCK_MAX_LAG_SECONDS = 1.0
STUCK_MIN_VALUES, STUCK_MIN_CHANGES = 16, 40
"""Chosen: a repeated run has to have so many different values and so many changes of value. Less repeats by chance in
quiet sound, which is a few steps of the converter. Measured: noise of 0.15 steps is enough to tell a tone of 5 to
100 steps from a stuck driver; microphones are expected to have 0.3 and more."""
_LAGS_VERIFIED = 8
"""Of one chunk. Chance leaves none or one; sound that is periodic all through has many, and the first will do."""
_FACTOR = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio, odd: the usual multiplier of multiplicative hashing (Knuth, TAOCP 3, 6.4)."""


class Repetitions:
    """Finds where a chunk repeats, sample by sample, what came 1 ms to 1 s (at most 1.1 s) before.

    Words of half a run are hashed at every position (a polynomial modulo 2**64 by cumulative sums) and compared with
    those that began at the grid of half runs during the last second. A run that repeats holds one of these, whatever
    its lag. What looks equal is then compared exactly.
    """

    def __init__(self, sample_rate: int, chunk: int) -> None:
        self._chunk = chunk
        self._run = max(STUCK_RUN_MIN_SAMPLES, int(STUCK_RUN_SECONDS * sample_rate))
        self._word = self._run // 2
        self._min_lag = max(1, int(STUCK_MIN_LAG_SECONDS * sample_rate))
        self._max_lag = int(STUCK_MAX_LAG_SECONDS * sample_rate)
        self.history = self._max_lag + chunk + 2 * self._run
        inverse = pow(_FACTOR, -1, 2**64)
        span = chunk + 2 * self._word
        self._powers = np.cumprod(np.array([1] + [_FACTOR] * span, np.uint64))
        self._inverses = np.cumprod(np.array([1] + [inverse] * span, np.uint64))
        self._sources = np.zeros(0, np.int64)
        self._source_words = np.zeros(0, np.uint64)
        self._next_source = 0
        self._table = np.zeros(2**16, np.bool_)

    def search(self, samples: Float32Array, known: int, start: int) -> tuple[int, int]:
        """Samples of the chunk in its longest repeated run, and the lag; 0, 0 where there is none.

        Args:
            samples: history and chunk, shape ``[sample]``.
            known: how much of the history is usable; 0 begins anew.
            start: position of the chunk's first sample.
        """
        if not known:
            self._sources, self._source_words, self._next_source = self._sources[:0], self._source_words[:0], start
        # The words that a run may hold which reaches its full length within this chunk.
        reach = min(known, 2 * self._word)
        words = self._hash(samples[self.history - reach :])
        self._add_sources(samples[self.history - reach :], words, start - reach)
        lags = self._lags(words, start - reach)
        for lag in lags:
            first = self.history - min(self._run - 1, known - lag)
            if first < samples.size and (found := self._verify(samples, first, lag)):
                return found, lag
        return 0, 0

    def _hash(self, samples: Float32Array) -> NDArray[np.uint64]:
        """Hash of the word that begins at each sample, shape ``[sample - word + 1]``."""
        sums = np.zeros(samples.size + 1, np.uint64)
        np.cumsum(samples.view(np.uint32) * self._powers[: samples.size], out=sums[1:])
        words: NDArray[np.uint64] = sums[self._word :] - sums[: -self._word]
        words *= self._inverses[: words.size]
        return words

    def _add_sources(self, samples: Float32Array, words: NDArray[np.uint64], begin: int) -> None:
        """Takes up the words that begin at the grid, and forgets those out of reach."""
        new = np.arange(self._next_source, begin + words.size, self._word)
        self._next_source += new.size * self._word
        changes = np.concatenate([[0], np.cumsum(samples[1:] != samples[:-1])])
        at = new - begin
        # A word with few changes of value comes again by chance: it would only cost time.
        at = at[4 * (changes[at + self._word - 1] - changes[at]) >= STUCK_MIN_CHANGES]
        usable = self._sources >= begin - self._max_lag
        self._sources = np.concatenate([self._sources[usable], at + begin])
        self._source_words = np.concatenate([self._source_words[usable], words[at]])

    def _lags(self, words: NDArray[np.uint64], begin: int) -> list[int]:
        """Lags at which a word seems to be the same as a source, the most frequent first."""
        if not self._sources.size:
            return []
        # The upper 16 bits sort out nearly all; the lower are poor, as 16-bit sound leaves its low float bits zero.
        keys = (self._source_words >> np.uint64(48)).astype(np.intp)
        self._table[keys] = True
        at = np.flatnonzero(self._table[(words >> np.uint64(48)).astype(np.intp)])
        self._table[keys] = False
        order = np.argsort(self._source_words, kind="stable")
        ordered = self._source_words[order]
        # Of equal sources the oldest: the word itself may be one of them.
        match = np.minimum(np.searchsorted(ordered, words[at]), ordered.size - 1)
        lags = (at + begin - self._sources[order][match])[ordered[match] == words[at]]
        lags, counts = np.unique(lags[lags >= self._min_lag], return_counts=True)
        return [int(lag) for lag in lags[np.argsort(-counts, kind="stable")][:_LAGS_VERIFIED]]

    def _verify(self, samples: Float32Array, first: int, lag: int) -> int:
        """Samples of the chunk in the longest run from ``first`` on that repeats and is not poor; 0: none."""
        is_equal = np.concatenate([[False], samples[first:] == samples[first - lag : -lag], [False]])
        bounds = np.flatnonzero(is_equal[1:] != is_equal[:-1])
        begins, ends = bounds[::2], bounds[1::2]
        longest = int(np.argmax(ends - begins)) if begins.size else 0
        if not begins.size or ends[longest] - begins[longest] < self._run:
            return 0
        run = samples[first + begins[longest] : first + ends[longest]]
        if np.count_nonzero(run[1:] != run[:-1]) < STUCK_MIN_CHANGES or np.unique(run).size < STUCK_MIN_VALUES:
            return 0
        return min(run.size, int(first + ends[longest]) - self.history)
