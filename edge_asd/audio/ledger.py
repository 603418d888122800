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
_MOST_HELD_SECONDS = 20.0
_MOST_AHEAD_SECONDS = 2.0
"""No device can have given so much more than time has passed, if it keeps to its rate."""
_MARGIN_SECONDS = 0.25
"""Blocks of a burst are spread over so much."""
_DRIFT_SECONDS = 60.0
_MOST_DRIFT = 300e-6
"""A device's clock may differ from ours by so much (cheap USB converters: 100 ppm): followed, not counted as loss. So
are gaps of less than half a block that no driver told of, up to 18 ms a minute: nothing tells them from drift."""

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


@dataclass(frozen=True)
class _Held:
    """A block that waits for a decision."""

    block: Block
    backlog: float
    """Frames, as if nothing had been lost."""


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
        self._held: list[_Held] = []
        self._held_frames = 0
        self.is_hopeless = False
        """The device keeps to no rate that could be its own: of what it gives, nothing can be placed."""
        self._is_fresh = True
        self._calm: tuple[float, float] | None = None
        """Since when there was no gap, and the smallest backlog since then."""

    @property
    def position(self) -> int:
        """Frames accounted for."""
        return self.captured + self.lost

    def expected(self, now: float) -> int:
        """Frames that should have been delivered by now; accounted for are these, less what is still on its way."""
        return int((now - self._anchor) * self.rate)

    def time_at(self, seconds: float) -> float:
        """When the frame at so many seconds of the stream was delivered, or would have been."""
        return self._anchor + seconds

    def change_rate(self, rate: int) -> None:
        """Go on at another rate, which counts and position are converted to; between streams only."""
        self.captured = round(self.captured * rate / self.rate)
        self.lost = round(self.lost * rate / self.rate)
        self.rate = rate

    def begin_stream(self) -> None:
        """The device was opened: whatever it delivers first comes after a gap."""
        self._clear()
        self._is_fresh, self._calm, self.is_hopeless = True, None, False

    def take(self, block: Block) -> Iterator[Stretch]:
        """A block has arrived; gives what is certain now. Exhaust the iterator."""
        self._held_frames += len(block.samples)
        backlog = (block.arrived - self._anchor) * self.rate - self.position - self._held_frames
        self._held.append(_Held(block, backlog))
        is_late = backlog > self._usual + LATE_SECONDS * self.rate
        self.is_hopeless |= backlog < -_MOST_AHEAD_SECONDS * self.rate
        if not is_late and not self._is_fresh and not any(h.block.overflowed for h in self._held):
            worst = max(h.backlog for h in self._held)
            if worst > BURST_SECONDS * self.rate:
                self.disturbances.append(Disturbance("burst", worst / self.rate))
            self._follow_drift(block.arrived, backlog)
            yield from self._release()
        elif self._is_settled(OPENING_SECONDS if self._is_fresh else SETTLING_SECONDS):
            yield from self._settle()
        elif self._held_frames > _MOST_HELD_SECONDS * self.rate:
            # Gap after gap, or a device that is slower than its rate: nothing of it can be placed.
            self.is_hopeless = True
            yield from self._settle(nothing_is_certain=True)

    def lose_until(self, now: float) -> Iterator[Stretch]:
        """There is no stream: what should have come by now is lost, and what was held back. Exhaust the iterator."""
        self._clear()
        yield from self._lose(self.expected(now) - self.position)

    def end_stream(self) -> Iterator[Stretch]:
        """Nothing more comes from this stream, and it was sound to its end: decide on what is held back."""
        if self._held:
            yield from self._settle()

    def give_up(self, frames: int) -> None:
        """Frames that were passed on were thrown away after all."""
        self.captured -= frames
        self.lost += frames

    def _is_settled(self, patience: float) -> bool:
        """The smallest backlog has been the same for so long, and is that of the last block."""
        now = self._held[-1].block.arrived
        if now - self._held[0].block.arrived < patience:
            return False
        recent = [h for h in self._held if h.block.arrived > now - patience]
        older = [h.backlog for h in recent if h.block.arrived <= now - patience / 2]
        newer = [h.backlog for h in recent if h.block.arrived > now - patience / 2]
        if not older:
            return False
        floor, same = min(h.backlog for h in recent), self.rate * LATE_SECONDS / 2
        return abs(min(older) - min(newer)) <= same and recent[-1].backlog <= floor + same

    def _settle(self, *, nothing_is_certain: bool = False) -> Iterator[Stretch]:
        """The backlog is here to stay: a gap.

        Where samples are missing is only known from where on they are not: from the last point at which the backlog
        moved. What was held back before that is given up and counted with the gap.
        """
        last = self._held[-1].backlog
        first = len(self._held) if nothing_is_certain else self._first_certain(last)
        certain = self._held[first:]
        level = min((h.backlog for h in certain), default=last)
        lost = max(1, round(level)) + self._held_frames - sum(len(h.block.samples) for h in certain)
        if not self._is_fresh:
            kind: Kind = "overflow" if any(h.block.overflowed for h in self._held) else "gap"
            self.disturbances.append(Disturbance(kind, lost / self.rate))
        self._is_fresh, self._calm, self._usual = False, None, min(0.0, level)
        self._held = certain
        yield from self._lose(lost)
        yield from self._release()

    def _first_certain(self, last: float) -> int:
        """Index of the first held block that came after all that is missing; ``last`` is the backlog of the last."""
        same = self.rate * LATE_SECONDS / 2
        # Blocks with less backlog came before (another) gap, and an overflow is one before its block.
        start = 0
        for index, held in enumerate(self._held):
            if held.backlog < last - 2 * same:
                start = index + 1
            elif held.block.overflowed:
                start = max(start, index)
        # A backlog that shrinks may hold the gap anywhere, up to and a little beyond where it ends: in a burst, the
        # last blocks before a gap are as late as the gap is long.
        is_there = [h.backlog <= last + same for h in self._held[start:]]
        reached = start + is_there.index(True)
        if reached == start:
            return start
        until = self._held[reached].block.arrived + _MARGIN_SECONDS
        return next((i for i, h in enumerate(self._held) if i > reached and h.block.arrived > until), len(self._held))

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

    def _clear(self) -> None:
        self._held, self._held_frames = [], 0

    def _lose(self, frames: int) -> Iterator[Stretch]:
        if frames > 0:
            start = self.position
            self.lost += frames
            yield Stretch(start, frames, self.rate, None)

    def _release(self) -> Iterator[Stretch]:
        held = self._held
        self._clear()
        for one in held:
            start, samples = self.position, one.block.samples
            self.captured += len(samples)
            yield Stretch(start, len(samples), self.rate, samples)
