"""Accounts for every sample of a device: heard, or counted as lost.

A device delivers samples at the pace of its own clock. Where samples were dropped, all later ones come too late for
their number; where the computer was only busy, the backlog is caught up. So each block is held against the time that
has gone by: on time, it is passed on; late, it is kept back until either the backlog has been caught up (a burst,
nothing lost) or has stayed the same for a while (a gap, as long as the backlog).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edge_asd.logmel import Float32Array

OPENING_SECONDS = 1.5
"""A newly opened stream is trusted when its backlog has not shrunk for so long: some begin with late blocks."""
SETTLING_SECONDS = 3.0
"""A backlog that has not shrunk for so long is not caught up any more, even by a computer that is busy."""
LATE_SECONDS = 0.05
"""Backlog from which a block is late: half a block, since more jitter only means that it waits for the next one."""
BURST_SECONDS = 0.5
"""A backlog that was caught up is worth telling from here."""
_MOST_HELD_SECONDS = 10.0
_DRIFT_SECONDS = 60.0
_MOST_DRIFT = 300e-6
"""A device's clock may differ from ours by so much (cheap USB converters: 100 ppm): followed, not counted as loss."""

Kind = Literal["burst", "gap", "overflow"]


@dataclass(frozen=True)
class Block:
    """What a device delivered at once."""

    samples: Float32Array
    """Shape ``[frame, channel]``."""
    arrived: float
    """When, `edge_asd.clock.boot_time`."""
    overflowed: bool = False
    """The driver says that samples were dropped before these."""


@dataclass(frozen=True)
class Stretch:
    """A piece of a device's stream, heard or lost."""

    start: int
    """Position of its first frame: frames since the start, lost ones included."""
    frames: int
    rate: int
    """Frames a second; `start` counts in these too."""
    samples: Float32Array | None
    """Shape ``[frame, channel]``; None where they were lost."""


@dataclass(frozen=True)
class Disturbance:
    """Something that delayed or dropped samples."""

    kind: Kind
    seconds: float
    """Late by so much at most (burst), or lost so much (gap; overflow: a gap that the driver has told of)."""


@dataclass
class _Candidate:
    """A backlog that may be here to stay."""

    level: float
    """Frames."""
    first: int
    """Blocks held back before it was reached: whether they came before the gap cannot be known."""
    since: float
    seen: float
    """When a block last had about this backlog."""


