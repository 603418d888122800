"""The scheduler, with real threads: order, turns, the oldest given up, nothing twice."""

from __future__ import annotations

import os
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


def overload(hops: dict[str, int], costs: dict[str, float], workers: int, rounds: int) -> Counter[str]:
    """Late items by key, when each hands in an item every so many rounds and takes so many seconds for one."""
    late: Counter[str] = Counter(dict.fromkeys(hops, 0))
    most_waiting = 0
    scheduler: Scheduler[str, int] = Scheduler(
        list(hops), workers, lambda key, _: time.sleep(costs[key]), lambda key, _: late.update([key])
    )
    scheduler.start()
    for number in range(rounds):
        for key, hop in hops.items():
            if number % hop == 0:
                scheduler.submit(key, number)
        most_waiting = max(most_waiting, *(len(queue.waiting) for queue in scheduler._queues.values()))
        time.sleep(0.02)
    until(scheduler.is_idle)
    scheduler.stop()
    assert most_waiting <= MAX_WAITING
    return late


@pytest.mark.parametrize("workers", [1, 2])
def test_overload_is_shared_by_equal_machines(workers: int) -> None:
    """Twice as much work as time."""
    keys = [f"m{i}" for i in range(8)]
    late = overload(dict.fromkeys(keys, 1), dict.fromkeys(keys, 0.005 * workers), workers, 60)
    assert min(late.values()) >= 10, "this is no overload"
    assert max(late.values()) - min(late.values()) <= 1


def test_equal_machines_stay_equal_beside_dearer_and_slower_ones() -> None:
    equal = [f"m{i}" for i in range(6)]
    hops = {**dict.fromkeys(equal, 1), "slow": 10, "dear": 1}
    costs = {**dict.fromkeys(equal, 0.005), "slow": 0.005, "dear": 0.02}
    late = overload(hops, costs, 1, 60)
    assert min(late[key] for key in equal) >= 10, "this is no overload"
    assert max(late[key] for key in equal) - min(late[key] for key in equal) <= 1
    assert late["slow"] == 0, "it asks for less than its turn"


def test_what_is_given_up_is_shortened_at_once_and_told_in_order() -> None:
    """However long an item takes, those that are given up behind it hold no sound."""
    gate, told = threading.Event(), []
    scheduler: Scheduler[str, str] = Scheduler(
        ["a"],
        1,
        lambda _, item: (told.append(item), gate.wait(10)),  # type: ignore[func-returns-value]
        lambda _, item: told.append(item),
        most_waiting={"a": 1},
        shorten=str.lower,
    )
    scheduler.start()
    scheduler.submit("a", "A")
    until(lambda: told == ["A"])
    for item in "BCD":
        scheduler.submit("a", item)
    assert scheduler._queues["a"].dropped == ["b", "c"]
    gate.set()
    until(scheduler.is_idle)
    scheduler.stop()
    assert told == ["A", "b", "c", "D"]


def test_workers_are_nicer_than_who_hands_in() -> None:
    """Sound must be taken in time even where scoring has all cores busy."""
    seen: list[int] = []
    scheduler: Scheduler[str, int] = Scheduler(
        ["a"],
        1,
        lambda *_: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())),
        lambda *_: None,
    )
    scheduler.start()
    scheduler.submit("a", 0)
    until(lambda: bool(seen))
    scheduler.stop()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert seen[0] > own or own == 19
