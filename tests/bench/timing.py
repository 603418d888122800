"""Timing on a machine that others use too: works take turns, and what is compared was measured in the same round."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True)
class Timings:
    """What some works took in every round, seconds."""

    wall: Mapping[str, list[float]]
    """By the clock on the wall: others on the machine count."""
    processor: Mapping[str, list[float]]
    """By the processor's: what all threads of this process used."""

    def milliseconds(self, name: str) -> float:
        """Median processor time of a work."""
        return 1e3 * statistics.median(self.processor[name])

    def wall_milliseconds(self, name: str) -> float:
        """Median wall time of a work."""
        return 1e3 * statistics.median(self.wall[name])

    def ratio(self, slower: str, faster: str) -> float:
        """How many times as long one takes as the other: median over the rounds, of processor time."""
        pairs = zip(self.processor[slower], self.processor[faster], strict=True)
        return statistics.median(a / b for a, b in pairs)


def interleaved(works: Mapping[str, Work], rounds: int) -> Timings:
    """Time works in turns, after one turn that does not count.

    A neighbour on the machine slows some rounds down, but then both sides of a ratio.
    """
    wall: dict[str, list[float]] = {name: [] for name in works}
    processor: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            begun, used = time.perf_counter(), time.process_time()
            work()
            processor[name].append(time.process_time() - used)
            wall[name].append(time.perf_counter() - begun)
    return Timings(wall, processor)


@contextlib.contextmanager
def cores(count: int) -> Iterator[None]:
    """Run this thread, and those that it starts, on so many cores, at most as many as the process may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(ALL_CORES)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


ALL_CORES = frozenset(os.sched_getaffinity(0))
"""What the process may use."""
