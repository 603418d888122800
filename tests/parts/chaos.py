"""Alerts under kills: alarms, broker and ledger as processes; what the ledger holds against what the disk holds."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from edge_asd.publish.outbox_packing import unpack
from parts.broker import TOPIC, Broker
from parts.waiting import until

PARTS = Path(__file__).parent
MACHINES = 40


@dataclass(frozen=True)
class Result:
    """What became of all alerts."""

    stored: int
    heard: int
    """Duplicates included."""
    unsent: int
    lost: list[str]
    """Ids on disk that nobody heard."""
    unknown: list[str]
    """Ids heard that are not on disk."""
    disorder: list[str]
    """What is wrong with a machine's sequence, on disk or in the ledger."""


class Chaos:
    """Starts the three, kills two of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.broker_kills: list[float] = []
        self.database, self.ledger = folder / "alarms.sqlite", folder / "ledger"
        self._folder, self._log, self._chance = folder, folder / "log", random.Random(seed)
        self._log_at_start = 0
        # What a killed broker held for a subscriber would be its own loss: it must pass all on at once.
        self._broker = Broker(folder / "broker", "allow_anonymous true", "max_inflight_messages 0",
                              "max_queued_messages 0", "persistence true", f"persistence_location {folder}/broker/",
                              "autosave_interval 1")  # fmt: skip
        self._alarms: subprocess.Popen[bytes] | None = None
        self._listener: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._broker.start()
        program = [sys.executable, "-P", str(PARTS / "ledger.py"), str(self._broker.port), f"{TOPIC}/machine/+/alert"]
        self.ledger.touch()
        self._listener = subprocess.Popen([*program, str(self.ledger)])
        until(lambda: self._subscriptions() == 1, "the ledger's subscription")
        self._start_alarms()

    def kill(self) -> None:
        """One of the two, after a while that nobody knows."""
        if self._chance.random() < 0.8:  # else maybe while it starts
            until(lambda: self._log.stat().st_size > self._log_at_start, "the alarms' first line")
        time.sleep(self._chance.uniform(0.0, 0.8))
        assert self._alarms is not None and self._alarms.poll() is None, (self._folder / "errors").read_text()
        if self._chance.random() < 0.5:
            self._alarms.kill()
            self._alarms.wait()
            self._start_alarms()
            return
        before = self._subscriptions()
        self._broker.stop()
        self.broker_kills.append(time.time())
        time.sleep(self._chance.uniform(0.0, 0.2))
        # The alarms must not be back before the ledger is: what a broker takes that knows no subscriber yet is unheard.
        self._alarms.send_signal(signal.SIGSTOP)
        self._broker.start()
        until(lambda: self._subscriptions() > before, "the ledger's subscription")
        self._alarms.send_signal(signal.SIGCONT)

    def settle(self, alerts: int, seconds: float) -> None:
        """Let there be so many alerts, and all of them be delivered."""
        until(lambda: self._count("1") >= alerts, "enough alerts", seconds)
        Path(f"{self.database}.enough").touch()
        until(lambda: self._count("delivered IS NULL") == 0, "the last acknowledgement", 120)
        assert self._alarms is not None
        self._alarms.send_signal(signal.SIGTERM)
        assert self._alarms.wait(20) == 0

    def stop(self) -> None:
        for process in (self._alarms, self._listener):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self._broker.stop()

    def result(self) -> Result:
        with sqlite3.connect(self.database) as connection:
            rows = list(connection.execute("SELECT id, payload, delivered FROM message ORDER BY number"))
        stored = [json.loads(unpack(payload) or "") for _, payload, _ in rows]
        assert [row[0] for row in rows] == [alert["id"] for alert in stored]
        lines = [line for line in self.ledger.read_text().splitlines() if line != "subscribed"]
        heard = [json.loads(line.split("\t")[1]) for line in lines]
        ids, heard_ids = {a["id"] for a in stored}, {a["id"] for a in heard}
        first = list({a["id"]: a for a in reversed(heard)}.values())[::-1]
        return Result(
            len(stored),
            len(heard),
            sum(row[2] is None for row in rows),
            sorted(ids - heard_ids),
            sorted(heard_ids - ids),
            [f"disk: {w}" for w in _disorder(stored)] + [f"ledger: {w}" for w in _disorder(first)],
        )

    def _start_alarms(self) -> None:
        with self._log.open("ab") as log, (self._folder / "errors").open("ab") as errors:
            self._log_at_start = self._log.stat().st_size
            command = [str(PARTS / "alarms.py"), str(self.database), str(self._broker.port), str(MACHINES)]
            self._alarms = subprocess.Popen([sys.executable, "-P", *command], stdout=log, stderr=errors)

    def _subscriptions(self) -> int:
        return self.ledger.read_text().count("subscribed\n")

    def _count(self, which: str) -> int:
        with sqlite3.connect(self.database, timeout=5) as connection:
            return int(connection.execute(f"SELECT count(*) FROM message WHERE {which}").fetchone()[0])


def _disorder(alerts: list[dict[str, object]]) -> list[str]:
    """Where a machine's alerts are not raised and cleared in turn, each pair under one UUID, numbered without a gap."""
    wrong = []
    of_machine = defaultdict(list)
    for alert in alerts:
        of_machine[alert["machine"]].append(alert)
    for machine, found in of_machine.items():
        for number, alert in enumerate(found, 1):
            expected = "raised" if number % 2 else "cleared"
            if alert["sequence"] != number or alert["event"] != expected:
                wrong.append(f"{machine}: {number}: {alert['event']} {alert['sequence']}")
                break
            if expected == "cleared" and alert["incident"] != found[number - 2]["incident"]:
                wrong.append(f"{machine}: {number}: another incident")
                break
    return wrong