class Ledger:
    """The books of one device; not for several threads."""

    def __init__(self, rate: int, began: float) -> None:
        """
        Args:
            rate: frames a second.
            began: from when on every frame is accounted for, `edge_asd.clock.boot_time`.
        """
        self.rate = rate
        self.captured = 0
        """Frames passed on."""
        self.lost = 0
        """Frames counted as lost."""
        self.disturbances: list[Disturbance] = []
        """What happened since the caller last emptied this."""
        self._anchor = began
        """When frame 0 was due; follows the drift of the device's clock."""
        self._usual = 0.0
        """Backlog of blocks that are on time, frames. Below 0 where more was counted as lost than there was: the next
        gap is shorter by that, so that the books balance again."""
        self._held: list[Block] = []
        self._is_fresh = True
        self._candidate: _Candidate | None = None
        self._worst = 0.0
        self._overflowed = False
        self._calm: tuple[float, float] | None = None
        """Since when there was no gap, and the smallest backlog since then."""

    @property
    def position(self) -> int:
        """Frames accounted for."""
        return self.captured + self.lost

    def expected(self, now: float) -> int:
        """Frames that should have been delivered by now; accounted for are these, less what is still on its way."""
        return int((now - self._anchor) * self.rate)

    def time_of(self, position: int) -> float:
        """When a frame was delivered, or would have been."""
        return self._anchor + position / self.rate

    def change_rate(self, rate: int) -> None:
        """Go on at another rate, which counts and position are converted to; between streams only."""
        self.captured = round(self.captured * rate / self.rate)
        self.lost = round(self.lost * rate / self.rate)
        self.rate = rate

    def begin_stream(self) -> None:
        """The device was opened: whatever it delivers first comes after a gap."""
        self._held.clear()
        self._is_fresh = True
        self._candidate, self._overflowed, self._worst, self._calm = None, False, 0.0, None

    def take(self, block: Block) -> Iterator[Stretch]:
        """A block has arrived; gives what is certain now. Exhaust the iterator."""
        self._held.append(block)
        self._overflowed |= block.overflowed and not self._is_fresh
        backlog = (block.arrived - self._anchor) * self.rate - self.position - self._held_frames()
        late = LATE_SECONDS * self.rate
        if backlog <= self._usual + late and not self._is_fresh and not self._overflowed:
            if self._worst > BURST_SECONDS * self.rate:
                self.disturbances.append(Disturbance("burst", self._worst / self.rate))
            self._candidate, self._worst = None, 0.0
            self._follow_drift(block.arrived, backlog)
            yield from self._release()
            return
        self._worst = max(self._worst, backlog)
        candidate = self._candidate
        patience = OPENING_SECONDS if self._is_fresh else SETTLING_SECONDS
        if candidate is None or backlog < candidate.level - late / 2:
            self._candidate = _Candidate(backlog, len(self._held) - 1, block.arrived, block.arrived)
        elif backlog <= candidate.level + late:
            candidate.level = min(candidate.level, backlog)
            candidate.seen = block.arrived
            if block.arrived - candidate.since >= patience:
                yield from self._settle(candidate)
        elif self._held_frames() > _MOST_HELD_SECONDS * self.rate:  # slower than its rate: there is no end to it
            yield from self._settle(candidate)
        elif block.arrived - candidate.seen >= patience:  # another gap, before the first had settled
            self._candidate = _Candidate(backlog, len(self._held) - 1, block.arrived, block.arrived)

    def lose_until(self, now: float) -> Iterator[Stretch]:
        """There is no stream: what should have come by now is lost, and what was held back. Exhaust the iterator."""
        self._held.clear()
        yield from self._lose(self.expected(now) - self.position)

    def end_stream(self) -> Iterator[Stretch]:
        """Nothing more comes from this stream, and it was sound to its end: decide on what is held back."""
        if self._candidate is not None:
            yield from self._settle(self._candidate)
        else:
            yield from self._release()

    def give_up(self, frames: int) -> None:
        """Frames that were passed on were thrown away after all."""
        self.captured -= frames
        self.lost += frames

    def _settle(self, candidate: _Candidate) -> Iterator[Stretch]:
        """The backlog is here to stay: a gap. After opening, everything held back came after it."""
        doubtful = [] if self._is_fresh else self._held[: candidate.first]
        self._held = self._held[len(doubtful) :]
        lost = max(1, round(candidate.level)) + sum(len(b.samples) for b in doubtful)
        if not self._is_fresh:
            kind: Kind = "overflow" if self._overflowed else "gap"
            self.disturbances.append(Disturbance(kind, lost / self.rate))
        self._is_fresh, self._overflowed, self._candidate, self._worst, self._calm = False, False, None, 0.0, None
        self._usual = min(0.0, candidate.level)
        yield from self._lose(lost)
        yield from self._release()

    def _follow_drift(self, now: float, backlog: float) -> None:
        """In calm times, let the smallest backlog be zero: the device's clock and ours are never quite the same."""
        since, smallest = self._calm or (now, backlog)
        smallest = min(smallest, backlog)
        if now - since >= _DRIFT_SECONDS:
            most = _MOST_DRIFT * (now - since)
            followed = min(max(smallest / self.rate, -most), most)
            self._anchor += followed
            self._usual = min(0.0, smallest - followed * self.rate)
            since, smallest = now, float("inf")
        self._calm = since, smallest

    def _held_frames(self) -> int:
        return sum(len(b.samples) for b in self._held)

    def _lose(self, frames: int) -> Iterator[Stretch]:
        if frames > 0:
            start = self.position
            self.lost += frames
            yield Stretch(start, frames, self.rate, None)

    def _release(self) -> Iterator[Stretch]:
        held, self._held = self._held, []
        for block in held:
            start = self.position
            self.captured += len(block.samples)
            yield Stretch(start, len(block.samples), self.rate, block.samples)
