"""`edge-asd calibrate`: what is rare for a machine, from the site's own normal sound."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_asd.alarm import AlarmRule
from edge_asd.calibrate_output import Outcome, complain, print_outcome
from edge_asd.calibration import MIN_SCORES, Calibration
from edge_asd.config import Config, MachineSection
from edge_asd.config_file import load_config
from edge_asd.detector import Detector
from edge_asd.errors import (
    EXIT_DONE,
    EXIT_SOME_FAILED,
    ConfigurationError,
    DetectorError,
    UsageError,
)
from edge_asd.hearing import NormalSound, hear, progress
from edge_asd.normal_sound import find_normal_sound
from edge_asd.operating_point import OperatingPoint, incident_rate, operating_point, with_uncertainty
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.site_calibration import (
    CalibrationInUse,
    SiteCalibration,
    calibration_in_use,
    site_calibration_path,
    write_site_calibration,
)
from edge_asd.state_folder import state_folder_in_use
from edge_asd.verification import load_detector

_MOST_GIGABYTES = 5.0
"""That listening may take up."""


@dataclass(frozen=True)
class _Member:
    """A detector of the machine, and where its calibrations are."""

    file: Path
    used: MachineDetector
    now: CalibrationInUse
    path: Path
    """Of the new calibration."""


def calibrate(options: argparse.Namespace) -> int:
    """Calibrate as the command line says; returns the exit status: 1 where some recordings could not be read.

    Raises:
        UsageError: no such machine, no sound, or too little of it.
        ConfigurationError: the configuration, a detector or the alarm.
    """
    if options.channel is not None and options.channel < 1:
        raise UsageError(f"--channel {options.channel}: channels are counted from 1")
    config = load_config(options.config)
    settings = _machine(config, options.machine)
    state = state_folder_in_use(options.config, options.state)
    members = _members(config, settings, state)
    if not options.sound and settings.recordings is None:
        if options.hours is None:
            raise UsageError(
                f"calibrate: --from says where normal sound of {settings.name} is: record it with `edge-asd record`, "
                "or give --hours to listen now"
            )
        return _listen(config, settings, members, state, options)
    if options.hours is not None:
        raise UsageError("calibrate: --hours is for listening to the device; there are recordings to take instead")
    return _calibrate(config, settings, members, options.sound or [settings.recordings], options)


def _listen(
    config: Config, settings: MachineSection, members: Sequence[_Member], state: Path, options: argparse.Namespace
) -> int:
    """Record first, into a folder that is kept where one was given."""
    from edge_asd.audio.quiet import filter_standard_error
    from edge_asd.recorder import Order, Recorder

    filter_standard_error()
    with tempfile.TemporaryDirectory(prefix="edge-asd-") as passing:
        out = options.out or Path(passing)
        order = Order(settings.name, "id_00", options.hours, out, _MOST_GIGABYTES, is_for_training=False)
        status = Recorder(config, order, state).run()
        if status != EXIT_DONE:
            return status
        return _calibrate(config, settings, members, [out], options)


def _calibrate(
    config: Config,
    settings: MachineSection,
    members: Sequence[_Member],
    paths: Sequence[Path],
    options: argparse.Namespace,
) -> int:
    place = config.place("machines", config.machines.index(settings), "alarm")
    used = [m.used for m in members]
    clips, others = find_normal_sound(paths, settings.name, frozenset(u.machine_id for u in used))
    channel = options.channel or settings.recording_channel
    gate = settings.active_when.gate if settings.active_when else None
    window_seconds = used[0].detector.metadata.window_seconds
    try:
        # Its alarm is not looked at: a threshold of any kind saves looking for one.
        pipeline = Pipeline(used, AlarmSettings(threshold=1.0), hop_seconds=window_seconds, active_above_dbfs=gate)
    except DetectorError as error:
        raise ConfigurationError(str(error)) from None
    trained = frozenset(digest for u in used for digest in _trained_on(u.detector) or ())
    sound = hear(clips, pipeline, trained, channel, progress)
    progress("")
    if others:
        sound.left_out["of other machines"] += others
    for failure in sound.failed:
        complain(str(failure))
    if len(sound.scores) < MIN_SCORES:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sound.left_out.items()) or "none"
        gated = f" (below {pipeline.active_above_dbfs:.1f} dBFS, see active_when)" if sound.left_out["idle"] else ""
        raise UsageError(
            f"calibrate: {len(sound.scores)} normal windows remain of {len(clips)} clips; at least {MIN_SCORES} are "
            f"needed; left out: {reasons}{gated}; not readable: {len(sound.failed)}"
        )
    source = ", ".join(str(p) for p in paths) if options.hours is None else "listened to the device"
    source = f"edge-asd calibrate: {source}"
    new: list[Calibration] = []
    for number, member in enumerate(members):
        try:
            new.append(sound.calibration(number, source))
        except ValueError as error:
            raise UsageError(f"calibrate: {member.file}: {error}") from None
    print_outcome(_outcome(settings, members, new, sound, place))
    _write(settings, members, new, is_dry=options.dry_run)
    return EXIT_SOME_FAILED if sound.failed else EXIT_DONE


def _trained_on(detector: Detector) -> list[str] | None:
    """Digests of the clips it was trained on; None where its file does not say, or not as it should."""
    said = detector.metadata.data.get("clips_sha256")
    if not isinstance(said, list) or not all(isinstance(digest, str) for digest in said):
        return None
    return said


def _outcome(
    settings: MachineSection, members: Sequence[_Member], new: list[Calibration], sound: NormalSound, place: str
) -> Outcome:
    old = [m.used.calibration for m in members]
    progress("how uncertain the operating points are: this takes a minute")
    try:
        before, rule_before = _point(old, settings)
        after, rule_after = _point(new, settings)
        rate_before = incident_rate(new, rule_before, settings.hop_seconds, judged_by=old)
        rate_after = after.rate if after and after.rate else incident_rate(new, rule_after, settings.hop_seconds)
    except ValueError as error:
        raise ConfigurationError(f"{place}: {error}") from None
    finally:
        progress("")
    return Outcome(
        machine=settings.name,
        settings=settings.alarm.settings(),
        hop_seconds=settings.hop_seconds,
        sound=sound,
        names=[m.file.name for m in members],
        unchecked=[m.file.name for m in members if _trained_on(m.used.detector) is None],
        now=[m.now for m in members],
        new=new,
        before=before,
        after=after,
        rule_before=rule_before,
        rule_after=rule_after,
        rate_before=rate_before,
        rate_after=rate_after,
    )


def _point(calibrations: Sequence[Calibration], settings: MachineSection) -> tuple[OperatingPoint | None, AlarmRule]:
    """The operating point, None where the threshold is fixed, and the rule at it."""
    alarm = settings.alarm.settings()
    if alarm.threshold is not None:
        return None, alarm.rule()
    rule, hop = alarm.rule(), settings.hop_seconds
    point = operating_point(tuple(calibrations), rule, hop, alarm.false_alarms_per_day)
    return with_uncertainty(point, calibrations, rule, hop), alarm.rule(point.threshold)


def _write(settings: MachineSection, members: Sequence[_Member], new: Sequence[Calibration], *, is_dry: bool) -> None:
    for member, calibration in zip(members, new, strict=True):
        if is_dry:
            print(f"not written, as --dry-run says: {member.path}")
            continue
        document = SiteCalibration(
            sha256=member.used.detector.sha256,
            machine=settings.name,
            id=member.used.machine_id,
            calibration=calibration,
        )
        former = write_site_calibration(member.path, document)
        print(f"written: {member.path}" + (f" (the former one is now {former.name})" if former else ""))
    if not is_dry:
        print("the daemon takes it at its next start or reload")


def _machine(config: Config, name: str) -> MachineSection:
    for number, machine in enumerate(config.machines):
        if machine.name == name:
            if not machine.detectors:
                place = config.place("machines", number)
                raise ConfigurationError(f"{place}: {name} has no detectors: there is nothing to calibrate")
            return machine
    raise UsageError(
        f"calibrate: the configuration has no machine {name!r}; it has {', '.join(m.name for m in config.machines)}"
    )


def _members(config: Config, settings: MachineSection, state: Path) -> list[_Member]:
    number = config.machines.index(settings)
    members = []
    for index, entry in enumerate(settings.detectors):
        try:
            detector = load_detector(entry.file)
            used = MachineDetector.of(detector, entry.id, entry.file.name)
        except DetectorError as error:
            raise ConfigurationError(f"{config.place('machines', number, 'detectors', index)}: {error}") from None
        now = CalibrationInUse(used.calibration, None)
        try:
            now = calibration_in_use(detector, entry.file, settings.name, used.machine_id, state)
        except ConfigurationError as error:
            complain(f"{error}")  # a new one is how that is mended
        for reason in now.ignored:
            complain(f"not used: {reason}")
        path = site_calibration_path(entry.file, settings.name, state)
        members.append(_Member(entry.file, used.calibrated(now.calibration), now, path))
    return members
