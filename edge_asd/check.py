"""``edge-asd check``: will this configuration work on this computer? A list of checks, each a line to act on."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_asd.check_time import Part, check_time
from edge_asd.config_file import load_config
from edge_asd.cores import allowed_cores, scoring_cores
from edge_asd.errors import EXIT_CONFIGURATION, EXIT_DONE, EdgeAsdError
from edge_asd.finding import Finding
from edge_asd.instances import running_instances
from edge_asd.machine import load_machines
from edge_asd.publish.log import Log
from edge_asd.site_calibration import state_folder

SCHEMA = 1


@dataclass
class Subject:
    """What is checked; the first check fills it."""

    paths: list[Path]
    """Configurations."""
    state: Path | None
    """State folder of those."""
    parts: list[Part] = field(default_factory=list)
    """Those that could be read, then the daemons that run now."""
    uncounted: list[str] = field(default_factory=list)
    """Daemons that run, and why their work is not known."""


def check_configuration(subject: Subject) -> Iterator[Finding]:
    """Each configuration and its detectors, as ``run`` would load them, and those of the daemons that run now."""
    quiet = Log(_Nowhere())
    for path in subject.paths:
        try:
            part = _part(path, path.name, subject.state, quiet)
        except EdgeAsdError as error:
            for line in str(error).splitlines():
                yield Finding("configuration", "failed", line if line.startswith(str(path)) else f"{path}: {line}")
            continue
        subject.parts.append(part)
        detectors = len({d.detector.sha256 for m in part.machines for d in m.pipeline.detectors})
        text = f"{path}: {_count(len(part.machines), 'machine')}, {_count(detectors, 'distinct detector')}"
        yield Finding("configuration", "ok", text)
    given = {path.resolve() for path in subject.paths}
    for instance in running_instances():
        name = f"the daemon that runs as pid {instance.pid}"
        reason = instance.reason
        if instance.config is not None:
            if instance.config.resolve() in given:
                continue
            name = f"{name} ({instance.config})"
            try:
                subject.parts.append(_part(instance.config, name, instance.state, quiet))
            except EdgeAsdError as error:
                reason = str(error).splitlines()[0]
        if reason is not None:
            subject.uncounted.append(name)
            yield Finding("daemons", "warning", f"{name} is not counted: {reason}")
        else:
            yield Finding("daemons", "ok", f"{name} is counted")


def check_scoring(subject: Subject) -> Iterator[Finding]:
    """Whether all of it is scored in time."""
    if subject.parts:
        yield from check_time(subject.parts, len(subject.paths), subject.uncounted)


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (check_configuration, check_scoring)
"""In this order; each tells what it finds as it finds it."""


def check(options: argparse.Namespace) -> int:
    """Check, and print; returns the exit status."""
    paths = list({path.resolve(): path for path in options.config}.values())
    subject = Subject(paths, options.state or state_folder())
    findings = []
    for one in CHECKS:
        for finding in one(subject):
            findings.append(finding)
            if not options.json:
                print(f"{finding.state:<8} {finding.check:<14} {finding.text}", flush=True)
    has_failed = any(f.state == "failed" for f in findings)
    if options.json:
        document = {"schema": SCHEMA, "passed": not has_failed, "findings": [asdict(f) for f in findings]}
        print(json.dumps(document, indent=1))
    return EXIT_CONFIGURATION if has_failed else EXIT_DONE


def _part(path: Path, name: str, state: Path | None, log: Log) -> Part:
    config = load_config(path)
    machines = load_machines(config, "check", log, None, state)
    rate = None if config.device is None else config.device.rate
    return Part(name, machines, min(scoring_cores(config), allowed_cores()), rate)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Nowhere(io.StringIO):
    """What loading says in the log is said by the checks, or is no news here."""

    def write(self, text: str) -> int:
        return len(text)
