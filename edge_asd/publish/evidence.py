"""What convinces people of an incident: a picture of the sound that raised it and, where that is allowed, the sound.

Made on the thread that scored the window, before the incident is told. Whatever the disk does, the alert goes out: it
waits for the disk for some seconds at most, and says where the evidence lies, or that there is none.
"""

from __future__ import annotations

import contextlib
import grp
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_asd.audio.windows import Window
from edge_asd.clock import boot_time
from edge_asd.config import Config
from edge_asd.config_publish import EvidenceSection
from edge_asd.errors import ConfigurationError
from edge_asd.pipeline import Reading
from edge_asd.publish.evidence_folder import BudgetError, EvidenceFolder, ShortDiskError, SkippedReason, is_full
from edge_asd.publish.incident_clip import HeardLately, encode
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.patience import Patience

if TYPE_CHECKING:  # Pillow is loaded when there is something to draw; the payloads in turn know Evidence
    from edge_asd.machine import Machine
    from edge_asd.publish.payloads import MachineState
    from edge_asd.report.picture import Where

_DISK_SECONDS = 3.0
"""An alert waits no longer than this for the disk."""
_MOST_BEHIND_HOPS = 1.0
"""When many machines are struck at once: whoever draws while windows wait makes them late."""


@dataclass(frozen=True)
class Evidence:
    """What there is of an incident."""

    picture: Path | None = None
    clip: Path | None = None
    where: Where | None = None
    """Bands and seconds that carried the score of the window that raised it, as its rarest detector has it."""


