"""Does the time suffice? Seconds of work that each 10 s of sound cost, against the cores there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_asd.budget import EXCEEDED, TIGHT
from edge_asd.cores import allowed_cores
from edge_asd.cost import DEVICE_RATE, Cost, CostMeter, MachineCost
from edge_asd.finding import Finding
from edge_asd.machine import Machine

_PER_SECONDS = 10
"""Of sound."""
_COMPETITION = 1.3
"""Wall over processor time from which on something else had the cores while this measured."""
_MACHINES_SHOWN = 20


@dataclass(frozen=True)
class Part:
    """A configuration, given or of a daemon that runs."""

    name: str
    machines: Sequence[Machine]
    cores: int
    """That it may use."""
    device_rate: int | None
    """Hz, as configured."""


def check_time(parts: Sequence[Part], given: int, uncounted: Sequence[str]) -> Iterator[Finding]:
    """Measure, and tell.

    Args:
        parts: what runs on this computer, the configurations that were asked for first.
        given: how many were asked for.
        uncounted: daemons whose work is not known.
    """
    cores = allowed_cores()
    meter = CostMeter(cores)
    costs = [[meter.machine(m.pipeline, _rate(part, m)) for m in part.machines] for part in parts]
    for cost in meter.log_mels:
        yield Finding("log-mel", "ok", f"{_window(cost)} a window", _figures(cost))
    for name, kind, cost in meter.detectors.values():
        figures = {"detector": name, "kind": kind, **_figures(cost)}
        yield Finding("detector", "ok", f"{name} ({kind}): {_window(cost)} a window", figures)
    disturbed = max((c.competition for _, _, c in meter.detectors.values()), default=1.0)
    if disturbed > _COMPETITION:
        text = (
            f"other programs had the cores while this measured (wall time {disturbed:.1f} times processor time): the "
            "daemon will not have them for itself either; give it a higher priority, or the others less to do"
        )
        yield Finding("competition", "warning", text, {"wall_over_processor": disturbed})
    for part, own in zip(parts, costs, strict=True):
        yield from _machines(part, own)
        yield _verdict(part.name, own, part.cores)
    if len(parts) > 1 or uncounted:
        name = f"all {len(parts)} daemons of this computer together"
        if uncounted:
            name += f" (not counted: {', '.join(uncounted)})"
        yield _verdict(name, [c for own in costs for c in own], cores, like=costs[0])


def ratio_of(costs: Sequence[MachineCost], cores: int) -> float:
    """Of the time that cores have, as the daemon's budget: 1 is all; a machine is never scored by two cores at once."""
    return max(sum(c.total for c in costs) / cores, *(c.scoring for c in costs))


def more_that_fit(costs: Sequence[MachineCost], cores: int, like: Sequence[MachineCost]) -> int:
    """How many more machines, as costly as ``like`` are on average, would leave the budget well."""
    each = sum(c.total for c in like) / len(like)
    free = TIGHT * cores - sum(c.total for c in costs)
    return max(0, math.floor(free / each)) if ratio_of(costs, cores) < TIGHT else 0


def _machines(part: Part, costs: Sequence[MachineCost]) -> Iterator[Finding]:
    for number, (machine, cost) in enumerate(zip(part.machines, costs, strict=True)):
        if number == _MACHINES_SHOWN:
            yield Finding("machine", "ok", f"{part.name}: and {len(costs) - number} more, see their sum")
            return
        text = f"{machine.name}: {_PER_SECONDS * cost.total:.3f} s of work each {_PER_SECONDS} s"
        figures = {
            "machine": machine.name,
            "scoring_seconds": _PER_SECONDS * cost.scoring,
            "hearing_seconds": _PER_SECONDS * cost.hearing,
        }
        if cost.scoring >= EXCEEDED:
            text += "; one machine is scored by one core at a time: take a longer hop, or fewer or cheaper detectors"
        yield Finding("machine", "ok" if cost.scoring < EXCEEDED else "failed", text, figures)


def _verdict(
    name: str, costs: Sequence[MachineCost], cores: int, *, like: Sequence[MachineCost] | None = None
) -> Finding:
    total, ratio = sum(c.total for c in costs), ratio_of(costs, cores)
    text = (
        f"{name}: {_PER_SECONDS * total:.2f} s of work each {_PER_SECONDS} s of sound, {total:.2f} cores of {cores} "
        f"({ratio:.0%} of the budget): "
    )
    further = more_that_fit(costs, cores, like or costs)
    figures = {
        "name": name,
        "seconds_of_work": _PER_SECONDS * total,
        "of_sound_seconds": _PER_SECONDS,
        "cores_needed": total,
        "cores": cores,
        "ratio": ratio,
        "more_machines": further,
    }
    if ratio >= EXCEEDED:
        text += "does not fit; take longer hops, fewer or cheaper detectors, fewer machines, or more cores"
        return Finding("time", "failed", text, figures)
    if ratio >= TIGHT:
        text += "tight; windows come late as soon as this computer does anything else"
        return Finding("time", "warning", text, figures)
    return Finding("time", "ok", f"{text}fits; {further} more such machines would fit", figures)


def _rate(part: Part, machine: Machine) -> int | None:
    return None if machine.settings.channel is None else part.device_rate or DEVICE_RATE


def _window(cost: Cost) -> str:
    return f"{1e3 * cost.wall:.1f} ms alone, {1e3 * cost.busy_processor:.1f} ms of processor time with all cores busy,"


def _figures(cost: Cost) -> dict[str, float]:
    return {
        "wall_seconds": cost.wall,
        "processor_seconds": cost.processor,
        "busy_wall_seconds": cost.busy_wall,
        "busy_processor_seconds": cost.busy_processor,
    }
