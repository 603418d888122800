"""An evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .scorers import COMBINATION


def table(document: dict[str, Any]) -> str:
    """The document of `evaluate` for the eyes: a part for each machine, then one for all of them.

    Of each scorer AUC and pAUC with their intervals, rank correlation with the level, and AUC by machine id; the paired
    differences; the false alarms.
    """
    settings = document["settings"]
    percent = f"{100 * settings['confidence']:g} %"
    lines = [
        f"AUC and pAUC (max_fpr {settings['max_fpr']:g}): means over ids, and intervals of {percent} over recordings"
        f" ({settings['resamples']} resamples).",
        "level: rank correlation of the score with the level, over normal clips; near 1 the score is the energy.",
        *_disturbance(settings["disturbance"]),
        "",
    ]
    for machine, found in document["machines"].items():
        lines += [*_heading(machine, found), *_body(found, settings), ""]
        lines += [f"  note: {note}" for note in found["notes"]]
        if found["notes"]:
            lines.append("")
    over = document["all"]
    if over:
        lines += [f"all {len(over['machines'])} machines: means over {', '.join(over['machines'])}"]
        lines += [*_body(over, settings), ""]
    return "\n".join(lines[:-1])


def _disturbance(told: dict[str, Any] | None) -> Iterator[str]:
    if told is None:
        return
    parts = [] if told["snr_db"] is None else [f"{told['noise']} noise at an SNR of {told['snr_db']:g} dB"]
    parts += [f"gain jitter of {told['gain_db']:g} dB"] if told["gain_db"] else []
    yield f"test clips disturbed: {' and '.join(parts)} (seed {told['seed']})."


def _heading(machine: str, found: dict[str, Any]) -> Iterator[str]:
    clips = found["clips"].values()
    numbers = [
        f"{sum(c[label] for c in clips)} {label} (of {sum(c[f'{label}_recordings'] for c in clips)} recordings)"
        for label in ("normal", "anomalous")
    ]
    yield f"{machine}: test clips of {', '.join(found['clips'])}: {' and '.join(numbers)}"
    for name, detector in found["detectors"].items():
        yield f"  {name} is {', '.join(detector['files'])}"


def _body(found: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    scorers, differences, alarms = found["scorers"], found["differences"], found["false_alarms"]
    shown = {name: _indented(name, scorers) for name in scorers}
    compared = [f"{d['scorer']} - {_short(d['reference'], d['scorer'])}" for d in differences]
    width = max(map(len, [*shown.values(), *compared, *alarms]))
    percent = f"{100 * settings['confidence']:g} %"
    first = next(iter(scorers.values()))
    ids = list(first.get("per_id", {}))
    # Where the report that the design comes from stops at three ids, its mean over them is set beside.
    three = "  without id_06" if first.get("without_id_06") else ""
    yield ""
    head = f"  {'':<{width}}  {'AUC':<5} {percent:<13}  {'pAUC':<5} {percent:<13}  level"
    yield head + three + "".join(f"  {i:<5}" for i in ids)
    for name, scorer in scorers.items():
        level = scorer["level_correlation"]
        areas = "  ".join(_area(scorer[key]) for key in ("auc", "pauc"))
        cells = "".join(f"  {scorer['per_id'][i]['auc']:.3f}" for i in ids)
        both = ""
        if three:
            auc, pauc = (scorer["without_id_06"][key]["value"] for key in ("auc", "pauc"))
            both = f"  {auc:.3f} / {pauc:.3f}"
        yield f"  {shown[name]:<{width}}  {areas}  {'    -' if level is None else f'{level:+.2f}'}{both}{cells}"
    if differences:
        yield ""
        yield f"  {'paired difference (* excludes 0)':<{width}}  {'AUC':<23}  pAUC"
    for text, difference in zip(compared, differences, strict=True):
        yield f"  {text:<{width}}  {_difference(difference['auc'])}  {_difference(difference['pauc'])}".rstrip()
    yield ""
    target = f"normal windows beyond rarity {settings['rarity']:.3g} (target {100 * settings['target']:g} %)"
    yield f"  {target}"
    for name, count in alarms.items():
        other = "" if count["other"] is None else f"; other normal sound {_count(count['other'])}"
        yield f"  {name:<{width}}  test {_count(count['test'])}{other}"
    yield ""
    yield f"  recall: anomalous windows beyond rarity {settings['rarity']:.3g}, mean over ids"
    for name, share in found["recall"].items():
        low, high = (100 * edge for edge in share["interval"])
        yield f"  {name:<{width}}  {100 * share['value']:.0f} % ({low:.0f} to {high:.0f} %)"


def _indented(name: str, scorers: dict[str, Any]) -> str:
    """A detector's variants stand below it, without its name."""
    member, comma, label = name.partition(", ")
    return f"  {label}" if comma and member in scorers and member != COMBINATION else name


def _short(reference: str, scorer: str) -> str:
    return reference.removeprefix(f"{scorer}, ")


def _area(area: dict[str, Any]) -> str:
    low, high = area["interval"]
    return f"{area['value']:.3f} {f'{low:.3f}-{high:.3f}':<13}"


def _difference(area: dict[str, Any]) -> str:
    low, high = area["interval"]
    mark = "*" if low > 0 or high < 0 else " "
    return f"{area['value']:+.3f}{mark} {low:+.3f} to {high:+.3f}"


def _count(count: dict[str, Any]) -> str:
    if not count["windows"]:
        return "none"
    low, high = (100 * edge for edge in count["interval"])
    share = 100 * count["share"]
    return f"{count['beyond']} of {count['windows']}, {share:.1f} % ({low:.1f} to {high:.1f} %)"
