"""The daemon: one audio device or a set of recordings, their machines, and everybody who wants to know."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from edge_asd import systemd
from edge_asd.audio.guard import Guard
from edge_asd.audio.microphone import Microphone, Status
from edge_asd.audio.windows import Window
from edge_asd.budget import Budget
from edge_asd.clock import seconds_since_process_start
from edge_asd.config import Config
from edge_asd.cores import scoring_cores
from edge_asd.errors import EXIT_DONE, ConfigurationError, DetectorError, RecordingError
from edge_asd.machine import DeviceFeed, Machine, RecordingFeed, device_settings, load_machines, start_in_turn
from edge_asd.pipeline import Reading
from edge_asd.publish import payloads
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.metrics_server import MetricsServer
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.scheduler import MAX_WAITING, Scheduler

_TICK_SECONDS = 0.1
"""How often the samples that became due are taken."""
_HEALTHY_HOPS = 3
"""A machine that should be scored and was not for so many hops is not healthy."""
_OPENING_SECONDS = 5.0
"""Ready is said when the device is open or known to be absent; but not later than this."""


class Daemon:
    """Start, run, stop."""

    def __init__(
        self, config: Config, *, instance: str, log: Log, cache: Path | None = None, state: Path | None = None
    ) -> None:
        """Load and verify everything.

        Args:
            config: as read by `edge_asd.config_file.load_config`.
            instance: name of this daemon, from its configuration's file name.
            log: where events go.
            cache: remembers verified detectors, see `load_detector`.
            state: where the site's calibrations may lie, beside those that lie with the detectors.

        Raises:
            ConfigurationError: recordings, secrets or an address cannot be used, or an alarm can never fire.
            DetectorError: a detector cannot be trusted.
        """
        self._log = log
        self._stopping = threading.Event()
        self._metrics = Metrics()
        self._machines = {m.name: m for m in load_machines(config, instance, log, cache, state)}
        for machine in self._machines.values():
            self._metrics.introduce(machine.name, machine.pipeline)
        self._recordings = self._make_recording_feeds(config)
        self._device = self._make_device_feed(config)
        self._device_status: Status | None = None
        self._budget = Budget(scoring_cores(config), log)
        self._announcer = Announcer(log, self._metrics)
        self._scheduler: Scheduler[str, Window] = Scheduler(
            list(self._machines),
            min(self._budget.cores, len(self._machines)),
            self._score,
            lambda name, window: self._skip(name, window, late=True),
            most_waiting={m.name: MAX_WAITING + m.in_a_burst for m in self._machines.values()},
            shorten=Window.without_sound,
        )
        if config.mqtt is not None:
            self._announcer.mqtt = MqttPublisher(
                config.mqtt,
                site=config.site,
                node=config.node,
                instance=instance,
                log=log,
                metrics=self._metrics,
                on_connected=self._announcer.say_all_soon,
            )
        served = config.metrics
        self._server = None if served is None else MetricsServer(served, self._metrics.registry, self.complaint, log)

    def run(self, *, until_end: bool = False) -> bool:
        """Listen until `stop` is called, SIGTERM or SIGINT comes, or (``until_end``) every recording was played.

        Returns:
            False if recordings could not be read that were to be played to their end.

        Raises:
            ConfigurationError: there is no PortAudio to listen with.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        if self._device is not None:
            self._device.start()
        if self._server is not None:
            self._server.start()
        if self._announcer.mqtt is not None:
            self._announcer.mqtt.start()
        self._scheduler.start()
        try:
            if self._device is not None:
                self._wait_for_device(self._device)
            start_in_turn(self._recordings)
            if not self._stopping.is_set():
                self._say_ready()
                self._listen(until_end)
        finally:
            self._close()
        return not (until_end and any(f.has_failed for f in self._recordings))

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stopping.set()

    def complaint(self) -> str | None:
        """What is not as it should be: the first machine that should be scored, and was not for some hops."""
        now = time.monotonic()
        for machine in self._machines.values():
            late = now - machine.due
            if not machine.has_ended and late >= _HEALTHY_HOPS * machine.pipeline.hop_seconds:
                state = machine.state
                reason = f"signal {state.signal}: {state.signal_reason}" if state.signal != "ok" else "signal ok"
                return (
                    f"{machine.name}: no window was scored for {late + machine.pipeline.hop_seconds:.0f} s ({reason})"
                )
        return None

    def _wait_for_device(self, feed: DeviceFeed) -> None:
        """Until it is open or known to be absent, for a while."""
        end = time.monotonic() + _OPENING_SECONDS
        while not self._stopping.is_set() and time.monotonic() < end:
            if feed.microphone.wait_until_known(_TICK_SECONDS):
                break
        self._heed_device(feed)

    def _say_ready(self) -> None:
        self._log(
            "ready",
            machines=list(self._machines),
            start_seconds=round(seconds_since_process_start(), 3),
            metrics=None if self._server is None else self._server.port,
        )
        systemd.notify("READY=1")

    def _make_recording_feeds(self, config: Config) -> list[RecordingFeed]:
        feeds = []
        for number, machine in enumerate(self._machines.values()):
            if machine.settings.recordings is not None:
                try:
                    feeds.append(RecordingFeed(machine, self._log))
                except RecordingError as error:
                    place = config.place("machines", number, "recordings")
                    raise ConfigurationError(f"{place}: {error}") from None
        return feeds

    def _make_device_feed(self, config: Config) -> DeviceFeed | None:
        if config.device is None:
            return None
        machines = [m for m in self._machines.values() if m.settings.channel is not None]
        self._metrics.introduce_device()
        microphone = Microphone(
            device_settings(config.device),
            needed_channels=max(m.settings.channel or 1 for m in machines),
            guard=Guard(self._note_hang),
        )
        return DeviceFeed(microphone, machines)

    def _listen(self, until_end: bool) -> None:
        """Give each machine the samples that became due, until stopped."""
        began = time.monotonic()
        for machine in self._machines.values():
            machine.due = began + machine.pipeline.window / machine.pipeline.sample_rate
        while not self._stopping.wait(_TICK_SECONDS):
            for feed in self._recordings:
                if not feed.has_ended:
                    self._take(feed)
                    if feed.has_ended:
                        self._note_end(feed)
            if self._device is not None:
                self._heed_device(self._device)
                self._take(self._device)
            self._announcer.say_all_if_due([m.state for m in self._machines.values()])
            if until_end and all(m.has_ended for m in self._machines.values()) and self._scheduler.is_idle():
                return

    def _take(self, feed: RecordingFeed | DeviceFeed) -> None:
        for machine, window in feed.take():
            self._scheduler.submit(machine.name, window)
        machines = [feed.machine] if isinstance(feed, RecordingFeed) else feed.machines.values()
        for machine in machines:
            heard, lost = machine.stream.take_counts()
            if heard and machine.state.signal == "none" and isinstance(feed, RecordingFeed):
                self._announcer.hear(machine.state, "ok", None)
            self._metrics.frames.labels(machine.name).inc(heard)
            self._metrics.lost_frames.labels(machine.name).inc(lost)

    def _note_end(self, feed: RecordingFeed) -> None:
        machine = feed.machine
        machine.has_ended = True
        self._metrics.budget.set(self._budget.forget(machine.name))
        self._log("recordings_ended", machine=machine.name, seconds=feed.seconds)
        reason = "the recordings have ended" if feed.seconds else "none of the recordings could be read"
        self._announcer.hear(machine.state, "none", reason)

    def _heed_device(self, feed: DeviceFeed) -> None:
        """Tell of what became of the device since the last tick."""
        microphone = feed.microphone
        if microphone.failure is not None:
            raise microphone.failure
        self._tell_disturbances(microphone)
        before, status = self._device_status, microphone.status
        if status == before:
            return
        self._device_status = status
        assert self._metrics.device_up is not None  # introduced with the device
        self._metrics.device_up.set(status.is_heard)
        ledger = microphone.ledger
        books: dict[str, Any] = {"captured": ledger.captured, "lost": ledger.lost, "rate": ledger.rate}
        if status.is_heard:
            assert status.opening is not None  # what is heard was opened
            self._log("device_heard", **payloads.opening(status.opening), **books)
        else:
            if before is not None and before.is_heard:
                self._metrics.disturbances.labels("loss").inc()
            self._log(
                "device_not_heard", "warning" if status.opening is None else "info", reason=status.reason, **books
            )
        for machine in feed.machines.values():
            if status.is_heard:
                self._announcer.hear(machine.state, "ok", None)
            else:
                self._announcer.hear(machine.state, "none", status.reason)

    def _tell_disturbances(self, microphone: Microphone) -> None:
        for disturbance in microphone.take_disturbances():
            self._metrics.disturbances.labels(disturbance.kind).inc()
            self._log("audio_disturbance", "warning", kind=disturbance.kind, seconds=round(disturbance.seconds, 3))

    def _note_hang(self, message: str) -> None:
        """The process is about to end; with 70, systemd starts it anew, but not if it was to end anyway."""
        self._log("sound_system_hangs", "error", error=message)
        self._log.close()
        if self._stopping.is_set():
            os._exit(EXIT_DONE)

    def _score(self, name: str, window: Window) -> None:
        machine = self._machines[name]
        begun, processor = time.perf_counter(), time.thread_time()
        try:
            reading = machine.pipeline.read(window)
        except Exception as error:  # whatever it is, the other windows and machines go on
            text = str(error) if isinstance(error, DetectorError) else repr(error)
            self._log("scoring_failed", "error", machine=name, error=text)
            self._skip(name, window, late=False)
            return
        if reading.result in ("scored", "idle"):
            wall, processor = time.perf_counter() - begun, time.thread_time() - processor
            self._metrics.budget.set(self._budget.add(name, machine.pipeline.hop_seconds, wall, processor))
        self._publish(machine, reading)

    def _skip(self, name: str, window: Window, *, late: bool) -> None:
        machine = self._machines[name]
        if late and window.lost:
            self._publish(machine, machine.pipeline.skip(window, "gap"))  # there was nothing to score
            return
        if late:
            self._log("window_late", "warning", machine=name, start_seconds=window.start / machine.pipeline.sample_rate)
        self._publish(machine, machine.pipeline.skip(window, "late" if late else "failed"))

    def _publish(self, machine: Machine, reading: Reading) -> None:
        if reading.result in ("scored", "idle"):
            machine.due = time.monotonic() + machine.pipeline.hop_seconds
        self._announcer.tell(machine.state, reading)

    def _close(self) -> None:
        systemd.notify("STOPPING=1")
        if self._device is not None:
            self._device.microphone.stop()
            self._take(self._device)
            self._tell_disturbances(self._device.microphone)
            ledger = self._device.microphone.ledger
            self._log("device_closed", captured=ledger.captured, lost=ledger.lost, rate=ledger.rate)
        self._scheduler.stop()
        if self._announcer.mqtt is not None:
            self._announcer.mqtt.stop()
        if self._server is not None:
            self._server.stop()
        self._log("stopped")
        self._log.close()
