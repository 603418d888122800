"""The daemon: a set of recordings played in real time, their machines, and everybody who wants to know."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from edge_asd import systemd
from edge_asd.audio.player import RecordingPlayer
from edge_asd.audio.recording import find_recordings
from edge_asd.audio.windows import Window
from edge_asd.config import Config, MachineSection
from edge_asd.detector import Detector
from edge_asd.errors import ConfigurationError, DetectorError, RecordingError
from edge_asd.pipeline import MachineDetector, Pipeline, Reading
from edge_asd.publish import payloads
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics, MetricsServer
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.payloads import MachineState, Place
from edge_asd.scheduler import Scheduler
from edge_asd.verification import load_detector

_TICK_SECONDS = 0.1
"""How often the samples that became due are taken."""
_SETTLING_SECONDS = 0.5
"""After a connection the client first sends again what was under way, old states among it: ours come after that."""
_HEALTHY_HOPS = 3
"""A machine that should be scored and was not for so many hops is not healthy."""


class Machine:
    """One machine of the daemon: its sound, its pipeline, and what was last said of it."""

    def __init__(self, settings: MachineSection, pipeline: Pipeline, place: Place, log: Log) -> None:
        self.name = settings.name
        self.pipeline = pipeline
        self.cutter = pipeline.cutter()
        self.state = MachineState(place, pipeline, stream_began=datetime.now(UTC))
        self.player = RecordingPlayer(
            find_recordings([settings.recordings]),
            sample_rate=pipeline.sample_rate,
            channel=settings.recording_channel,
            repeat=settings.repeat,
            on_failure=self._note_failure,
        )
        self._log = log
        self.has_failed = False
        """A recording could not be read."""
        self.due = time.monotonic()
        """When the next window is to be done with, on the monotonic clock."""
        self.has_ended = False

    def _note_failure(self, error: RecordingError) -> None:
        self.has_failed = True
        self._log("recording_failed", "error", machine=self.name, error=str(error))


class Daemon:
    """Start, run, stop."""

    def __init__(self, config: Config, *, instance: str, log: Log, cache: Path | None = None) -> None:
        """Load and verify everything.

        Args:
            config: as read by `edge_asd.config_file.load_config`.
            instance: name of this daemon, from its configuration's file name.
            log: where events go.
            cache: remembers verified detectors, see `load_detector`.

        Raises:
            ConfigurationError: recordings, secrets or an address cannot be used, or an alarm can never fire.
            DetectorError: a detector cannot be trusted.
        """
        self._log = log
        self._stopping = threading.Event()
        self._metrics = Metrics()
        self._machines = {m.name: m for m in _load_machines(config, instance, log, cache)}
        for machine in self._machines.values():
            self._metrics.introduce(machine.name, machine.pipeline)
        self._cores = len(os.sched_getaffinity(0))
        self._work_seconds: dict[str, float] = {}
        self._publishing = threading.Lock()
        self._say_all_at = float("inf")
        """When all states are to be sent again, on the monotonic clock."""
        names = list(self._machines)
        self._scheduler: Scheduler[str, Window] = Scheduler(
            names, min(self._cores, len(names)), self._score, lambda name, window: self._skip(name, window, late=True)
        )
        self._mqtt: MqttPublisher | None = None
        if config.mqtt is not None:
            self._mqtt = MqttPublisher(
                config.mqtt,
                site=config.site,
                node=config.node,
                instance=instance,
                log=log,
                metrics=self._metrics,
                on_connected=self._on_connected,
            )
        self._server: MetricsServer | None = None
        if config.metrics is not None:
            self._server = MetricsServer(config.metrics.address, self._metrics.registry, self.is_healthy)

    def run(self, *, until_end: bool = False) -> bool:
        """Listen until `stop` is called, SIGTERM or SIGINT comes, or (``until_end``) every recording was played.

        Returns:
            False if recordings could not be read that were to be played to their end.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        if self._server is not None:
            self._server.start()
        if self._mqtt is not None:
            self._mqtt.start()
        self._scheduler.start()
        for machine in self._machines.values():
            machine.state.stream_began = datetime.now(UTC)
        self._log(
            "ready",
            machines=list(self._machines),
            start_seconds=round(_seconds_since_process_start(), 3),
            metrics=None if self._server is None else self._server.port,
        )
        systemd.notify("READY=1")
        try:
            self._play(until_end)
        finally:
            self._close()
        return not (until_end and any(m.has_failed for m in self._machines.values()))

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stopping.set()

    def is_healthy(self) -> bool:
        """Windows that are due are being scored."""
        now = time.monotonic()
        return all(m.has_ended or now < m.due + _HEALTHY_HOPS * m.pipeline.hop_seconds for m in self._machines.values())

    def _play(self, until_end: bool) -> None:
        """Give each machine the samples that became due, until stopped."""
        began = time.monotonic()
        for machine in self._machines.values():
            machine.due = began + machine.pipeline.window / machine.pipeline.sample_rate
        while not self._stopping.wait(_TICK_SECONDS):
            elapsed = time.monotonic() - began
            for machine in self._machines.values():
                if not machine.has_ended:
                    self._feed(machine, int(elapsed * machine.pipeline.sample_rate))
            if time.monotonic() >= self._say_all_at:
                self._say_all_at = float("inf")
                self._say_all_states()
            if until_end and all(m.has_ended for m in self._machines.values()) and self._scheduler.is_idle():
                return

    def _feed(self, machine: Machine, position: int) -> None:
        samples = machine.player.take(position)
        self._metrics.frames.labels(machine.name).inc(samples.size)
        for window in machine.cutter.push(samples):
            self._scheduler.submit(machine.name, window)
        if machine.player.has_ended:
            machine.has_ended = True
            reason = "the recordings have ended" if machine.player.given else "none of the recordings could be read"
            self._log(
                "recordings_ended", machine=machine.name, seconds=machine.player.given / machine.pipeline.sample_rate
            )
            with self._publishing:
                if machine.state.hear("none", reason):
                    self._say_state(machine)

    def _score(self, name: str, window: Window) -> None:
        machine = self._machines[name]
        begun = time.perf_counter()
        try:
            reading = machine.pipeline.read(window)
        except Exception as error:  # whatever it is, the other windows and machines go on
            text = str(error) if isinstance(error, DetectorError) else repr(error)
            self._log("scoring_failed", "error", machine=name, error=text)
            self._skip(name, window, late=False)
            return
        self._work_seconds[name] = (time.perf_counter() - begun) / machine.pipeline.hop_seconds
        self._metrics.budget.set(sum(self._work_seconds.values()) / self._cores)
        self._publish(machine, reading)

    def _skip(self, name: str, window: Window, *, late: bool) -> None:
        machine = self._machines[name]
        if late:
            self._log("window_late", "warning", machine=name, start_seconds=window.start / machine.pipeline.sample_rate)
        self._publish(machine, machine.pipeline.skip(window, "late" if late else "failed"))

    def _publish(self, machine: Machine, reading: Reading) -> None:
        """Tell everybody of a reading: metrics, then log, then the broker."""
        state = machine.state
        with self._publishing:
            if reading.result not in ("failed", "late"):
                machine.due = time.monotonic() + machine.pipeline.hop_seconds
            has_changed = state.take(reading)
            if not machine.has_ended:  # the last windows are scored when the sound has ended already
                has_changed = state.hear("ok", None) or has_changed
            self._metrics.count(machine.name, reading, time.time())
            alert = None if reading.event is None else payloads.alert(state, reading)
            if alert is not None:
                self._log("alert", "warning" if alert["event"] == "raised" else "info", alert=alert)
            if self._mqtt is not None:
                if alert is not None:
                    self._mqtt.alert(state.place, alert)
                self._mqtt.score(state.place, payloads.score(state, reading))
            if has_changed or alert is not None:
                self._say_state(machine)

    def _say_state(self, machine: Machine) -> None:
        state = machine.state
        self._metrics.be(machine.name, state.condition, state.signal)
        self._log(
            "state", machine=machine.name, condition=state.condition, signal=state.signal, reason=state.signal_reason
        )
        if self._mqtt is not None:
            self._mqtt.state(state.place, payloads.machine_state(state))

    def _on_connected(self) -> None:
        self._say_all_at = time.monotonic() + _SETTLING_SECONDS

    def _say_all_states(self) -> None:
        assert self._mqtt is not None  # only a connection asks for this
        with self._publishing:
            for machine in self._machines.values():
                self._mqtt.state(machine.state.place, payloads.machine_state(machine.state))

    def _close(self) -> None:
        systemd.notify("STOPPING=1")
        self._scheduler.stop()
        if self._mqtt is not None:
            self._mqtt.stop()
        if self._server is not None:
            self._server.stop()
        self._log("stopped")
        self._log.close()


def _load_machines(config: Config, instance: str, log: Log, cache: Path | None) -> list[Machine]:
    """Verify and load what the configuration names; an error says where in the configuration it was named."""
    loaded: dict[str, Detector] = {}
    machines = []
    for number, settings in enumerate(config.machines):
        used = []
        for index, entry in enumerate(settings.detectors):
            try:
                detector = load_detector(entry.file, cache)
                # Machines share one session for each distinct file content.
                shared = loaded.setdefault(detector.sha256, detector)
                used.append(MachineDetector.of(shared, entry.id, entry.file.name))
            except DetectorError as error:
                raise ConfigurationError(f"{config.place('machines', number, 'detectors', index)}: {error}") from None
        gate = settings.active_when.level_above_dbfs if settings.active_when else None
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
        try:
            machines.append(Machine(settings, pipeline, Place(config.site, config.node, instance, settings.name), log))
        except RecordingError as error:
            raise ConfigurationError(f"{config.place('machines', number, 'recordings')}: {error}") from None
    return machines


def _seconds_since_process_start() -> float:
    """Since the kernel started this process, imports included."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
