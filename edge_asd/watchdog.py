"""Tells systemd that the daemon is at work, as long as it is.

What is watched is whether things turn, not whether there is something to hear: a missing microphone or broker is a
state that is told, and starting anew would not mend it. A window that a detector never comes back from, or a thread
that takes no more sound or talks to the broker no more, only a new process mends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping

from edge_asd import systemd
from edge_asd.audio.windows import Window
from edge_asd.machine import DeviceFeed, Machine
from edge_asd.publish.log import Log
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.scheduler import Scheduler

LOOK_SECONDS = 1.0
"""From look to look; looks are counted, not time: while the whole process stands still (SIGSTOP) nothing hangs."""
_BROKER_SECONDS = 120.0
"""To resolve a name and to connect may take long, and nothing else goes on in that thread meanwhile."""
_FEEDS = 4
"""In the time that systemd waits for one: a busy computer may be late."""

_TALKING = "talking to the broker"

Progress = Callable[[], Mapping[str, Hashable]]
"""What is under way now, by its name, with something that differs whenever it has got on."""


class Watchdog:
    """Fed by the daemon's loop; does nothing where systemd does not wait for it."""

    def __init__(self, log: Log, *, look_seconds: float = LOOK_SECONDS) -> None:
        """
        Args:
            log: told what hangs, once, before systemd ends the process.
            look_seconds: from look to look.
        """
        self._log, self._look_seconds = log, look_seconds
        self._patience = watchdog_seconds()
        """Seconds that something may stand still, and that systemd waits; None if it does not."""
        self._watched: list[tuple[Progress, Mapping[str, float]]] = []
        self._seen: dict[tuple[int, str], tuple[Hashable, int]] = {}
        self._next_look = self._next_feed = 0.0
        self._has_told = False

    def watch(self, progress: Progress, allowed_seconds: Mapping[str, float] | None = None) -> None:
        """Stop feeding when something that is under way has not got on for as long as systemd waits.

        Args:
            progress: asked at every look, on the thread that calls `tick`; must not wait for anything.
            allowed_seconds: by name, where it may stand still longer than that.
        """
        self._watched.append((progress, allowed_seconds or {}))

    def tick(self) -> None:
        """The loop that calls this turns: feed, unless something else does not."""
        now = time.monotonic()
        if self._patience is None or now < self._next_look:
            return
        self._next_look = now + self._look_seconds
        hanging = self._hanging(self._patience)
        if hanging is None:
            self._has_told = False
            if now >= self._next_feed:
                self._next_feed = now + self._patience / _FEEDS
                systemd.notify("WATCHDOG=1")
        elif not self._has_told:
            self._has_told = True
            self._log(
                "hangs",
                "error",
                error=f"{hanging} does not come back",
                hint="systemd will start this daemon anew",
            )

    def _hanging(self, patience: float) -> str | None:
        """Something that has stood still for too long."""
        seen: dict[tuple[int, str], tuple[Hashable, int]] = {}
        hanging = None
        for number, (progress, allowed) in enumerate(self._watched):
            for name, mark in progress().items():
                before, looks = self._seen.get((number, name), (None, 0))
                looks = looks + 1 if mark == before else 0
                seen[number, name] = mark, looks
                if looks * self._look_seconds > max(patience, allowed.get(name, 0.0)):
                    hanging = name
        self._seen = seen
        return hanging


def watch_over(
    scheduler: Scheduler[str, Window],
    machines: Iterable[Machine],
    device: DeviceFeed | None,
    mqtt: MqttPublisher | None,
    log: Log,
) -> Watchdog:
    """The watchdog of a daemon.

    Args:
        scheduler: has the windows that are being scored. A window may take as long as its machine's hop.
        machines: whose windows they are.
        device: what is listened to, if anything.
        mqtt: talks to the broker, if there is one.
        log: told what hangs.
    """
    watchdog = Watchdog(log)
    hops = {f"scoring {m.name}": m.pipeline.hop_seconds for m in machines}
    watchdog.watch(lambda: {f"scoring {name}": mark for name, mark in scheduler.in_hand().items()}, hops)
    if device is not None:
        watchdog.watch(lambda: {"listening to the device": device.microphone.turns})
    if mqtt is not None:
        watchdog.watch(lambda: {_TALKING: mqtt.turns}, {_TALKING: _BROKER_SECONDS})
    return watchdog


def watchdog_seconds() -> float | None:
    """How long systemd waits to be fed, ``WatchdogSec=``; None where it does not wait for this process."""
    try:
        seconds = int(os.environ["WATCHDOG_USEC"]) / 1e6
        meant = int(os.environ.get("WATCHDOG_PID") or os.getpid())
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 and meant == os.getpid() else None
