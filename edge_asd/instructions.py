"""What the daemon is told from outside: who is in maintenance, and which machine stands still."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_asd.active_topic import ActiveTopics
from edge_asd.config import Config
from edge_asd.machine import Machine
from edge_asd.maintenance import maintenance_path
from edge_asd.maintenance_watch import MaintenanceWatch
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.discovery import discovery
from edge_asd.publish.log import Log
from edge_asd.publish.topics import ROOT, Hearer


class Instructions:
    """Of one daemon: `heed` is called by its loop, the rest at every connection to the broker."""

    def __init__(
        self,
        config: Config,
        instance: str,
        machines: Mapping[str, Machine],
        announcer: Announcer,
        log: Log,
        state: Path,
    ) -> None:
        """
        Args:
            config: of the daemon.
            instance: its name.
            machines: by name.
            announcer: tells of what changes.
            log: likewise.
            state: the state folder, where maintenance lies.
        """
        self._config, self._machines = config, machines
        self._maintenance = MaintenanceWatch(maintenance_path(state, instance), machines, announcer, log)
        gates = [(m.name, m.settings.active_when, m.standstill) for m in machines.values()]
        self._topics = ActiveTopics(gates, log)

    def subscriptions(self) -> dict[str, Hearer]:
        """Topics to hear, and who hears them, on any thread."""
        prefix = f"{ROOT}/{self._config.site}/{self._config.node}"
        return self._maintenance.subscriptions(prefix) | self._topics.subscriptions()

    def announcements(self) -> Iterator[tuple[str, str]]:
        """Retained documents, topic and payload, of a connection that was just made."""
        self._maintenance.note_connection()
        self._topics.note_connection()
        settings = self._config.mqtt.discovery if self._config.mqtt is not None else None
        if settings is None:
            return
        for machine in self._machines.values():
            kinds = [d.detector.metadata.kind for d in machine.pipeline.detectors]
            hop = machine.pipeline.hop_seconds
            yield discovery(machine.state.place, root=ROOT, prefix=settings.prefix, hop_seconds=hop, kinds=kinds)

    def heed(self) -> None:
        """Make so what was said since the last time."""
        self._maintenance.heed()
        self._topics.heed()

    def start(self) -> None:
        """Look at the file of maintenance from now on."""
        self._maintenance.start()

    def stop(self) -> None:
        """Make so what was said until now; nothing is heeded any more."""
        self._maintenance.stop()
        self.heed()
