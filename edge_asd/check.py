"""``edge-asd check``: will this configuration work on this computer? A list of checks, each a line to act on."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_asd.check_broker import check_broker
from edge_asd.check_clock import check_clock, kernel_clock
from edge_asd.check_files import check_folders, check_secrets
from edge_asd.check_metrics import check_metrics
from edge_asd.check_names import check_names
from edge_asd.check_sound import check_device, check_recordings
from edge_asd.check_time import Part, check_time
from edge_asd.check_unit import check_unit
from edge_asd.config import Config
from edge_asd.config_file import instance_name, load_config
from edge_asd.cores import allowed_cores, scoring_cores
from edge_asd.errors import EXIT_CONFIGURATION, EXIT_DONE, DetectorError, EdgeAsdError
from edge_asd.finding import Finding, State
from edge_asd.instances import running_instances
from edge_asd.machine import load_machines
from edge_asd.publish.journal import Level, is_journal, priority
from edge_asd.publish.log import Log
from edge_asd.startable import verify_startable
from edge_asd.state_folder import folder_of, state_folder_in_use
from edge_asd.unit import Unit, secrets_of, unit_of
from edge_asd.verification import load_detector

SCHEMA = 1
_LEVELS: dict[State, Level] = {"ok": "info", "warning": "warning", "failed": "error"}
"""In the journal."""


@dataclass
class Subject:
    """What is checked; the first check fills it."""

    paths: list[Path]
    """Configurations."""
    state: Path | None
    """State folder of those, where one was given."""
    publish: bool = False
    """Send a test message to the broker."""
    configs: list[tuple[Path, Config]] = field(default_factory=list)
    """Those that could be read, whatever their detectors are like; secrets where the units take them from."""
    rates: dict[Path, int] = field(default_factory=dict)
    """Hz, the highest that a detector was made for that hears the device."""
    units: dict[Path, Unit] = field(default_factory=dict)
    """That daemons of these configurations are to run in, where they are known."""
    parts: list[Part] = field(default_factory=list)
    """Those that could be read, then the daemons that run now."""
    running: dict[Path, int] = field(default_factory=dict)
    """Processes of the daemons that run now with one of these configurations, by its resolved path."""
    others: list[tuple[Path, Config]] = field(default_factory=list)
    """Of the other daemons that run now."""
    has_failed: bool = False
    """Something that was found until now."""
    uncounted: list[str] = field(default_factory=list)
    """Daemons that run, and why their work is not known."""


def check_configuration(subject: Subject) -> Iterator[Finding]:
    """Each configuration and its detectors, as ``run`` would load them."""
    for path in subject.paths:
        said, config = _Said(), None
        try:
            config = load_config(path)
            unit = unit_of(path)
            if unit is not None:
                subject.units[path] = unit
                config = unit.with_credentials(config)
            subject.configs.append((path, config))
            part = _part(config, path.name, state_folder_in_use(path, subject.state), said)
        except EdgeAsdError as error:
            lines = str(error).splitlines() + ([] if config is None else _detectors_that_fail(config))
            for line in dict.fromkeys(lines):
                yield Finding("configuration", "failed", line if line.startswith(str(path)) else f"{path}: {line}")
            continue
        subject.parts.append(part)
        subject.rates[path] = max((m.pipeline.sample_rate for m in part.machines if m.settings.channel), default=0)
        detectors = len({d.detector.sha256 for m in part.machines for d in m.pipeline.detectors})
        text = f"{path}: {_count(len(part.machines), 'machine')}, {_count(detectors, 'distinct detector')}"
        yield Finding("configuration", "ok", text)
        yield from said.findings()


def check_start(subject: Subject) -> Iterator[Finding]:
    """What else would keep each from starting; `check_surroundings` looks at more, and says more of it."""
    for _, config in subject.configs:
        try:
            verify_startable(config)
        except EdgeAsdError as error:
            for line in str(error).splitlines():
                yield Finding("configuration", "failed", line)


def check_daemons(subject: Subject) -> Iterator[Finding]:
    """The same of the daemons that run now: their work counts too."""
    given = {os.path.realpath(path) for path in subject.paths}
    for instance in running_instances():
        name = f"the daemon that runs as pid {instance.pid}"
        reason = instance.reason
        if instance.config is not None:
            real = os.path.realpath(instance.config)
            if real in given:
                subject.running[Path(real)] = instance.pid
                continue
            name = f"{name} ({instance.config})"
            try:
                config = load_config(instance.config)
                subject.others.append((instance.config, config))
                subject.parts.append(_part(config, name, folder_of(instance), _Said()))
            except EdgeAsdError as error:
                reason = str(error).splitlines()[0]
        if reason is not None:
            subject.uncounted.append(name)
            yield Finding("daemons", "warning", f"{name} is not counted: {reason}")
        else:
            yield Finding("daemons", "ok", f"{name} is counted")


def check_neighbours(subject: Subject) -> Iterator[Finding]:
    """Whether they get into each other's way, or into that of daemons that run now."""
    yield from check_names(subject.configs, subject.others)


