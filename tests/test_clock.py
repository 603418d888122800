"""The two clocks: one that never steps, and UTC."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from edge_asd.clock import boot_time, is_synchronised, utc


def test_utc_of_now_is_now():
    assert abs(utc(boot_time()) - datetime.now(UTC)) < timedelta(seconds=0.5)
    assert utc(boot_time()).tzinfo is UTC


def test_utc_of_a_moment_lies_as_far_back_as_the_moment():
    moment = boot_time()
    assert (utc(moment) - utc(moment - 3600)).total_seconds() == pytest.approx(3600, abs=0.5)


def test_boot_time_goes_on():
    before = boot_time()
    time.sleep(0.02)
    assert 0.02 <= boot_time() - before < 5


@pytest.mark.parametrize("step", [-86_400.0, 3600.0])
def test_a_step_of_the_wall_clock_moves_utc_and_nothing_else(monkeypatch, step):
    moment, before, real = boot_time(), utc(boot_time()), time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    assert (utc(moment) - before).total_seconds() == pytest.approx(step, abs=0.5)
    assert 0 <= boot_time() - moment < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked")
def test_linux_knows_whether_its_clock_is_synchronised():
    assert is_synchronised() in (True, False)
