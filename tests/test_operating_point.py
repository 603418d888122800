"""Operating points: as many false alarms as asked for, and honest about what the calibration cannot carry."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.alarm import Alarm, AlarmRule
from edge_asd.calibration import Calibration
from edge_asd.logmel import Float64Array
from edge_asd.normal_rarity import simulate_normal_rarity
from edge_asd.operating_point import incident_rate, operating_point, with_uncertainty
from edge_asd.rate_curve import SECONDS_PER_DAY, count_incidents

HOP = 10.0
RULE = AlarmRule(threshold=1.0, raise_count=3, raise_window=5, clear_after=5, rest_seconds=300.0)


def calibration(count: int, seed: int = 0, **options: Any) -> Calibration:
    scores = np.random.default_rng(seed).normal(size=count)
    return Calibration.from_scores(scores, level_dbfs=-30.0, source="drawn by a test", **options)


def stepped(rarity: Float64Array, rule: AlarmRule, hop: float) -> int:
    """Incidents, by handing every window to the alarm."""
    alarm, incidents = Alarm(rule), 0
    for number, value in enumerate(rarity):
        event = alarm.step(float(value), number * hop, hop)
        incidents += event is not None and event.event == "raised"
    return incidents


@st.composite
def rules(draw: st.DrawFn) -> AlarmRule:
    window = draw(st.integers(1, 8))
    return AlarmRule(
        2.0,
        draw(st.integers(1, window)),
        window,
        draw(st.integers(1, 4)),
        draw(st.sampled_from([0.0, 5.0, 25.0, 70.0])),
    )


@settings(max_examples=400)
@given(
    rarity=st.lists(st.sampled_from([0.5, 0.5, 1.5, 3.0]), max_size=150),
    rule=rules(),
    hop=st.sampled_from([1.0, 3.3, 10.0]),
)
def test_counting_incidents_is_stepping_the_alarm(rarity, rule, hop):
    series = np.asarray(rarity, float)
    assert count_incidents(series, rule, hop) == stepped(series, rule, hop)


@pytest.mark.parametrize("rule", [RULE, AlarmRule(1.0, 1, 1, 1, 0.0), AlarmRule(1.0, 2, 3, 2, 47.0)], ids=str)
@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.1, 2.0])
def test_counting_incidents_is_stepping_the_alarm_over_a_long_series(rule, threshold):
    rarity = -np.log10(np.random.default_rng(8).random(30_000))
    rule = replace(rule, threshold=threshold)
    assert count_incidents(rarity, rule, HOP) == stepped(rarity, rule, HOP)


def test_incidents_known_by_hand():
    rule = AlarmRule(2.0, 1, 1, clear_after=1, rest_seconds=0.0)
    assert count_incidents(np.array([3.0, 0.0, 3.0, 0.0, 3.0]), rule, HOP) == 3
    assert count_incidents(np.array([3.0, 3.0, 3.0]), rule, HOP) == 1
    assert count_incidents(np.zeros(10), rule, HOP) == 0
    assert count_incidents(np.zeros(0), rule, HOP) == 0
    rests = replace(rule, rest_seconds=20.0)
    assert count_incidents(np.array([3.0, 0.0, 3.0, 0.0, 3.0]), rests, HOP) == 2


def counted_per_day(calibrations: tuple[Calibration, ...], rule: AlarmRule, hop: float = HOP) -> float:
    """On draws that the operating point was not found with, half a year of them."""
    counts, days = 0, 0.0
    for seed in [101, 102, 103, 104]:
        rarity = simulate_normal_rarity(calibrations, hop, seed=seed)
        counts += count_incidents(rarity, rule, hop)
        days += rarity.size * hop / SECONDS_PER_DAY
    return counts / days


@pytest.mark.parametrize("asked", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("count", [12, 60, 600])
def test_fresh_normal_sound_raises_as_many_as_asked(count, asked):
    calibrations = (calibration(count),)
    found = operating_point(calibrations, RULE, HOP, asked)
    counted = counted_per_day(calibrations, replace(RULE, threshold=found.threshold))
    assert asked / 2 < counted < asked * 2


@pytest.mark.parametrize("rule", [AlarmRule(1.0, 1, 1, 1, 0.0), AlarmRule(1.0, 2, 3, 10, 600.0)], ids=str)
def test_so_it_is_under_other_rules(rule):
    calibrations = (calibration(200),)
    found = operating_point(calibrations, rule, HOP, 3.0)
    counted = counted_per_day(calibrations, replace(rule, threshold=found.threshold))
    assert 1.5 < counted < 6.0


@pytest.mark.parametrize("hop", [2.0, 30.0])
def test_so_it_is_at_other_hops(hop):
    calibrations = (calibration(200),)
    found = operating_point(calibrations, RULE, hop, 10.0)
    counted = counted_per_day(calibrations, replace(RULE, threshold=found.threshold), hop)
    assert 5.0 < counted < 20.0


def test_so_it_is_for_several_detectors():
    calibrations = (calibration(150, seed=1), calibration(300, seed=2))
    found = operating_point(calibrations, RULE, HOP, 3.0)
    counted = counted_per_day(calibrations, replace(RULE, threshold=found.threshold))
    assert 1.5 < counted < 6.0


@pytest.mark.parametrize("asked", [1.0, 5.0])
def test_the_law_itself_raises_as_many_as_asked(asked):
    """Scores from the law that the calibration was drawn from, not from the calibration: within a factor of 2.5."""
    fitted = calibration(5000)
    found = operating_point((fitted,), RULE, HOP, asked)
    limit = fitted.score_at(found.threshold)
    scores = np.random.default_rng(9).normal(size=2_000_000)
    quiet = scores < fitted.score_at(found.threshold / 2)
    rarity = np.where(scores >= limit, found.threshold + 0.1, np.where(quiet, 0.0, 0.75 * found.threshold))
    counted = count_incidents(rarity, replace(RULE, threshold=found.threshold), HOP) / (
        scores.size * HOP / SECONDS_PER_DAY
    )
    assert asked / 2.5 < counted < asked * 2.5


def test_fewer_false_alarms_need_a_higher_threshold():
    calibrations = (calibration(300),)
    thresholds = [operating_point(calibrations, RULE, HOP, rate).threshold for rate in [0.01, 0.1, 1.0, 10.0, 50.0]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(set(thresholds)) == len(thresholds)


def test_the_same_question_has_the_same_answer():
    calibrations = (calibration(100),)
    first = operating_point(calibrations, RULE, HOP, 1.0)
    operating_point.cache_clear()
    assert operating_point(calibrations, RULE, HOP, 1.0) == first
    assert operating_point(calibrations, replace(RULE, threshold=5.0), HOP, 1.0) == first, "its threshold is not used"


def test_says_what_the_calibration_cannot_carry():
    few = operating_point((calibration(12),), RULE, HOP, 0.1)
    assert few.is_extrapolated
    assert few.supported_per_day > 0.1
    assert str(few) == (
        f"threshold {few.threshold:.2f} for 0.1 false alarms a day "
        f"(extrapolated: the calibration supports down to {few.supported_per_day:.3g} a day)"
    )
    many = operating_point((calibration(2000),), RULE, HOP, 5.0)
    assert not many.is_extrapolated
    assert "extrapolated" not in str(many)


def test_more_normal_sound_carries_lower_rates():
    supported = [operating_point((calibration(n),), RULE, HOP, 1.0).supported_per_day for n in [12, 40, 200, 1000]]
    assert supported == sorted(supported, reverse=True)
    assert len(set(supported)) == len(supported)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (0.0, "must be above 0"),
        (-1.0, "must be above 0"),
        (float("nan"), "must be above 0"),
        (5000.0, "at most 100, not 5000"),
    ],
)
def test_rates_that_cannot_be_had_are_refused(asked, complaint):
    with pytest.raises(ValueError, match=complaint):
        operating_point((calibration(50),), RULE, HOP, asked)


def test_a_strict_rule_gets_a_low_threshold_instead_of_a_refusal():
    strict = operating_point((calibration(200),), replace(RULE, raise_count=10, raise_window=10), HOP, 0.1)
    never = operating_point((calibration(200),), replace(RULE, raise_count=40, raise_window=40), HOP, 0.1)
    assert 0.3 <= never.threshold <= strict.threshold < operating_point((calibration(200),), RULE, HOP, 0.1).threshold


def test_what_few_exceedances_leave_open_costs_threshold():
    few, many = (operating_point((calibration(n),), RULE, HOP, 0.1).threshold for n in (40, 4000))
    assert few > many + 0.05


def test_a_rate_that_needs_a_rarity_beyond_all_is_refused():
    with pytest.raises(ValueError, match="needs a rarity above 12; allow more, or let more windows agree"):
        operating_point((calibration(50),), AlarmRule(1.0, 1, 1, 1, 0.0), HOP, 1e-40)


def test_a_long_calibration_is_no_burden():
    """Nearly two days of windows; the daemon must be ready within a second."""
    fitted = calibration(15_000)
    begin = time.process_time()
    simulate_normal_rarity((fitted,), HOP)
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize("count", [30, 3000])
def test_simulated_rarity_is_rarity(count):
    """A share of 10 ** -r reaches r, whatever the scores were."""
    rarity = simulate_normal_rarity((calibration(count),), HOP)
    assert rarity.min() >= 0.0
    for r in [0.5, 1.0, 2.0, 3.0]:
        assert np.mean(rarity >= r) == pytest.approx(10**-r, rel=0.15)


def test_neighbours_stay_neighbours():
    """A disturbance of twelve windows is an incident wherever it is drawn; twelve separate clips are next to none."""
    scores = np.random.default_rng(10).normal(size=600)
    scores[200:212] += 10.0
    options = {"level_dbfs": -30.0, "source": "drawn by a test"}
    series = Calibration.from_scores(scores, stretches=[600], **options)
    clips = Calibration.from_scores(scores, **options)
    together = simulate_normal_rarity((series,), HOP)
    apart = simulate_normal_rarity((clips,), HOP)
    rule = AlarmRule(1.8, 3, 5, 5, 0.0)
    disturbances = together.size / 600
    assert disturbances / 2 < count_incidents(together, rule, HOP) < disturbances * 2
    assert count_incidents(apart, rule, HOP) < disturbances / 10


def test_detectors_of_the_same_windows_are_drawn_together():
    """The same detector twice can never be rarer than once; a second opinion on other windows can."""
    one = calibration(300)
    windows = 100_000
    once = simulate_normal_rarity((one,), HOP, windows)
    twice = simulate_normal_rarity((one, one), HOP, windows)
    below_tail = once < -np.log10(one.tail.probability)
    assert np.allclose(twice[below_tail], np.maximum(0.0, once[below_tail] - np.log10(2)))


def test_detectors_that_heard_other_sound_are_drawn_apart():
    """Equal stretches say little: any two calibrations on 300 separate clips have them."""
    windows = 100_000
    one, same, other, silent = (calibration(300, sound=s) for s in ("cafe", "cafe", "beef", None))
    once = simulate_normal_rarity((one,), HOP, windows)
    below_tail = once < -np.log10(one.tail.probability)
    together = simulate_normal_rarity((one, same), HOP, windows)
    assert np.allclose(together[below_tail], np.maximum(0.0, once[below_tail] - np.log10(2)))
    for elsewhere in (other, silent):
        apart = simulate_normal_rarity((one, elsewhere), HOP, windows)
        assert np.mean(apart >= 0.5) == pytest.approx(2 * 10**-0.8, rel=0.15), "a second opinion"
    three = simulate_normal_rarity((one, other, same), HOP, windows)
    two = simulate_normal_rarity((one, other), HOP, windows)
    assert np.mean(three >= 1.0) == pytest.approx(np.mean(two >= 1.0 + np.log10(1.5)), rel=0.15)


def test_another_calibration_judges_the_same_sound():
    """Scores that are all higher by one spread: as rare as the old calibration makes them."""
    old, new = calibration(4000), calibration(4000, seed=1)
    louder = Calibration.from_scores([s + 1.0 for s in new.scores], level_dbfs=-30.0, source="drawn by a test")
    judged = simulate_normal_rarity((louder,), HOP, judged_by=(old,))
    for rarity in (1.0, 2.0):
        share = np.mean([old.rarity(s) >= rarity for s in louder.scores])
        assert np.mean(judged >= rarity) == pytest.approx(share, rel=0.15)


def test_a_rate_says_how_uncertain_it_is():
    rule = AlarmRule(1.0, 1, 1, 1, 0.0)
    widths = []
    for count in (60, 3000):
        calibrations = (calibration(count),)
        plain = operating_point(calibrations, rule, HOP, 20.0)
        assert plain.rate is None and "interval" not in str(plain)
        point = with_uncertainty(plain, calibrations, rule, HOP)
        assert point == replace(plain, rate=point.rate) and point.rate is not None
        assert point.rate.low < 20.0 < point.rate.high and point.rate.low < point.rate.per_day < point.rate.high
        assert f"; that is roughly {point.rate.low:.2g} to {point.rate.high:.2g} a day" in str(point)
        widths.append(np.log(point.rate.high / point.rate.low))
    assert widths[1] < widths[0] / 2, "more sound leaves less open"
    assert with_uncertainty(plain, calibrations, rule, HOP) == point, "the same question has the same answer"


def test_slow_changes_leave_more_open():
    """The same scores, but in the order of an hour's drift: fewer windows than it seems."""
    rule, options = AlarmRule(1.0, 1, 1, 1, 0.0), {"level_dbfs": -30.0, "source": "drawn by a test"}
    rng = np.random.default_rng(12)
    drift = np.sin(np.arange(1440) / 1440 * 8 * np.pi) + 0.3 * rng.normal(size=1440)
    drifting = Calibration.from_scores(drift, stretches=[1440], **options)
    apart = Calibration.from_scores(rng.permutation(drift), **options)
    rates = [incident_rate((c,), replace(rule, threshold=1.5), HOP) for c in (drifting, apart)]
    assert rates[0].high / rates[0].low > 1.1 * rates[1].high / rates[1].low


def test_old_calibrations_judge_new_sound():
    old, new = calibration(400), calibration(400, seed=5)
    louder = Calibration.from_scores([s + 1.0 for s in new.scores], level_dbfs=-30.0, source="drawn by a test")
    rule = AlarmRule(2.0, 1, 1, 1, 0.0)
    same = incident_rate((new,), rule, HOP, judged_by=(old,), repeats=10)
    more = incident_rate((louder,), rule, HOP, judged_by=(old,), repeats=10)
    assert more.low > 2 * same.high
    assert incident_rate((calibration(30),), replace(rule, raise_count=40, raise_window=40), HOP, repeats=5).high == 0


def test_overlapping_windows_hear_the_same():
    rarity = simulate_normal_rarity((calibration(100),), hop_seconds=2.0, windows=10_000)
    assert rarity.size == 10_000
    blocks = rarity.reshape(-1, 5)
    assert (blocks == blocks[:, :1]).all()
