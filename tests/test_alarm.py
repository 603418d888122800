"""The alarm: k of n raise, m in a row clear, then a rest; what was not scored does neither."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_asd.alarm import Alarm, AlarmEvent, AlarmRule
from edge_asd.calibration import MAX_RARITY

HOP = 10.0
RULE = AlarmRule(threshold=2.0, raise_count=3, raise_window=5, clear_after=4, rest_seconds=0.0)
LOUD, MIDDLE, QUIET, UNSCORED = 3.0, 1.5, 0.5, None
"""Above the threshold, between it and the lower one, below both."""


def run(alarm: Alarm, rarities: Iterable[float | None], start: float = 0.0, hop: float = HOP) -> list[tuple[int, str]]:
    """Number of the window and what happened at it."""
    events = [(n, alarm.step(rarity, start + n * hop, hop)) for n, rarity in enumerate(rarities)]
    return [(n, event.event) for n, event in events if event is not None]


def raised(rule: AlarmRule = RULE) -> Alarm:
    alarm = Alarm(rule)
    assert run(alarm, [LOUD] * rule.raise_count, start=-rule.raise_count * HOP)
    return alarm


@pytest.mark.parametrize(
    ("pattern", "at"),
    [
        ([LOUD, LOUD, LOUD], 2),
        ([QUIET, LOUD, QUIET, LOUD, QUIET, LOUD], 5),
        ([LOUD, QUIET, QUIET, LOUD, LOUD], 4),
        ([LOUD, QUIET, QUIET, QUIET, LOUD, LOUD], None),
        ([LOUD, LOUD, QUIET, QUIET, QUIET, LOUD], None),
        ([LOUD, LOUD, MIDDLE, QUIET, QUIET], None),
        ([QUIET] * 50, None),
    ],
)
def test_raised_by_k_of_the_last_n(pattern, at):
    assert run(Alarm(RULE), pattern) == ([] if at is None else [(at, "raised")])


def test_the_threshold_itself_counts():
    assert run(Alarm(RULE), [2.0, 2.0, 2.0]) == [(2, "raised")]
    assert not run(Alarm(RULE), [1.9999] * 10)


@given(
    rarities=st.lists(st.sampled_from([LOUD, QUIET]), max_size=40),
    window=st.integers(1, 8),
    data=st.data(),
)
def test_the_first_incident_begins_where_k_of_n_are_reached_first(rarities, window, data):
    count = data.draw(st.integers(1, window))
    votes = [r == LOUD for r in rarities]
    expected = [n for n in range(len(votes)) if sum(votes[max(0, n + 1 - window) : n + 1]) >= count][:1]
    events = run(Alarm(AlarmRule(2.0, count, window)), rarities)
    assert [n for n, what in events if what == "raised"][:1] == expected


@pytest.mark.parametrize(
    ("pattern", "at"),
    [
        ([QUIET] * 4, 3),
        ([LOUD, LOUD, QUIET, QUIET, QUIET, QUIET], 5),
        ([QUIET, QUIET, QUIET, MIDDLE, QUIET, QUIET, QUIET, QUIET], 7),
        ([MIDDLE] * 30, None),
        ([1.0] * 30, None),
        ([0.9999] * 4, 3),
    ],
)
def test_cleared_by_m_in_a_row_below_the_lower_threshold(pattern, at):
    assert RULE.clear_below == 1.0
    assert run(raised(), pattern) == ([] if at is None else [(at, "cleared")])


def test_an_open_incident_is_not_raised_again():
    assert not run(raised(), [LOUD] * 100)


def test_after_a_clearing_votes_are_counted_anew():
    rule = AlarmRule(2.0, 3, 5, clear_after=1, rest_seconds=0.0)
    assert run(raised(rule), [QUIET, LOUD, LOUD, QUIET, LOUD]) == [(0, "cleared"), (4, "raised")]


def test_the_alarm_rests_after_a_clearing():
    rule = AlarmRule(2.0, 3, 5, clear_after=1, rest_seconds=100.0)
    assert run(raised(rule), [QUIET] + [LOUD] * 20) == [(0, "cleared"), (10, "raised")]
    assert run(raised(rule), [QUIET] + [LOUD] * 6 + [QUIET] * 20) == [(0, "cleared")]


def test_unscored_windows_do_not_raise():
    assert not run(Alarm(RULE), [UNSCORED] * 100)
    assert run(Alarm(RULE), [LOUD, UNSCORED, UNSCORED, LOUD, UNSCORED, LOUD]) == [(5, "raised")]


def test_unscored_windows_hold_an_open_incident():
    alarm = raised()
    assert not run(alarm, [UNSCORED] * 1000)
    assert alarm.incident is not None
    assert run(alarm, [QUIET] * 4, start=10_000.0) == [(3, "cleared")]


def test_unscored_windows_neither_count_towards_clearing_nor_break_it():
    assert run(raised(), [QUIET, QUIET, UNSCORED, UNSCORED, QUIET, UNSCORED, QUIET]) == [(6, "cleared")]
    assert not run(raised(), [QUIET, QUIET, UNSCORED, UNSCORED, QUIET, UNSCORED])


@pytest.mark.parametrize(("pause_windows", "expected"), [(4, [(0, "raised")]), (6, []), (1000, [])])
def test_votes_from_before_a_long_pause_are_forgotten(pause_windows, expected):
    alarm = Alarm(RULE)
    assert not run(alarm, [LOUD, LOUD])
    assert run(alarm, [LOUD], start=HOP + pause_windows * HOP) == expected


def test_forgotten_votes_are_gone_for_good():
    alarm = Alarm(RULE)
    run(alarm, [LOUD, LOUD])
    assert run(alarm, [LOUD, QUIET, LOUD, LOUD], start=500.0) == [(3, "raised")]


def test_an_incident_has_one_uuid_from_raised_to_cleared():
    alarm = Alarm(AlarmRule(2.0, 1, 1, clear_after=1, rest_seconds=0.0))
    events = [alarm.step(r, n * HOP, HOP) for n, r in enumerate([LOUD, QUIET, LOUD, QUIET])]
    first, first_end, second, second_end = events
    assert first is not None
    assert second is not None
    assert first_end == AlarmEvent("cleared", first.incident)
    assert second_end == AlarmEvent("cleared", second.incident)
    assert first.incident != second.incident
    assert str(uuid.UUID(first.incident)) == first.incident
    assert alarm.incident is None


def test_an_incident_from_before_a_restart_is_cleared_under_its_uuid():
    alarm = Alarm(RULE, incident="a-former-one")
    assert not run(alarm, [LOUD] * 5)
    events = [alarm.step(QUIET, 100.0 + n * HOP, HOP) for n in range(4)]
    assert events == [None, None, None, AlarmEvent("cleared", "a-former-one")]


REST = AlarmRule(2.0, 2, 4, clear_after=2, rest_seconds=45.0)


@given(
    rarities=st.lists(st.sampled_from([LOUD, LOUD, MIDDLE, QUIET, QUIET, UNSCORED]), min_size=1, max_size=60),
    cuts=st.sets(st.integers(0, 59), max_size=4),
    pauses=st.lists(st.sampled_from([0, 0, 0, 3, 5, 9]), min_size=60, max_size=60),
)
def test_a_restart_changes_nothing(rarities, cuts, pauses):
    """The process ends after some windows, its state goes through JSON, and the next one's clock begins anew."""
    times = [n * HOP + sum(pauses[: n + 1]) * HOP for n in range(len(rarities))]
    whole, parts = Alarm(REST), Alarm(REST)
    zero, events, expected = 0.0, [], []
    for number, (rarity, time) in enumerate(zip(rarities, times, strict=True)):
        event = whole.step(rarity, time, HOP)
        expected.append(None if event is None else event.event)
        event = parts.step(rarity, time - zero, HOP)
        events.append(None if event is None else event.event)
        if number in cuts:
            snapshot, before = json.loads(json.dumps(parts.snapshot())), zero
            zero = time - 3.0
            parts = Alarm(REST)
            parts.restore(snapshot, lambda now, shift=zero - before: now + shift)
            assert parts.incident == snapshot["incident"]
    assert events == expected


