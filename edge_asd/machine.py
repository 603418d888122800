"""The machines of a daemon, and where each one's sound comes from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.guard import Guard
from edge_asd.audio.microphone import Microphone
from edge_asd.audio.player import RecordingPlayer
from edge_asd.audio.recording import find_recordings
from edge_asd.audio.stream import DeviceStreams, MachineStream
from edge_asd.audio.windows import Window
from edge_asd.clock import boot_time
from edge_asd.config import Config, DetectorEntry, DeviceSection, MachineSection
from edge_asd.detector import Detector
from edge_asd.errors import ConfigurationError, DetectorError, RecordingError
from edge_asd.pause import Pause
from edge_asd.pipeline import MachineDetector, Pipeline, Reading
from edge_asd.publish.journal import Level
from edge_asd.publish.log import Log
from edge_asd.publish.payloads import MachineState, Place
from edge_asd.site_calibration import calibration_in_use
from edge_asd.verification import load_detector

_MOST_AT_ONCE_SECONDS = 20.0
_MOST_APART_SECONDS = 0.1
"""From the start of one machine's recordings to the next one's."""
_BLOCK_SECONDS = 0.5
"""Recordings are played in blocks of this length at least."""
_BURST_SECONDS = 20.0
"""Sound that a device may give at once after a pause: what the ledger holds back at most."""

Heard = tuple["Machine", Window]


class Machine:
    """One machine: its pipeline, its stream, and what was last said of it."""

    def __init__(self, settings: MachineSection, pipeline: Pipeline, place: Place) -> None:
        self.name = settings.name
        self.settings = settings
        self.pipeline = pipeline
        self.stream = MachineStream(pipeline.cutter(), pipeline.sample_rate)
        self.state = MachineState(place, pipeline)
        self.turn = threading.Lock()
        """Held while a window is scored and told of: until then, its pipeline stays what it is."""
        self.due = time.monotonic()
        """When the next window is to be done with, on the monotonic clock."""
        self.has_ended = False
        """Its recordings were played to the end."""
        self.maintenance = Pause()
        """The alarm does not hear of its windows."""
        self.standstill = Pause()
        """A topic says that it does not run."""

    def read(self, window: Window) -> Reading:
        """Score a window, unless the machine stands still; the alarm decides, unless it is in maintenance by then.

        Raises:
            DetectorError: a detector cannot score it.
        """
        began = self.state.time_of(window.start)
        return self.pipeline.read(
            window, stands_still=self.standstill.covers(began), is_held=lambda: self.maintenance.covers(began)
        )

    @property
    def in_a_burst(self) -> int:
        """Windows that a device may give at once after a pause, and that can still be scored."""
        return round(_BURST_SECONDS / self.pipeline.hop_seconds) if self.settings.channel is not None else 0


class RecordingFeed:
    """Plays the recordings of one machine in real time."""

    def __init__(self, machine: Machine, log: Log) -> None:
        """Raises RecordingError where there are none."""
        assert machine.settings.recordings is not None  # the configuration says so of machines without a channel
        self.machine = machine
        self.has_failed = False
        """A recording could not be read."""
        self._log = log
        self._began = boot_time()
        self._delay, self._told_delay = 0.0, 1.0
        self._player = RecordingPlayer(
            find_recordings([machine.settings.recordings]),
            sample_rate=machine.pipeline.sample_rate,
            channel=machine.settings.recording_channel,
            repeat=machine.settings.repeat,
            on_failure=self._note_failure,
        )

    def start(self, delay_seconds: float = 0.0) -> None:
        """The first sample is heard now, or a little later."""
        self._began = boot_time() + delay_seconds
        self.machine.state.time_of = lambda position: self._began + position / self.machine.pipeline.sample_rate

    def take(self) -> Iterator[Heard]:
        """Windows that became due. Exhaust the iterator."""
        rate, given = self.machine.pipeline.sample_rate, self._player.given
        # The computer may have slept: what was not played then is not made up for.
        skipped = boot_time() - given / rate - _MOST_AT_ONCE_SECONDS - self._began
        if skipped > 0:
            self._began += skipped
            self._note_delay(skipped)
        due = int((boot_time() - self._began) * rate)
        # A hundred machines in blocks of one tick each would cost more than it gains.
        if due < given + _BLOCK_SECONDS * rate:
            return
        samples = self._player.take(due)
        if samples.size:
            for window in self.machine.stream.push(given, rate, samples):
                yield self.machine, window

    @property
    def has_ended(self) -> bool:
        """Everything was played."""
        return self._player.has_ended

    @property
    def seconds(self) -> float:
        """Played so far."""
        return self._player.given / self.machine.pipeline.sample_rate

    def _note_delay(self, seconds: float) -> None:
        """The computer slept, or had no time even to listen; told each time that it has doubled."""
        self._delay += seconds
        if self._delay >= self._told_delay:
            self._told_delay = 2 * max(self._delay, 1.0)
            self._log("recordings_delayed", "warning", machine=self.machine.name, seconds=round(self._delay, 1))

    def _note_failure(self, error: RecordingError) -> None:
        self.has_failed = True
        self._log("recording_failed", "error", machine=self.machine.name, error=str(error))


def recording_feeds(config: Config, machines: Iterable[Machine], log: Log) -> list[RecordingFeed]:
    """Of the machines that have recordings; raises ConfigurationError where there are none to play."""
    feeds = []
    for number, machine in enumerate(machines):
        if machine.settings.recordings is not None:
            try:
                feeds.append(RecordingFeed(machine, log))
            except RecordingError as error:
                place = config.place("machines", number, "recordings")
                raise ConfigurationError(f"{place}: {error}") from None
    return feeds


def start_in_turn(feeds: Sequence[RecordingFeed]) -> None:
    """Begin to play; spread over a hop, as the windows of many machines need neither be due nor be held all at once."""
    for number, feed in enumerate(feeds):
        apart = min(_MOST_APART_SECONDS, feed.machine.pipeline.hop_seconds / len(feeds))
        feed.start(number * apart)


class DeviceFeed:
    """Gives the machines of one device their channels."""

    def __init__(self, microphone: Microphone, machines: Sequence[Machine]) -> None:
        self.microphone = microphone
        self.machines = {m.name: m for m in machines}
        self._streams = DeviceStreams({m.name: (m.settings.channel or 1, m.stream) for m in machines})

    def start(self) -> None:
        """Begin to listen."""
        self.microphone.start()
        for machine in self.machines.values():
            machine.state.time_of = self._clock_of(machine)

    def take(self) -> Iterator[Heard]:
        """Windows that became due. Exhaust the iterator."""
        for stretch in self.microphone.take():
            for name, window in self._streams.push(stretch):
                yield self.machines[name], window

    def _clock_of(self, machine: Machine) -> Callable[[int], float]:
        return lambda position: self.microphone.ledger.time_at(position / machine.pipeline.sample_rate)


def device_feed(config: Config, machines: Iterable[Machine], guard: Guard) -> DeviceFeed | None:
    """Of the machines that listen to the device's channels, where there is a device."""
    if config.device is None:
        return None
    listening = [m for m in machines if m.settings.channel is not None]
    needed = max(m.settings.channel or 1 for m in listening)
    return DeviceFeed(Microphone(device_settings(config.device), needed_channels=needed, guard=guard), listening)


