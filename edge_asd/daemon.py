"""The daemon: one audio device or a set of recordings, their machines, and everybody who wants to know."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_asd import systemd
from edge_asd.audio.guard import Guard
from edge_asd.audio.windows import Window
from edge_asd.budget import Budget
from edge_asd.clock import seconds_since_process_start
from edge_asd.config import Config
from edge_asd.cores import scoring_cores
from edge_asd.device_news import DeviceNews
from edge_asd.errors import EXIT_DONE, DetectorError
from edge_asd.instructions import Instructions
from edge_asd.machine import (
    DeviceFeed,
    Machine,
    RecordingFeed,
    device_feed,
    load_machines,
    recording_feeds,
    start_in_turn,
)
from edge_asd.pipeline import Reading, Result
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.evidence import EvidenceKeeper
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.metrics_server import MetricsServer
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.outbox_lock import database_path
from edge_asd.reload import Reloader
from edge_asd.scheduler import MAX_WAITING, Scheduler
from edge_asd.watchdog import watch_over

_TICK_SECONDS = 0.1
"""How often the samples that became due are taken."""
_HEALTHY_HOPS = 3
"""A machine that should be scored and was not for so many hops is not healthy."""
_OPENING_SECONDS = 5.0
"""Ready is said when the device is open or known to be absent; but not later than this."""


class Daemon:
    """Start, run, stop."""

    def __init__(self, config: Config, *, instance: str, state: Path, log: Log, cache: Path | None = None) -> None:
        """Load and verify everything.

        Args:
            config: what to do.
            instance: name of this daemon, from its configuration's file name.
            state: its state folder, see `edge_asd.state_folder`.
            log: where events go.
            cache: remembers verified detectors, see `load_detector`.

        Raises:
            ConfigurationError: recordings, secrets or an address cannot be used, an alarm can never fire, or another
                daemon has the database.
            DetectorError: a detector cannot be trusted.
        """
        self._log = log
        self._is_stopping = False
        """Set by signal handlers: without a lock, which the interrupted thread could hold."""
        self._metrics = Metrics()
        self._machines = {m.name: m for m in load_machines(config, instance, log, cache, state)}
        for machine in self._machines.values():
            self._metrics.introduce(machine.name, machine.pipeline)
        self._recordings = recording_feeds(config, self._machines.values(), log)
        self._device = device_feed(config, self._machines.values(), Guard(self._note_hang))
        if self._device is not None:
            self._metrics.introduce_device()
        self._budget = Budget(scoring_cores(config), log)
        self._outbox = Outbox(database_path(state, instance), config.outbox.most_bytes, log=log, metrics=self._metrics)
        self._announcer = Announcer(log, self._metrics, self._outbox)
        self._outbox.open()
        try:
            self._go_on(config, instance, cache, state)
        except BaseException:
            self._outbox.close()
            raise

    def _go_on(self, config: Config, instance: str, cache: Path | None, state: Path) -> None:
        """From where the last process ended; the rest of what there is to set up."""
        self._announcer.restore([m.state for m in self._machines.values()])
        self._instructions = Instructions(config, instance, self._machines, self._announcer, self._log, state)
        self._instructions.heed()  # before anybody is told of a machine
        self._evidence = EvidenceKeeper.of(config, state, self._machines.values(), self._log, self._metrics)
        self._scheduler: Scheduler[str, Window] = Scheduler(
            list(self._machines),
            min(self._budget.cores, len(self._machines)),
            lambda name, window: self._in_turn(self._score, name, window),
            lambda name, window: self._in_turn(self._skip_late, name, window),
            most_waiting={m.name: MAX_WAITING + m.in_a_burst for m in self._machines.values()},
            shorten=Window.without_sound,
        )
        self._reloader = Reloader(
            config, instance, self._machines, self._announcer, self._log, self._metrics, cache, state
        )
        feed = self._device
        self._device_news = None if feed is None else DeviceNews(feed, self._log, self._metrics, self._announcer)
        if config.mqtt is not None:
            self._announcer.mqtt = MqttPublisher(
                config.mqtt,
                site=config.site,
                node=config.node,
                instance=instance,
                log=self._log,
                metrics=self._metrics,
                outbox=self._outbox,
                on_connected=self._announcer.say_all_soon,
                subscriptions=self._instructions.subscriptions(),
                announcements=self._instructions.announcements,
            )
        self._watchdog = watch_over(self._scheduler, self._machines.values(), feed, self._announcer.mqtt, self._log)
        self._server: MetricsServer | None = None
        if config.metrics is not None:
            self._server = MetricsServer(config.metrics, self._metrics.registry, self.complaint, self._log)

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
            systemd.heed_hangup(self.reload)
        if self._device is not None:
            self._device.start()
        if self._server is not None:
            self._server.start()
        if self._announcer.mqtt is not None:
            self._announcer.mqtt.start()
        self._instructions.start()
        self._scheduler.start()
        try:
            if self._device is not None:
                self._wait_for_device(self._device)
            start_in_turn(self._recordings)
            if not self._is_stopping:
                self._say_ready()
                self._listen(until_end)
        finally:
            self._close()
        return not (until_end and any(f.has_failed for f in self._recordings))

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._is_stopping = True

    def reload(self) -> None:
        """Take up what is new in the configuration and its files soon; may be called from a signal handler."""
        self._reloader.ask()

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
        while not self._is_stopping and time.monotonic() < end:
            if feed.microphone.wait_until_known(_TICK_SECONDS):
                break
        assert self._device_news is not None  # as there is a device
        self._device_news.heed()

    def _say_ready(self) -> None:
        self._log(
            "ready",
            "notice",
            machines=list(self._machines),
            start_seconds=round(seconds_since_process_start(), 3),
            metrics=None if self._server is None else self._server.port,
        )
        systemd.notify("READY=1")

    def _listen(self, until_end: bool) -> None:
        """Give each machine the samples that became due, until stopped."""
        began = time.monotonic()
        for machine in self._machines.values():
            machine.due = began + machine.pipeline.window / machine.pipeline.sample_rate
        while not self._is_stopping:
            time.sleep(_TICK_SECONDS)
            self._watchdog.tick()
            self._instructions.heed()
            self._reloader.heed()
            for feed in self._recordings:
                if not feed.has_ended:
                    self._take(feed)
                    if feed.has_ended:
                        self._note_end(feed)
            if self._device is not None and self._device_news is not None:
                self._device_news.heed()
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

    def _note_hang(self, message: str) -> None:
        """The process is about to end; with 70, systemd starts it anew, but not if it was to end anyway."""
        self._log("sound_system_hangs", "error", error=message)
        self._log.close()
        if self._is_stopping:
            os._exit(EXIT_DONE)

    def _in_turn(self, do: Callable[[str, Window], None], name: str, window: Window) -> None:
        """A machine takes up what is new between two windows, not while one is scored or told of."""
        with self._machines[name].turn:
            do(name, window)

    def _score(self, name: str, window: Window) -> None:
        machine = self._machines[name]
        begun, processor = time.perf_counter(), time.thread_time()
        try:
            reading = machine.read(window)
        except Exception as error:  # whatever it is, the other windows and machines go on
            text = str(error) if isinstance(error, DetectorError) else repr(error)
            self._log("scoring_failed", "error", machine=name, error=text)
            self._publish(machine, window, machine.pipeline.skip(window, "failed"))
            return
        if reading.result in ("scored", "idle"):
            wall, processor = time.perf_counter() - begun, time.thread_time() - processor
            self._metrics.budget.set(self._budget.add(name, machine.pipeline.hop_seconds, wall, processor))
        self._publish(machine, window, reading)

    def _skip_late(self, name: str, window: Window) -> None:
        machine = self._machines[name]
        result: Result = "gap" if window.lost else "late"  # in a gap was nothing to score
        if result == "late":
            self._log("window_late", "warning", machine=name, start_seconds=window.start / machine.pipeline.sample_rate)
        self._publish(machine, window, machine.pipeline.skip(window, result))

    def _publish(self, machine: Machine, window: Window, reading: Reading) -> None:
        if reading.result in ("scored", "idle"):
            machine.due = time.monotonic() + machine.pipeline.hop_seconds
        self._announcer.tell(machine.state, reading, self._evidence.take(machine.name, window, reading))

    def _close(self) -> None:
        systemd.notify("STOPPING=1")
        if self._device is not None and self._device_news is not None:
            self._device.microphone.stop()
            self._take(self._device)
            self._device_news.close()
        self._reloader.stop()
        self._scheduler.stop()
        if self._announcer.mqtt is not None:
            self._announcer.mqtt.stop()
        self._instructions.stop()  # nothing more is heard
        self._outbox.close()
        if self._server is not None:
            self._server.stop()
        self._log("stopped", "notice")
        self._log.close()