def test_an_incident_keeps_its_uuid_over_a_restart():
    alarm = raised()
    again = Alarm(RULE)
    again.restore(alarm.snapshot(), lambda now: now)
    assert run(again, [QUIET] * 4) == [(3, "cleared")]
    assert again.incident is None and alarm.incident is not None


def test_normal_sound_and_a_steady_incident_leave_nothing_new_to_save():
    alarm = Alarm(RULE)
    before = alarm.snapshot()
    run(alarm, [QUIET] * 20 + [UNSCORED, MIDDLE])
    assert alarm.snapshot() == before
    run(alarm, [LOUD], start=1000.0)
    assert alarm.snapshot() != before
    run(alarm, [LOUD, LOUD], start=1010.0)
    before = alarm.snapshot()
    run(alarm, [LOUD] * 20, start=1030.0)
    assert alarm.snapshot() == before and before["incident"] is not None


def test_the_rest_is_never_longer_than_the_rule_says():
    """However far the wall clock went back while the computer was off."""
    alarm = raised(REST)
    assert run(alarm, [QUIET, QUIET]) == [(1, "cleared")]
    again = Alarm(REST)
    again.restore(alarm.snapshot(), lambda now: -1e9)
    assert run(again, [QUIET] + [LOUD] * 20, start=500.0) == [(5, "raised")]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"incident": 5},
        {"incident": "no uuid"},
        {"votes": 3},
        {"quiet": None},
        {"rests_until": "soon"},
        {"last_scored": [1]},
    ],
    ids=str,
)
def test_what_is_no_snapshot_changes_nothing(wrong):
    alarm = raised()
    snapshot = alarm.snapshot()
    with pytest.raises(ValueError, match="no state of an alarm"):
        alarm.restore({**snapshot, **wrong} if wrong else {}, lambda now: now)
    assert alarm.snapshot() == snapshot


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"raise_count": 6}, "6 of 5 windows can never be reached"),
        ({"raise_count": 0}, "0 of 5"),
        ({"raise_window": 0}, "3 of 0"),
        ({"threshold": 0.0}, "can never work"),
        ({"threshold": -1.0}, "can never work"),
        ({"threshold": MAX_RARITY}, "can never work"),
        ({"threshold": float("nan")}, "can never work"),
        ({"clear_after": 0}, "clear_after"),
        ({"rest_seconds": -1.0}, "rest_seconds"),
        ({"rest_seconds": float("nan")}, "rest_seconds"),
    ],
    ids=str,
)
def test_a_rule_that_can_never_work_is_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        AlarmRule(**({"threshold": 2.0} | wrong))