def check_scoring(subject: Subject) -> Iterator[Finding]:
    """Whether all of it is scored in time."""
    if subject.parts:
        yield from check_time(subject.parts, len(subject.paths), subject.uncounted)


def check_surroundings(subject: Subject) -> Iterator[Finding]:
    """What the daemons need from this computer and the plant: the clock, secrets, folders, sound, the broker."""
    yield from check_clock(kernel_clock())
    for path, config in subject.configs:
        unit = subject.units.get(path)
        if unit is not None:
            yield from check_unit(config, unit)
        yield from check_secrets(config, unit)
        yield from check_folders(config, state_folder_in_use(path, subject.state))
        yield from check_recordings(config)
        yield from check_device(config, wanted=subject.rates.get(path))
        yield from check_metrics(config, unit, subject.running.get(Path(os.path.realpath(path))))
        elsewhere = [] if unit is None else [s for s in secrets_of(config.mqtt) if unit.is_elsewhere(s)]
        if elsewhere:
            names = ", ".join(s.name for s in elsewhere)
            yield Finding("broker", "warning", f"{config.place('mqtt')}: not tried, as {names} is not here")
        else:
            yield from check_broker(config, instance_name(path), publish=subject.publish)


def check_rest(subject: Subject) -> Iterator[Finding]:
    """What else would keep them from starting, where nothing that was found does: else it would be said twice."""
    units = [(subject.units.get(path), config) for path, config in subject.configs]
    secrets = [
        (u, s) for u, config in units if u is not None for s in secrets_of(config.mqtt) + secrets_of(config.metrics)
    ]
    if not subject.has_failed and not any(unit.is_elsewhere(secret) for unit, secret in secrets):
        yield from check_start(subject)


Check = Callable[[Subject], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    check_configuration,
    check_daemons,
    check_neighbours,
    check_surroundings,
    check_scoring,
    check_rest,
)
"""In this order; each tells what it finds as it finds it."""

ONLY_CONFIGURATION: tuple[Check, ...] = (check_configuration, check_start)
"""What a reload asks."""


def check(options: argparse.Namespace) -> int:
    """Check, and print; returns the exit status."""
    paths = list({os.path.realpath(path): path for path in options.config}.values())
    subject = Subject(paths, options.state, options.publish)
    findings = []
    for one in ONLY_CONFIGURATION if options.only_configuration else CHECKS:
        for finding in one(subject):
            findings.append(finding)
            subject.has_failed |= finding.state == "failed"
            if not options.json:
                print(f"{_head(finding)}{finding.state:<8} {finding.check:<14} {finding.text}", flush=True)
    if options.json:
        document = {"schema": SCHEMA, "passed": not subject.has_failed, "findings": [asdict(f) for f in findings]}
        print(json.dumps(document, indent=1))
    return EXIT_CONFIGURATION if subject.has_failed else EXIT_DONE


def _head(finding: Finding) -> str:
    """The journal reads what ExecReload= prints."""
    return priority(_LEVELS[finding.state]) if is_journal(sys.stdout) else ""


def _part(config: Config, name: str, state: Path | None, said: _Said) -> Part:
    machines = load_machines(config, "check", said.log, None, state)
    rate = None if config.device is None else config.device.rate
    return Part(name, machines, min(scoring_cores(config), allowed_cores()), rate)


def _detectors_that_fail(config: Config) -> list[str]:
    """Loading stops at the first; whoever mends them wants to know them all."""
    reasons: dict[Path, str | None] = {}
    lines = []
    for number, machine in enumerate(config.machines):
        for index, entry in enumerate(machine.detectors):
            if entry.file not in reasons:
                try:
                    load_detector(entry.file)
                    reasons[entry.file] = None
                except DetectorError as error:
                    reasons[entry.file] = str(error)
            if reasons[entry.file] is not None:
                lines.append(f"{config.place('machines', number, 'detectors', index)}: {reasons[entry.file]}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Said:
    """What loading says in the log, of calibrations above all, is a finding here."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.log = Log(self._stream)

    def findings(self) -> Iterator[Finding]:
        """Everything that was said until now."""
        self.log.close()
        for line in self._stream.getvalue().splitlines():
            event = json.loads(line)
            who = " ".join(event[k] for k in ("machine", "detector") if k in event)
            if event["event"] == "calibration":
                text = f"{who}: of this site, {event['windows']} windows: {event['file']}"
                yield Finding("calibration", "ok", text)
            elif event["event"] == "calibration_not_used":
                yield Finding("calibration", "warning", f"{who}: {event['reason']}")
            elif event["event"] == "operating_point":
                yield Finding("alarm", "ok", f"{who}: {event['text']}")
