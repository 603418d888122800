"""SIGHUP, as ``systemctl reload`` sends it: the configuration is read anew while the daemon listens.

All of it is read and verified first, on a thread of its own, detectors in a child process as at the start. What is
wrong, or would be refused at the next start, changes nothing. Then each machine takes up what is new between two of its
windows; its sound runs on, and so do its incident and its maintenance.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_asd import systemd
from edge_asd.config import Config
from edge_asd.config_file import load_config
from edge_asd.errors import EdgeAsdError
from edge_asd.machine import Machine, load_machines
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.journal import Level
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.reload_plan import Plan, Swap, plan
from edge_asd.scheduler import give_way
from edge_asd.startable import verify_startable

_TURN_SECONDS = 0.1
"""A machine whose window takes longer is asked again after the others."""
_FAREWELL_SECONDS = 2.0
_STATUS_CHARACTERS = 300
"""That `systemctl status` shows of what came of it; the log has all."""


class Reloader:
    """Of one daemon: `ask` says that it is wanted, `heed` is called by the daemon's loop and does not wait."""

    def __init__(
        self,
        config: Config,
        instance: str,
        machines: Mapping[str, Machine],
        announcer: Announcer,
        log: Log,
        metrics: Metrics,
        cache: Path | None,
        state: Path | None,
    ) -> None:
        """
        Args:
            config: that the daemon was started with; its file is read anew.
            instance: name of the daemon.
            machines: by name.
            announcer: tells of machines that change.
            log: told what came of it.
            metrics: likewise.
            cache: remembers verified detectors, see `edge_asd.verification.load_detector`.
            state: where calibrations of this site may lie.
        """
        self._config, self._instance, self._machines = config, instance, machines
        self._announcer, self._log, self._metrics = announcer, log, metrics
        self._cache, self._state = cache, state
        self._is_asked = self._is_stopping = False
        self._thread: threading.Thread | None = None
        metrics.reload_successful.set(1)
        metrics.reload_time.set_to_current_time()

    def ask(self) -> None:
        """Wanted; may be called from a signal handler."""
        # systemd takes the reload for done with the next READY=1, and wants to know when it began: systemd.service(5).
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        self._is_asked = True

    def heed(self) -> None:
        """Begin what was asked for; while one is under way, what is asked for meanwhile comes after it."""
        if self._is_asked and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, name="reload", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Nothing is taken up any more."""
        self._is_stopping = True
        if self._thread is not None:
            self._thread.join(_FAREWELL_SECONDS)

    def _work(self) -> None:
        give_way()
        outcome = ""
        while self._is_asked and not self._is_stopping:
            self._is_asked = False
            outcome = self._reload()
        if not self._is_stopping:
            systemd.notify(f"READY=1\nSTATUS={datetime.now():%H:%M:%S} {outcome[:_STATUS_CHARACTERS]}")

    def _reload(self) -> str:
        """What came of it, in one line."""
        try:
            found = self._read()
            self._take_up(found.swaps)
        except EdgeAsdError as error:
            return self._fail(str(error))
        except Exception as error:  # whatever it is, the daemon listens on
            return self._fail(repr(error))
        if self._is_stopping:
            return ""
        changed = {swap.machine.name: swap.changes for swap in found.swaps if swap.changes}
        level: Level = "warning" if found.restart_needed else "notice"
        self._log("reloaded", level, changed=changed, restart_needed=found.restart_needed)
        self._metrics.reload_successful.set(1)
        self._metrics.reload_time.set_to_current_time()
        outcome = f"reloaded, changed: {', '.join(changed) or 'nothing'}"
        if found.restart_needed:
            outcome += f"; a restart is needed for {', '.join(found.restart_needed)}"
        return outcome

    def _read(self) -> Plan:
        """Read and verify everything; raises ConfigurationError. The log is told of machines that will change."""
        said: list[tuple[str, Level, dict[str, Any]]] = []

        def note(event: str, level: Level = "info", **fields: Any) -> None:
            said.append((event, level, fields))

        wanted = load_config(self._config.file)
        verify_startable(wanted)
        known = [used.detector for machine in self._machines.values() for used in machine.pipeline.detectors]
        loaded = load_machines(wanted, self._instance, note, self._cache, self._state, known)
        found = plan(self._config, self._machines, wanted, loaded)
        changing = {swap.machine.name for swap in found.swaps if swap.changes}
        for event, level, fields in said:
            if fields["machine"] in changing:
                self._log(event, level, **fields)
        return found

    def _take_up(self, swaps: tuple[Swap, ...]) -> None:
        """Each machine in its turn; one whose window takes long holds up no other."""
        waiting = list(swaps)
        while waiting and not self._is_stopping:
            swap = waiting.pop(0)
            if not swap.machine.turn.acquire(timeout=_TURN_SECONDS):
                waiting.append(swap)
                continue
            try:
                swap.machine.settings = swap.settings
                if swap.changes:
                    self._announcer.adopt(swap.machine.state, swap.pipeline)
            finally:
                swap.machine.turn.release()

    def _fail(self, error: str) -> str:
        file = str(self._config.file)
        lines = [line if line.startswith(file) else f"{file}: {line}" for line in error.splitlines()]
        self._log("reload_failed", "error", error="\n".join(lines))
        self._metrics.reload_successful.set(0)
        return f"reload failed, nothing changed: {lines[0]}"