def test_a_rule_says_its_k_of_n():
    assert str(AlarmRule(2.0, 3, 5)) == "3 of 5"


def test_another_rule_keeps_incident_votes_and_the_moment_of_the_clearing():
    alarm = Alarm(RULE)
    run(alarm, [LOUD, LOUD])
    alarm.adopt(replace(RULE, raise_count=2, raise_window=4))
    assert alarm.incident is None, "a rule alone raises nothing"
    assert run(alarm, [QUIET], start=2 * HOP) == [(0, "raised")], "2 of the last 4 windows"
    incident = alarm.incident
    alarm.adopt(replace(RULE, clear_after=2, rest_seconds=100.0))
    assert alarm.incident == incident is not None
    assert run(alarm, [QUIET, QUIET], start=3 * HOP) == [(1, "cleared")]  # at 4 hops, to rest for 100 s
    alarm.adopt(replace(RULE, raise_count=1, raise_window=1, rest_seconds=50.0))
    assert run(alarm, [LOUD] * 8, start=5 * HOP) == [(4, "raised")], "50 s after it was cleared"


def test_of_a_shorter_rule_only_the_last_votes_count():
    alarm = Alarm(RULE)
    run(alarm, [LOUD, LOUD, QUIET, QUIET])
    alarm.adopt(replace(RULE, raise_count=2, raise_window=2))
    assert run(alarm, [LOUD, LOUD], start=4 * HOP) == [(1, "raised")]
