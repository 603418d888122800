"""A program: many alarms that go off all the time, as fast as their alerts can be delivered.

    python alarms.py DATABASE PORT MACHINES [MOST_UNSENT]

The real alarms, announcer, outbox and MQTT, stepped with made-up rarities instead of sound. Killed, it goes on where it
was. While a file DATABASE.enough exists it only delivers. SIGTERM stops it.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge_asd.alarm import Alarm, AlarmRule
from edge_asd.clock import boot_time
from edge_asd.config_publish import MqttSection
from edge_asd.pipeline import Reading
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.back_off import BackOff
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.payloads import MachineState, Place

RATE, HOP_SECONDS = 16_000, 10
RULE = AlarmRule(threshold=2.0, raise_count=2, raise_window=3, clear_after=2, rest_seconds=0.0)
LOUD, QUIET = 4.0, 0.2
MOST_UNSENT = 400
"""More alarms only when those of before are under way."""


class Pipeline(SimpleNamespace):
    """What is said of a machine's pipeline, without detectors."""

    @property
    def condition(self) -> str:
        return "normal" if self.alarm.incident is None else "anomalous"


def machine_state(name: str) -> MachineState:
    """A machine that can be stepped with `reading`."""
    pipeline: Any = Pipeline(rule=RULE, alarm=Alarm(RULE), sample_rate=RATE, detectors=())
    state = MachineState(Place("plant-3", "hall", "alarms", name), pipeline)
    began = boot_time()
    state.time_of = lambda sample: began + sample / RATE
    return state


def reading(state: MachineState, number: int, rarity: float | None, hop: float = HOP_SECONDS) -> Reading:
    """Window ``number`` of a machine, after which the alarm has decided."""
    end = round((number + 1) * hop * RATE)
    event = state.pipeline.alarm.step(rarity, end / RATE, hop)
    return Reading(
        start=end - 10 * RATE,
        end=end,
        sample_rate=RATE,
        result="scored",
        is_repeated=False,
        lost=0,
        level_dbfs=-40.0,
        level_change_db=0.0,
        rarity=rarity,
        threshold=RULE.threshold,
        clear_below=RULE.clear_below,
        detectors=(),
        condition=state.pipeline.condition,
        event=event,
        incident=state.pipeline.alarm.incident,
    )


def main() -> None:
    database, port, machines = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    most_unsent = int(sys.argv[4]) if len(sys.argv) > 4 else MOST_UNSENT
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    log, metrics = Log(), Metrics()
    outbox = Outbox(database, 1_000_000_000, log=log, metrics=metrics)
    announcer = Announcer(log, metrics, outbox)
    announcer.mqtt = MqttPublisher(
        MqttSection(host="127.0.0.1", port=port),
        site="plant-3",
        node="hall",
        instance="alarms",
        outbox=outbox,
        log=log,
        metrics=metrics,
        on_connected=announcer.say_all_soon,
        back_off=BackOff(0.05, 0.5),
    )
    states = [machine_state(f"rail-{n}") for n in range(machines)]
    outbox.open()
    announcer.restore(states)
    announcer.mqtt.start()
    chance = random.Random()
    enough = Path(f"{database}.enough")
    for number in range(10**9):
        # What is handed in faster than a disk can take it waits in memory, and a thousand at most.
        while enough.exists() or outbox.unsent > most_unsent or len(outbox._fresh) > MOST_UNSENT:
            if stopping.wait(0.01):
                break
        if stopping.is_set():
            break
        for state in states:
            announcer.tell(state, reading(state, number, chance.choice((LOUD, QUIET))))
        announcer.say_all_if_due(states)
    announcer.mqtt.stop()
    outbox.close()
    log.close()


if __name__ == "__main__":
    main()
