"""What another configuration changes: what a daemon takes up while it listens, and what only a restart brings.

Of a machine its detectors, their calibration, its alarm and its level gate are live, as long as its sound is cut
alike. Where anything else of a machine differs, nothing of it changes: an alarm that is meant for another hop, or a
detector for another channel, would be half a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edge_asd.config import Config, MachineSection
from edge_asd.config_types import Section
from edge_asd.machine import Machine
from edge_asd.pipeline import Pipeline

Key = tuple[str | int, ...]
"""Keys and indices (from 0) to a value of the configuration."""

_LIVE = {"detectors", "alarm", "active_when"}


@dataclass(frozen=True)
class Swap:
    """What one machine is to take up."""

    machine: Machine
    """As it runs."""
    settings: MachineSection
    pipeline: Pipeline
    """To be adopted."""
    changes: tuple[str, ...]
    """In words; none where the settings say the same in other words."""


@dataclass(frozen=True)
class Plan:
    """All of it."""

    swaps: tuple[Swap, ...]
    restart_needed: tuple[str, ...]
    """Places in the configuration, see `Config.place`."""


def plan(running: Config, machines: Mapping[str, Machine], wanted: Config, loaded: Iterable[Machine]) -> Plan:
    """Compare what runs with what shall.

    Args:
        running: what the daemon was started with; what its machines took up since is in their settings.
        machines: those that run, by name.
        wanted: the new configuration.
        loaded: its machines, in its order.
    """
    swaps = []
    keys = [key for key in _differences(running, wanted) if key != ("machines",)]
    for number, new in enumerate(loaded):
        old = machines.get(new.name)
        if old is None:
            keys.append(("machines", number))
            continue
        changes = _changes(old.pipeline, new.pipeline)
        if any(_needs_restart(key, old, new) for key in _machine_differences(old, new)):
            keys += (("machines", number, *key) for key in _machine_differences(old, new))
        elif changes or old.settings != new.settings:
            swaps.append(Swap(old, new.settings, new.pipeline, changes))
    places = [wanted.place(*key) for key in keys]
    gone = sorted(machines.keys() - {m.name for m in wanted.machines})
    places += [f"{wanted.place('machines')}: {name} is no longer there" for name in gone]
    return Plan(tuple(swaps), tuple(places))


def _differences(old: Section, new: Section) -> Iterator[Key]:
    """Keys whose values differ, as deep as both have sections."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Section) and isinstance(after, Section):
            yield from ((name, *rest) for rest in _differences(before, after))
        elif before != after:
            yield (name,)


def _machine_differences(old: Machine, new: Machine) -> list[Key]:
    """Keys of a machine whose values differ; its detectors count as different where the files' content does."""
    # How a machine's standstill is told is one choice, whatever keys say it.
    found = _differences(old.settings, new.settings)
    keys = list(dict.fromkeys(key[:1] if key[0] == "active_when" else key for key in found))
    if ("detectors",) not in keys and _content(old.pipeline) != _content(new.pipeline):
        keys.append(("detectors",))
    return keys


def _needs_restart(key: Key, old: Machine, new: Machine) -> bool:
    if key[0] == "active_when":  # topics are subscribed to at the connection
        gates = old.settings.active_when, new.settings.active_when
        return any(gate is not None and gate.topic is not None for gate in gates)
    if key[0] == "detectors":
        return (old.pipeline.sample_rate, old.pipeline.window) != (new.pipeline.sample_rate, new.pipeline.window)
    return key[0] not in _LIVE


def _changes(old: Pipeline, new: Pipeline) -> tuple[str, ...]:
    has_others = _content(old) != _content(new)  # which bring a calibration of their own
    differs = {
        "detectors": has_others,
        "calibration": not has_others
        and [d.calibration for d in old.detectors] != [d.calibration for d in new.detectors],
        "alarm": old.rule != new.rule,
        "active_when": old.active_above_dbfs != new.active_above_dbfs,
    }
    return tuple(name for name, is_different in differs.items() if is_different)


def _content(pipeline: Pipeline) -> list[tuple[str, str, str]]:
    return [(d.name, d.machine_id, d.detector.sha256) for d in pipeline.detectors]