class EvidenceKeeper:
    """Takes every window and its reading; may be used from any thread, for one machine in order."""

    def __init__(
        self,
        section: EvidenceSection,
        folder: EvidenceFolder | None,
        states: Iterable[MachineState],
        log: Log,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            section: what shall be kept.
            folder: where; None for nowhere.
            states: of the machines; their open incidents lose their evidence last.
            log: told once of evidence that could not be kept, until it can again.
            metrics: likewise, each time.
        """
        self._folder, self._log, self._metrics = folder, log, metrics
        self._states = {state.place.machine: state for state in states}
        self._pictures = section.pictures and folder is not None
        self._heard: dict[str, HeardLately] = {}
        if section.clips and folder is not None:
            self._heard = {
                name: HeardLately(state.pipeline, section.before_seconds, len(self._states))
                for name, state in self._states.items()
            }
        self._told: set[tuple[str, SkippedReason]] = set()
        self._patience = Patience(_DISK_SECONDS)
        if folder is not None:
            self._start(folder)

    @classmethod
    def of(cls, config: Config, state: Path, machines: Iterable[Machine], log: Log, metrics: Metrics) -> EvidenceKeeper:
        """As the configuration wants it.

        Args:
            config: of the daemon.
            state: its state folder.
            machines: of the daemon.
            log: as above, like ``metrics``.

        Raises:
            ConfigurationError: the group cannot be given anything.
        """
        section, states = config.evidence or EvidenceSection(), [machine.state for machine in machines]
        if not (section.pictures or section.clips):
            return cls(section, None, states, log, metrics)
        try:
            group = evidence_group(section)
        except ConfigurationError as error:
            raise ConfigurationError(f"{config.place('evidence', 'group')}: {error}") from None
        place = section.folder or state.absolute() / "evidence"
        folder = EvidenceFolder(place, most_bytes=round(section.keep_megabytes * 1e6), group=group)
        return cls(section, folder, states, log, metrics)

    def take(self, machine: str, window: Window, reading: Reading) -> Evidence | None:
        """Take the next window of a machine.

        Returns:
            Where an incident was raised: what shows it, as far as it could be kept. Where one was cleared: what is
            still there of it. Otherwise None.
        """
        try:
            if machine in self._heard:
                self._heard[machine].hear(window, reading)
            if reading.event is None:
                return None
            if reading.event.event == "raised":
                return self._raised(machine, window, reading, reading.event.incident)
            return self._found(machine, reading.event.incident)
        except Exception as error:  # whatever it is, the alert goes out
            self._skip(machine, "evidence", "error", repr(error))
            return None

    def _start(self, folder: EvidenceFolder) -> None:
        """What crashes left goes; a disk that cannot be written keeps nobody from listening."""
        try:
            self._patience.do(lambda: folder.tidy(self._open_incidents()))
        except OSError as error:
            self._log("evidence_skipped", "warning", reason="error", error=f"{folder.folder}: {_text(error)}")
        self._metrics.evidence_bytes.set(folder.bytes)
        seconds = min((heard.ring.seconds for heard in self._heard.values()), default=0.0)
        self._log(
            "evidence", folder=str(folder.folder), bytes=folder.bytes, pictures=self._pictures, clip_seconds=seconds
        )

    def _raised(self, machine: str, window: Window, reading: Reading, incident: str) -> Evidence:
        from edge_asd.report.incident_picture import incident_picture
        from edge_asd.report.picture import where

        state = self._states[machine]
        explanation = state.pipeline.explain(window)
        rarest = max(reading.detectors, key=lambda d: d.rarity)
        strong = where(explanation.maps[rarest.name], explanation.parameters)
        end = state.utc(reading.end)
        facts = {"Title": machine, "Incident": incident, "Source": "edge_asd"}
        picture = clip = None
        behind = boot_time() - state.time_of(reading.end)
        if self._pictures and behind > _MOST_BEHIND_HOPS * state.pipeline.hop_seconds:
            self._skip(machine, "png", "budget", f"scoring is {behind:.1f} s behind: there is no time to draw")
        elif self._pictures:
            draw = partial(incident_picture, machine, end, reading, explanation, window.samples, facts)
            picture = self._keep(machine, incident, end, "png", draw)
        heard = self._heard[machine].clip(reading) if machine in self._heard else None
        if heard is not None:
            sound = partial(encode, heard, reading.sample_rate, machine, incident, end)
            clip = self._keep(machine, incident, end, "flac", sound)
        return Evidence(picture, clip, strong)

    def _found(self, machine: str, incident: str) -> Evidence:
        folder = self._folder
        found: dict[str, Path] = {}
        if folder is not None:
            with contextlib.suppress(OSError):
                found = self._patience.do(lambda: folder.find(machine, incident))
        return Evidence(found.get("png"), found.get("flac"))

    def _keep(self, machine: str, incident: str, end: datetime, kind: str, make: Callable[[], bytes]) -> Path | None:
        """Make and write a file; None where it could not be kept."""
        folder = self._folder
        assert folder is not None  # without one, nothing is made
        try:
            content = make()
            path = self._patience.do(
                lambda: folder.write(machine, incident, end, kind, content, self._open_incidents())
            )
        except BudgetError as error:
            self._skip(machine, kind, "budget", str(error))
        except ShortDiskError as error:
            self._skip(machine, kind, "disk", str(error))
        except OSError as error:
            is_short = is_full(error) or isinstance(error, TimeoutError)
            self._skip(machine, kind, "disk" if is_short else "error", f"{folder.folder}: {_text(error)}")
        except Exception as error:  # the other file, and what the event says, are still worth having
            self._skip(machine, kind, "error", repr(error))
        else:
            self._told = {told for told in self._told if told[0] != kind}
            self._metrics.evidence_bytes.set(folder.bytes)
            return path
        return None

    def _skip(self, machine: str, kind: str, reason: SkippedReason, text: str) -> None:
        self._metrics.evidence_skipped.labels(reason).inc()
        if (kind, reason) not in self._told:
            self._told |= {(kind, reason)}
            self._log("evidence_skipped", "warning", machine=machine, kind=kind, reason=reason, error=text)

    def _open_incidents(self) -> set[str]:
        return {incident for state in self._states.values() if (incident := state.pipeline.alarm.incident) is not None}


def evidence_group(section: EvidenceSection) -> int | None:
    """Id of the group that shall read what is kept; None where there is none, or nothing is kept.

    Raises:
        ConfigurationError: nothing can be given to it.
    """
    name = section.group
    if name is None or not (section.pictures or section.clips):
        return None
    try:
        number = grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigurationError(f"there is no group {name} on this computer") from None
    if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
        raise ConfigurationError(
            f"the daemon's user is not in group {name}; SupplementaryGroups={name} and PrivateUsers=no of a unit help"
        )
    return number


def _text(error: OSError) -> str:
    return error.strerror or str(error)