def device_settings(section: DeviceSection) -> DeviceSettings:
    """As the microphone takes them."""
    return DeviceSettings(section.name, section.usb, section.port, section.source, section.channels, section.rate)


class Note(Protocol):
    """Takes what there is to say of the machines: the log, or whoever wants to know first."""

    def __call__(self, event: str, level: Level = "info", **fields: Any) -> None:
        """One line, see `edge_asd.publish.log.Log`."""


def load_machines(
    config: Config,
    instance: str,
    log: Note,
    cache: Path | None,
    state: Path | None = None,
    known: Iterable[Detector] = (),
) -> list[Machine]:
    """Verify and load what the configuration names.

    Args:
        config: as read by `edge_asd.config_file.load_config`.
        instance: name of the daemon.
        log: told of the operating points, and of the site's own calibrations.
        cache: remembers verified detectors, see `load_detector`.
        state: folder where calibrations of this site may lie, see `edge_asd.site_calibration`.
        known: detectors that are loaded already: one with the same content is used again.

    Raises:
        ConfigurationError: with the place in the configuration.
    """
    loaded: dict[Path, Detector] = {}
    distinct = {detector.sha256: detector for detector in known}
    machines = []
    for number, settings in enumerate(config.machines):
        if not settings.detectors:
            place = config.place("machines", number)
            raise ConfigurationError(
                f"{place}: {settings.name} has no detectors; `edge-asd record` and `edge-asd-train` make them"
            )
        used = []
        for index, entry in enumerate(settings.detectors):
            try:
                # Machines share one session for each distinct file content, and each file is read once.
                if entry.file not in loaded:
                    loaded[entry.file] = load_detector(entry.file, cache, distinct)
                shared = loaded[entry.file]
                distinct[shared.sha256] = shared
                used.append(
                    _calibrated(MachineDetector.of(shared, entry.id, entry.file.name), settings, entry, log, state)
                )
            except (DetectorError, ConfigurationError) as error:
                raise ConfigurationError(f"{config.place('machines', number, 'detectors', index)}: {error}") from None
        gate = settings.active_when.gate if settings.active_when else None
        try:
            pipeline = Pipeline(
                used, settings.alarm.settings(), hop_seconds=settings.hop_seconds, active_above_dbfs=gate
            )
        except DetectorError as error:
            raise ConfigurationError(f"{config.place('machines', number, 'detectors')}: {error}") from None
        except ValueError as error:
            raise ConfigurationError(f"{config.place('machines', number, 'alarm')}: {error}") from None
        if pipeline.operating_point is not None:
            log("operating_point", machine=settings.name, text=str(pipeline.operating_point))
        if settings.active_when is not None and settings.active_when.topic is not None:
            log("active_when", machine=settings.name, topic=settings.active_when.topic)
        elif gate is not None:
            log("active_when", machine=settings.name, level_above_dbfs=pipeline.active_above_dbfs)
        machines.append(Machine(settings, pipeline, Place(config.site, config.node, instance, settings.name)))
    return machines


def _calibrated(
    used: MachineDetector, machine: MachineSection, entry: DetectorEntry, log: Note, state: Path | None
) -> MachineDetector:
    """With the site's own calibration, where there is one; the log tells of it, and of one that does not count."""
    found = calibration_in_use(used.detector, entry.file, machine.name, used.machine_id, state)
    for reason in found.ignored:
        log("calibration_not_used", "warning", machine=machine.name, detector=used.name, reason=reason)
    if found.path is not None:
        log(
            "calibration",
            machine=machine.name,
            detector=used.name,
            file=str(found.path),
            windows=len(found.calibration.scores),
            made=found.calibration.made,
        )
    return used.calibrated(found.calibration)
