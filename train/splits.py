"""Which normal windows a fit may hear, and which it is then judged and calibrated on.

Windows that sound alike because they were recorded together must not stand on both sides: clips of one recording stay
whole, and a site's own continuous recordings are cut into stretches of time, with a guard that neither side gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_asd.errors import EdgeAsdError

GUARD_SECONDS = 60.0
"""Normal sound before and after a held-out stretch that is not fitted either: disturbances last about as long."""
_MIN_FITTED = 4
"""Windows of an id that must be left to fit on."""


class SplitError(EdgeAsdError):
    """The recordings cannot be split."""


@dataclass(frozen=True)
class Split:
    """Folds of windows for out-of-fold fits."""

    fold: NDArray[np.intp]
    """Of each window, ``[window]``."""
    guarded: NDArray[np.bool_]
    """Windows so near to a fold that a fit which is judged on it must not hear them, ``[fold, window]``."""

    @property
    def count(self) -> int:
        """Folds."""
        return len(self.guarded)

    def parts(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """For each fold, masks ``[window]`` of the windows to fit on and of those held out."""
        for number, guarded in enumerate(self.guarded):
            out = self.fold == number
            yield ~out & ~guarded, out


def held_out_share(
    split: Split, index: NDArray[np.intp], share: float, fewest: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks ``[window]`` of what is fitted on and what is left out, of one fit whose clips are not all fitted on.

    Args:
        split: folds that are left out whole.
        index: of each window's machine id.
        share: of the windows, above 0.
        fewest: windows of each id that are left out at least.

    Raises:
        SplitError: then too few would be left to fit on.
    """
    for folds in range(max(1, round(share * split.count)), split.count):
        out = split.fold < folds
        fit = ~out & ~split.guarded[:folds].any(axis=0)
        left, kept = (np.bincount(index[part], minlength=int(index.max()) + 1) for part in (out, fit))
        if left.min() >= fewest:
            if kept.min() < _MIN_FITTED:
                break
            return fit, out
    raise SplitError(f"{fewest} windows of each id cannot be left out of training: record for longer")


def split_by_recording(recordings: Sequence[str], folds: int, seed: int) -> Split:
    """Recordings stay whole, each id is spread evenly over the folds.

    Args:
        recordings: ``ID/NUMBER`` of each window.
        folds: 2 or more.
        seed: of the shuffle.

    Raises:
        SplitError: an id has fewer recordings than there are folds.
    """
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    windows = Counter(recordings)
    for machine_id in sorted({r.partition("/")[0] for r in windows}):
        own = sorted(r for r in windows if r.partition("/")[0] == machine_id)
        if len(own) < folds:
            raise SplitError(
                f"{machine_id}: {len(own)} recording(s) cannot be split into {folds} folds; record more, or tell with"
                " --recording-digits how the clips' numbers name recordings"
            )
        counts = [0] * folds
        for recording in rng.permutation(own):
            fold = int(np.argmin(counts))
            fold_of[str(recording)] = fold
            counts[fold] += windows[str(recording)]
    return Split(np.array([fold_of[r] for r in recordings], np.intp), np.zeros((folds, len(recordings)), bool))


def split_by_time(
    machine_index: NDArray[np.intp], starts: NDArray[np.float64], folds: int, guard_seconds: float = GUARD_SECONDS
) -> Split:
    """Stretches of time of about the same number of windows, one for each fold and id, with a guard between.

    Args:
        machine_index: index of each window's machine id, ``[window]``.
        starts: of each window, seconds, ``[window]``.
        folds: 2 or more.
        guard_seconds: windows that start within so many seconds of a held-out one are not fitted.

    Raises:
        SplitError: the guard leaves too little to fit on.
    """
    fold = np.zeros(len(starts), np.intp)
    guarded = np.zeros((folds, len(starts)), bool)
    for machine in np.unique(machine_index):
        own = np.flatnonzero(machine_index == machine)
        own = own[np.argsort(starts[own], kind="stable")]
        if len(own) < folds:
            raise SplitError(f"{len(own)} windows cannot be cut into {folds} stretches; take fewer --folds")
        fold[own] = np.arange(len(own)) * folds // len(own)
        for number in range(folds):
            held_out = starts[own[fold[own] == number]]
            if not len(held_out):
                continue
            # Windows between the first and the last of a stretch are in it: only its two ends have neighbours.
            near = (starts[own] > held_out[0] - guard_seconds) & (starts[own] < held_out[-1] + guard_seconds)
            guarded[number, own] = near & (fold[own] != number)
            left = len(own) - len(held_out) - int(guarded[number].sum())
            if left < _MIN_FITTED:
                raise SplitError(
                    f"{len(own)} windows of 10 s, cut into {folds} stretches with a guard of {guard_seconds:g} s, leave"
                    f" {left} to fit on; record for longer"
                )
    return Split(fold, guarded)


def stretches_in_time(starts: NDArray[np.float64], hop_seconds: float) -> tuple[int, ...]:
    """Lengths of the runs of windows ``[window]`` that follow one another without a gap, in the order given."""
    if not len(starts):
        return ()
    breaks = np.flatnonzero(np.abs(np.diff(starts) - hop_seconds) > 0.05 * hop_seconds) + 1
    edges = [0, *breaks.tolist(), len(starts)]
    return tuple(int(n) for n in np.diff(edges))
