"""Announcer, outbox and publisher in the test's own process, with machines that can be stepped."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

from edge_asd.config_publish import MqttSection
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.back_off import BackOff
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from parts.alarms import machine_state, reading
from parts.waiting import until


class Plant:
    """Announcer, outbox and publisher in this process, with some machines."""

    def __init__(self, path: Path, port: int, machines: int = 1) -> None:
        self.lines, self.metrics = io.StringIO(), Metrics()
        log = Log(self.lines)
        self.outbox = Outbox(path, log=log, metrics=self.metrics)
        self.announcer = Announcer(log, self.metrics, self.outbox)
        self.announcer.mqtt = MqttPublisher(
            MqttSection(host="127.0.0.1", port=port),
            site="plant-3",
            node="hall",
            instance="alarms",
            outbox=self.outbox,
            log=log,
            metrics=self.metrics,
            on_connected=self.announcer.say_all_soon,
            back_off=BackOff(0.05, 0.5),
        )
        self.states = [machine_state(f"rail-{n}") for n in range(machines)]
        self.outbox.open()
        self.announcer.restore(self.states)
        self.announcer.mqtt.start()
        self.heard = 0

    def hear(self, *rarities: float) -> None:
        for rarity in rarities:
            for state in self.states:
                self.announcer.tell(state, reading(state, self.heard, rarity))
            self.heard += 1
            # Ten seconds pass in no time: the disk need not follow that.
            until(lambda: len(self.outbox._fresh) < 500, "the disk")

    def events(self, name: str) -> list[dict[str, object]]:
        time.sleep(0.05)
        return [line for line in map(json.loads, self.lines.getvalue().splitlines()) if line["event"] == name]

    def stop(self) -> None:
        assert self.announcer.mqtt is not None
        self.announcer.mqtt.stop()
        self.outbox.close()
