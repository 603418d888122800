"""When a machine that is being recorded counts as running: as the daemon has it, as far as a level decides."""

from __future__ import annotations

from pathlib import Path

from edge_asd.calibration import learned_gate
from edge_asd.config import Config, MachineSection
from edge_asd.errors import ConfigurationError
from edge_asd.site_calibration import calibration_in_use
from edge_asd.verification import load_detector


def recording_gate(config: Config, machine: MachineSection, state: Path | None) -> float | None:
    """Level in dBFS from which its windows are recorded; None where all are.

    Args:
        config: that the machine is of.
        machine: to be recorded.
        state: where the site's calibrations may lie.

    Raises:
        ConfigurationError: a learned gate without a detector; or a topic decides, which nobody hears meanwhile: what
            a machine that stands still sounds like must not be learned as normal.
    """
    if machine.active_when is None:
        return None
    gate = machine.active_when.gate
    place = config.place("machines", config.machines.index(machine), "active_when")
    if machine.active_when.topic is not None:
        raise ConfigurationError(
            f"{place}: nobody hears MQTT topics while sound is recorded; give level_above_dbfs or learned instead, or "
            "leave active_when out for that and see that the machine runs"
        )
    if gate != "learned":
        return gate
    if not machine.detectors:
        raise ConfigurationError(f"{place}: learned needs a detector; give level_above_dbfs until there is one")
    entry = machine.detectors[0]
    detector = load_detector(entry.file)
    machine_id = detector.metadata.ids[detector.index_of(entry.id)]
    return learned_gate(calibration_in_use(detector, entry.file, machine.name, machine_id, state).calibration)
