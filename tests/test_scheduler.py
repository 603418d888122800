"""The scheduler, with real threads: order, turns, the oldest given up, nothing twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from edge_asd.scheduler import MAX_WAITING, Scheduler


class Bench:
    """A scheduler whose items are worked on for as long as a gate is shut."""

    def __init__(self, keys: list[str], workers: int) -> None:
        self.begun: list[tuple[str, int]] = []
        self.done: list[tuple[str, int]] = []
        self.given_up: list[tuple[str, int]] = []
        self.given_up_on: set[int] = set()
        self.heard: list[int] = []
        """Items in the order in which something came of them."""
        self.gate = threading.Event()
        self.at_once: Counter[str] = Counter()
        self.most_at_once = 0
        self.overlaps = 0
        self._lock = threading.Lock()
        self.scheduler: Scheduler[str, int] = Scheduler(keys, workers, self._do, self._give_up)

    def _do(self, key: str, item: int) -> None:
        with self._lock:
            self.begun.append((key, item))
            self.heard.append(item)
            self.at_once[key] += 1
            self.overlaps += self.at_once[key] > 1
            self.most_at_once = max(self.most_at_once, self.at_once.total())
        self.gate.wait(10)
        with self._lock:
            self.at_once[key] -= 1
            self.done.append((key, item))

    def _give_up(self, key: str, item: int) -> None:
        self.given_up.append((key, item))
        self.heard.append(item)
        self.given_up_on.add(threading.get_ident())


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def test_one_machine_is_scored_in_order() -> None:
    bench = Bench(["a"], 4)
    bench.gate.set()
    bench.scheduler.start()
    for item in range(200):
        bench.scheduler.submit("a", item)
        until(lambda n=item: len(bench.done) + len(bench.given_up) >= n)  # type: ignore[misc]
    until(bench.scheduler.is_idle)
    bench.scheduler.stop()
    assert [i for _, i in bench.done] == sorted(i for _, i in bench.done)
    assert len(bench.done) + len(bench.given_up) == 200
    assert bench.overlaps == 0


def test_machines_take_turns() -> None:
    """One that hands in much does not keep the others waiting."""
    bench = Bench(["greedy", "b", "c"], 1)
    bench.scheduler.start()
    bench.scheduler.submit("greedy", 0)
    until(lambda: bench.begun == [("greedy", 0)])
    for key, item in [("greedy", 1), ("greedy", 2), ("b", 0), ("c", 0), ("b", 1)]:
        bench.scheduler.submit(key, item)
    bench.gate.set()
    until(bench.scheduler.is_idle)
    bench.scheduler.stop()
    assert bench.done == [("greedy", 0), ("b", 0), ("c", 0), ("greedy", 1), ("b", 1), ("greedy", 2)]


def test_the_oldest_makes_room_and_is_reported_in_order() -> None:
    bench = Bench(["a", "b"], 1)
    bench.scheduler.start()
    bench.scheduler.submit("a", 0)
    until(lambda: bench.begun == [("a", 0)])
    for item in range(1, 6):
        began = time.monotonic()
        bench.scheduler.submit("a", item)
        assert time.monotonic() - began < 1, "must not wait for the worker"
    assert MAX_WAITING == 2
    assert not bench.scheduler.is_idle()
    bench.gate.set()
    until(bench.scheduler.is_idle)
    bench.scheduler.stop()
    assert bench.given_up == [("a", 1), ("a", 2), ("a", 3)]
    assert bench.done == [("a", 0), ("a", 4), ("a", 5)]
    assert bench.heard == [0, 1, 2, 3, 4, 5]
    assert threading.get_ident() not in bench.given_up_on, "the submitting thread has other things to do"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_under_load_nothing_is_lost_or_done_twice(workers: int) -> None:
    keys = [f"m{i}" for i in range(6)]
    bench = Bench(keys, workers)
    bench.gate.set()
    bench.scheduler.start()
    threads = [
        threading.Thread(target=lambda k=key: [bench.scheduler.submit(k, i) for i in range(300)])  # type: ignore[misc]
        for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(bench.scheduler.is_idle)
    bench.scheduler.stop()
    seen = Counter([*bench.done, *bench.given_up])
    assert seen == Counter({(key, item): 1 for key in keys for item in range(300)})
    assert bench.overlaps == 0 and bench.most_at_once <= workers
    for key in keys:
        own = [item for k, item in bench.done if k == key]
        assert own == sorted(own) and own[-1] == 299, "the newest is never the one given up"


def test_all_workers_work() -> None:
    bench = Bench(["a", "b", "c"], 3)
    bench.scheduler.start()
    for key in ("a", "b", "c"):
        bench.scheduler.submit(key, 0)
        bench.scheduler.submit(key, 1)
    until(lambda: len(bench.begun) == 3)
    assert bench.at_once == {"a": 1, "b": 1, "c": 1}
    bench.gate.set()
    until(bench.scheduler.is_idle)
    bench.scheduler.stop()
    assert len(bench.done) == 6


def test_stop_finishes_what_is_in_hand_and_leaves_what_waits() -> None:
    bench = Bench(["a"], 2)
    bench.scheduler.start()
    bench.scheduler.submit("a", 0)
    until(lambda: bench.begun == [("a", 0)])
    bench.scheduler.submit("a", 1)
    stopper = threading.Thread(target=bench.scheduler.stop)
    stopper.start()
    time.sleep(0.05)
    assert stopper.is_alive(), "an item in hand must be finished first"
    bench.gate.set()
    stopper.join(5)
    assert not stopper.is_alive()
    assert bench.done == [("a", 0)] and bench.begun == [("a", 0)]
    assert not [t for t in threading.enumerate() if t.name.startswith("scorer-")]


def test_stop_without_work_returns() -> None:
    bench = Bench(["a", "b"], 2)
    bench.scheduler.start()
    began = time.monotonic()
    bench.scheduler.stop()
    assert time.monotonic() - began < 1
