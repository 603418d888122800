"""Prometheus, Alertmanager and the dashboard as deploy/ has them, on real daemons into which faults are put.

One plant for all tests, in the order of the file: durations of the rules are shortened by 60 (a minute becomes a
second), the scrape interval to a second. `promtool test rules` tests what cannot be put into a daemon in seconds.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from parts.daemon import Daemon, write_config
from parts.deployed import Client, DeployedBroker, copy_of_deploy
from parts.metric_names import expressions
from parts.prometheus import Alertmanager, Prometheus, Told
from parts.sound_server import SoundServer
from parts.waiting import until

from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault

pytestmark = pytest.mark.system

RATE = 16_000
DEMO = Path(__file__).parents[2] / "edge_asd" / "demo"
CAE, ANOGAN = DEMO / "slide-rail.cae.onnx", DEMO / "slide-rail.anogan.onnx"
ALARM = "{threshold: 2.0, raise_after: 2 of 3, clear_after: 2, rest_seconds: 60}"
SLOW_MACHINES = 80
"""So many that no core of today scores their AnoGAN each second: one takes some 20 to 40 ms."""
FIRST_WINDOW_SECONDS = 15
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}


def shortened(rules: str) -> str:
    """The rules with a second for each minute, evaluated each second."""
    document = yaml.safe_load(rules)

    def short(text: str) -> str:
        return re.sub(r"\b(\d+)([mhd])\b", lambda m: f"{int(m[1]) * _MINUTES[m[2]]}s", text)

    for group in document["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[\w+\]|offset \w+", lambda m: short(m[0]), rule["expr"])
            if "for" in rule:
                rule["for"] = short(rule["for"])
            if rule.get("alert") == "EdgeAsdNotScoring":
                rule["for"] = f"{FIRST_WINDOW_SECONDS}s"  # which cannot be shortened
    return yaml.safe_dump(document)


def write_sound(path: Path, *phases: tuple[float, Fault | None], gain: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [simulate("id_00", seconds, seed=40, fault=fault, severity=1.0) for seconds, fault in phases]
    soundfile.write(path, np.clip(np.concatenate(parts) * gain, -1, 1), RATE, subtype="PCM_16")
    return path


def machine(name: str, sound: str, *detectors: Path, repeat: bool = True) -> str:
    files = ", ".join(map(str, detectors))
    heard = "channel: 1" if not sound else f"recordings: {sound}, repeat: {str(repeat).lower()}"
    return f"name: {name}, {heard}, detectors: [{files}], hop_seconds: 1, alarm: {ALARM}"


@dataclass
class Plant:
    """A server, and the daemons that it watches."""

    folder: Path
    deploy: Path
    broker: DeployedBroker
    sound: SoundServer
    told: Told
    prometheus: Prometheus
    alertmanager: Alertmanager
    daemons: dict[str, Daemon] = field(default_factory=dict)

    def watch(self, *names: str) -> None:
        """Have Prometheus watch these daemons and no others."""
        targets = [
            {
                "targets": [f"127.0.0.1:{self.daemons[name].wait_for('ready', 60)['metrics']}"],
                "labels": {"site": "plant-3", "node": "hall", "instance": f"hall/{name}"},
            }
            for name in names
        ]
        path = self.deploy / "prometheus" / "targets" / "edge_asd_tunnel.yml"
        part = path.with_suffix(".part")
        part.write_text(yaml.safe_dump(targets))
        part.replace(path)

    def wait_for(self, alert: str, status: str = "firing", seconds: float = 40, **labels: str) -> dict[str, Any]:
        found: dict[str, Any] = until(
            lambda: self.told.of(alert, status, **labels), f"{alert} {status} of {labels}", seconds
        )[0]
        return found


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """press: one machine that breaks and is repaired, one that stays broken, one that is sound; mill: a microphone that
    clips, and a user that may not publish; ear: a microphone of a sound server."""
    folder = tmp_path_factory.mktemp("plant")
    deploy = copy_of_deploy(folder)
    broker, told = DeployedBroker(deploy).start(), Told()
    sound = SoundServer(folder / "sound-server").start()
    rules = deploy / "prometheus" / "edge_asd.rules.yml"
    rules.write_text(shortened(rules.read_text()))

    alertmanager_file = deploy / "alertmanager" / "alertmanager.yml"
    document = yaml.safe_load(alertmanager_file.read_text())
    del document["global"]
    quick = {"group_wait": "1s", "group_interval": "1s"}
    document["route"] |= quick | {"receiver": "told"}
    document["route"]["routes"][0] |= quick
    document["receivers"] = [{"name": "told", "webhook_configs": [{"url": told.url, "send_resolved": True}]}]
    alertmanager_file.write_text(yaml.safe_dump(document))
    alertmanager = Alertmanager(alertmanager_file)

    config = deploy / "prometheus" / "prometheus.yml"
    document = yaml.safe_load(config.read_text())
    document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager.port}"]
    config.write_text(yaml.safe_dump(document))
    plant = Plant(folder, deploy, broker, sound, told, Prometheus(config), alertmanager)
    try:
        start_daemons(plant, folder)
        yield plant
    finally:
        for daemon in plant.daemons.values():
            daemon.kill()
        plant.prometheus.stop()
        alertmanager.stop()
        broker.stop()
        sound.kill()
        told.close()


def start_daemons(plant: Plant, folder: Path) -> None:
    write_sound(folder / "breaks" / "0.wav", (14, None), (10, Fault.LOOSE_BELT), (16, None))
    write_sound(folder / "broken" / "0.wav", (20, Fault.LOOSE_BELT))
    write_sound(folder / "sound" / "0.wav", (30, None))
    write_sound(folder / "clips" / "0.wav", (20, None), gain=200)
    for user in ("edge", "reader"):
        (folder / f"{user}-password").write_text(plant.broker.password(user))

    def mqtt(user: str) -> str:
        ca = plant.broker.secrets / "ca.crt"
        return (
            f"host: localhost, port: {plant.broker.port}, tls: {{ca: {ca}}}, "
            f"username: {user}, password_file: {user}-password"
        )

    press = [
        machine("breaks", "breaks", CAE, repeat=False),
        machine("broken", "broken", CAE, ANOGAN),
        machine("steady", "sound", CAE),
    ]
    plant.daemons["mill"] = Daemon(
        write_config(folder / "mill.yaml", machine("clips", "clips", CAE), mqtt=mqtt("reader"))
    )
    plant.daemons["press"] = Daemon(write_config(folder / "press.yaml", *press, mqtt=mqtt("edge")))
    heard = write_config(folder / "ear.yaml", machine("heard", "", CAE), mqtt=None, device="name: vmic")
    plant.daemons["ear"] = Daemon(heard, **plant.sound.environment)
    plant.watch("press", "mill", "ear")


def test_a_machine_breaks_and_is_repaired(plant: Plant) -> None:
    alert = plant.wait_for("EdgeAsdAnomalous", seconds=60, machine="breaks")
    assert (
        alert["labels"] | {"site": "plant-3", "node": "hall", "instance": "hall/press", "severity": "critical"}
        == (alert["labels"])
    )
    assert alert["annotations"]["summary"] == "breaks sounds wrong"
    plant.wait_for("EdgeAsdAnomalous", seconds=60, machine="broken")
    plant.wait_for("EdgeAsdAnomalous", "resolved", seconds=60, machine="breaks")


def test_a_microphone_clips(plant: Plant) -> None:
    alert = plant.wait_for("EdgeAsdSignalSuspect", machine="clips")
    assert alert["labels"]["reason"] == "clipping"


def test_a_machine_is_not_heard_any_more(plant: Plant) -> None:
    plant.wait_for("EdgeAsdDeaf", seconds=60, machine="breaks")


def test_the_broker_refuses_and_nobody_listens(plant: Plant) -> None:
    plant.wait_for("EdgeAsdBrokerRefuses", instance="hall/mill")
    plant.wait_for("EdgeAsdNobodyListens", instance="hall/press")


def test_a_computer_is_too_slow(plant: Plant) -> None:
    machines = [machine(f"slow-{n}", "sound", ANOGAN) for n in range(SLOW_MACHINES)]
    config = write_config(plant.folder / "slow.yaml", *machines, mqtt=None)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started now has one core
    try:
        plant.daemons["slow"] = Daemon(config)
    finally:
        os.sched_setaffinity(0, cores)
    plant.watch("press", "mill", "ear", "slow")
    plant.wait_for("EdgeAsdBudget", seconds=90, instance="hall/slow")
    plant.wait_for("EdgeAsdWindowsLate", seconds=90, instance="hall/slow")
    plant.daemons.pop("slow").kill()  # the others need the core
    plant.wait_for("EdgeAsdDown", instance="hall/slow")
    plant.watch("press", "mill", "ear")


def test_a_microphone_is_pulled_out(plant: Plant) -> None:
    plant.sound.kill()
    plant.wait_for("EdgeAsdDeviceLost", instance="hall/ear")
    time.sleep(5)  # longer than `for` of EdgeAsdDeaf
    assert not plant.told.of("EdgeAsdDeaf", machine="heard"), "the device says it for all its machines"
    plant.sound.start()
    plant.wait_for("EdgeAsdDeviceLost", "resolved", instance="hall/ear")


def test_a_machine_without_a_fault_raises_nothing(plant: Plant) -> None:
    of_steady = {a["labels"]["alertname"] for a in plant.told.alerts if a["labels"].get("machine") == "steady"}
    assert of_steady == set()


def test_every_expression_of_the_dashboard_gives_data(plant: Plant) -> None:
    """With all machines, and with one; at a time when a machine is anomalous, as one always is here."""
    dashboard = json.loads((plant.deploy / "grafana" / "dashboards" / "edge_asd.json").read_text())
    median = "machine:edge_asd_machine_rarity:median6h"
    until(lambda: plant.prometheus.query(f'{median}{{machine="steady"}}'), "the median of rarity", 90)
    for machine in (".*", "broken"):
        empty = []
        for where, expr in expressions(dashboard):
            for name, value in [("__rate_interval", "10s"), ("__range", "2m"), ("machine", machine)]:
                expr = expr.replace(f"${name}", value)
            expr = re.sub(r"\$\w+", ".*", expr)
            assert "$" not in expr
            found = plant.prometheus.query(expr)
            # `broken` is never normal, and what is no daemon's yet cannot be asked for.
            if not found and not (machine == "broken" and median in expr):
                empty.append(where)
        assert empty == []


def test_the_variables_of_the_dashboard_have_values(plant: Plant) -> None:
    dashboard = json.loads((plant.deploy / "grafana" / "dashboards" / "edge_asd.json").read_text())
    values = {}
    for variable in dashboard["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("definition", ""))
        if asked:
            series = re.sub(r"\$\w+", ".*", asked[1])
            found = plant.prometheus.query(f"count by ({asked[2]}) ({series})")
            values[variable["name"]] = {s["metric"][asked[2]] for s in found}
    assert values["site"] == {"plant-3"} and values["node"] == {"hall"}
    assert {"hall/press", "hall/mill"} <= values["instance"]
    assert {"breaks", "broken", "steady", "clips"} <= values["machine"]


def test_the_broker_dies(plant: Plant) -> None:
    plant.broker.stop()
    plant.wait_for("EdgeAsdBrokerLost", instance="hall/press")
    plant.broker.start()
    plant.wait_for("EdgeAsdBrokerLost", "resolved", seconds=90, instance="hall/press")
    reader = Client(plant.broker, "reader")
    reader.subscribe("edge_asd/#")
    until(lambda: reader.heard("edge_asd/plant-3/hall/machine/broken/state"), "the state, sent again")
    reader.close()


def test_a_daemon_dies_in_an_incident(plant: Plant) -> None:
    """The incident is not over because nobody listens any more."""
    resolved = len(plant.told.of("EdgeAsdAnomalous", "resolved", machine="broken"))
    plant.daemons.pop("press").kill()
    plant.wait_for("EdgeAsdDown", instance="hall/press")
    time.sleep(6)  # longer than a rule and Alertmanager take
    assert len(plant.told.of("EdgeAsdAnomalous", "resolved", machine="broken")) == resolved
    assert plant.prometheus.query('ALERTS{alertname="EdgeAsdAnomalous",alertstate="firing",machine="broken"}')


def test_targets_vanish(plant: Plant) -> None:
    plant.watch()
    plant.wait_for("EdgeAsdVanished", instance="hall/mill")
    plant.wait_for("EdgeAsdAbsent")
