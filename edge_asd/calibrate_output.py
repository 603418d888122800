"""``edge-asd calibrate``: what it prints."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from edge_asd.alarm import AlarmRule
from edge_asd.binomial import exact_interval
from edge_asd.calibration import Calibration
from edge_asd.hearing import NormalSound
from edge_asd.operating_point import CONFIDENCE, STAYS_RAISED, IncidentRate, OperatingPoint
from edge_asd.pipeline import AlarmSettings
from edge_asd.site_calibration import CalibrationInUse

_EXPECTED = {1.0: "10 %", 2.0: "1 %"}
"""Of normal windows, past a rarity."""


@dataclass(frozen=True)
class Outcome:
    """What was found, before anything is written."""

    machine: str
    settings: AlarmSettings
    hop_seconds: float
    sound: NormalSound
    names: list[str]
    """Of the detector files."""
    unchecked: list[str]
    """Those that do not say what they were trained on."""
    now: list[CalibrationInUse]
    new: list[Calibration]
    before: OperatingPoint | None
    """None where the configuration fixes the threshold."""
    after: OperatingPoint | None
    rule_before: AlarmRule
    rule_after: AlarmRule
    rate_before: IncidentRate
    """Of the old threshold and calibrations, on this sound."""
    rate_after: IncidentRate


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"edge-asd: {text}", file=sys.stderr)


def print_outcome(outcome: Outcome) -> None:
    """All that somebody needs to know before the new calibration counts."""
    sound = outcome.sound
    windows = len(sound.scores)
    level = f"level {np.median(sound.levels):.1f} dBFS, 1 in 100 below {np.quantile(sound.levels, 0.01):.1f}"
    print(
        f"{outcome.machine}: {windows} normal windows in {_count(len(sound.stretches), 'stretch', 'stretches')}, "
        f"{sound.hours:.2f} hours, {level}"
    )
    if sound.left_out:
        print("  left out: " + ", ".join(f"{n} {reason}" for reason, n in sound.left_out.items()))
    if outcome.unchecked:
        print(
            f"  cannot be checked: {', '.join(outcome.unchecked)} does not say which clips it was trained on; "
            "calibrating on those would be worthless"
        )
    for number, name in enumerate(outcome.names):
        _print_detector(outcome, number, name)
    _print_alarm(outcome)


def _print_detector(outcome: Outcome, number: int, name: str) -> None:
    now, new = outcome.now[number], outcome.new[number]
    old = now.calibration
    print(f"{name}")
    where = "the detector's own" if now.path is None else now.path.name
    print(f"  old calibration: {where}, {len(old.scores)} windows, made {old.made}, level {old.level_dbfs:.1f} dBFS")
    print(f"  score at rarity 2: {old.score_at(2.0):.3f} before, {new.score_at(2.0):.3f} after")
    print("  by the old calibration, of this sound:")
    total = len(outcome.sound.rarities)
    for rarity, expected in _EXPECTED.items():
        beyond = sum(r[number] >= rarity for r in outcome.sound.rarities)
        low, high = exact_interval(beyond, total)
        print(
            f"    past rarity {rarity:g}: {beyond} of {total} windows, {_percent(beyond / total)} "
            f"(95 % interval {_percent(low)} to {_percent(high)}; {expected} to be expected)"
        )
    if max(outcome.sound.stretches) > 1:
        print("    (windows that follow each other are alike: those intervals are rather too narrow)")


def _print_alarm(outcome: Outcome) -> None:
    asked, sound = outcome.settings, outcome.sound
    print(
        f"alarm of {outcome.machine}: {asked.raise_count} of {asked.raise_window} windows, "
        f"one every {outcome.hop_seconds:g} s; false alarms are incidents of this machine"
    )
    print(f"  before: {_point(outcome.before, outcome.rule_before)}")
    beyond = sum(r >= outcome.rule_before.threshold for r in sound.machine_rarities)
    print(f"    on this sound: {beyond} of {len(sound.machine_rarities)} windows pass it", end="")
    if np.mean(np.asarray(sound.machine_rarities) >= outcome.rule_before.clear_below) > STAYS_RAISED:
        print(": it would stand raised nearly all the time")
    else:
        print(f"; false alarms: {outcome.rate_before}")
    print(f"  after:  {_point(outcome.after, outcome.rule_after)}")
    if outcome.after is None:
        print(f"    false alarms: {outcome.rate_after}")
    print(
        f"    The range says where the rate would lie, calibrated again and again on {sound.hours:.2f} hours of the\n"
        f"    machine at other times: {CONFIDENCE:.0%} of the time by the bootstrap, but 50 to 75 % in simulations of\n"
        "    known rate, so it is rather wider, most of all for short recordings.\n"
        "    What was not heard, such as another season or product, is not in it. More sound makes it narrower."
    )


def _point(point: OperatingPoint | None, rule: AlarmRule) -> str:
    return f"threshold {rule.threshold:.2f}, as the configuration says" if point is None else str(point)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
