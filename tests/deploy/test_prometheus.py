"""The alert rules: promtool's own tests, names that exist, and texts for whoever is called."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts.metric_names import OF_PROMETHEUS, asked_for, served

from edge_asd.config_publish import MqttSection
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.verification import load_detector

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DEMO_DETECTOR = Path(__file__).parents[2] / "edge_asd" / "demo" / "slide-rail.cae.onnx"
HASH_OF_TEST = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"
"""bcrypt of the word "test", from Prometheus' documentation."""
GROUPS = yaml.safe_load((PROMETHEUS / "edge_asd.rules.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]


def run(program: str, *arguments: str | Path, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: make apt")
    done = subprocess.run([program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_rules_are_valid_and_fire_when_they_should() -> None:
    run("promtool", "check", "rules", "edge_asd.rules.yml")
    run("promtool", "test", "rules", "edge_asd.rules.test.yml", "edge_asd.days.test.yml")


def test_every_alert_is_tested() -> None:
    text = (PROMETHEUS / "edge_asd.rules.test.yml").read_text()
    tested = set(re.findall(r'alertname="(\w+)"', text))
    assert tested == {alert["alert"] for alert in ALERTS}


def test_what_the_rules_ask_for_exists() -> None:
    names = served(load_detector(DEMO_DETECTOR))
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for rule in RULES:
        asked = asked_for(rule["expr"])
        assert asked, rule
        assert asked <= names | recorded | OF_PROMETHEUS, rule


def test_a_daemon_without_a_broker_has_none_to_lose(tmp_path: Path) -> None:
    """`== 0` must hold of a broker that is away, and not where none is configured."""
    metrics = Metrics()
    connected = "edge_asd_mqtt_connected"
    assert math.isnan(metrics.registry.get_sample_value(connected) or 0)
    MqttPublisher(
        MqttSection(host="127.0.0.1"),
        site="plant-3",
        node="hall",
        instance="press",
        log=(log := Log(io.StringIO())),
        metrics=metrics,
        outbox=Outbox(tmp_path / "press.sqlite", log=log, metrics=metrics),
        on_connected=lambda: None,
    )
    assert metrics.registry.get_sample_value(connected) == 0


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_it_means_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["labels"]["about"] in ("machine", "microphone", "computer", "delivery")
    assert set(alert["annotations"]) == {"summary", "description", "action"}
    assert all(len(text) > 20 for text in alert["annotations"].values())
    assert len(alert["annotations"]["summary"]) < 80, "a telephone shows no more"


def test_configurations_are_valid(tmp_path: Path) -> None:
    """As they are, but for the secrets' folder."""
    folder = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, folder)
    secrets = folder / "secrets"
    secrets.mkdir()
    script = DEPLOY / "mosquitto" / "make-certificates.sh"
    subprocess.run(["sh", str(script), str(secrets), "server", "localhost"], check=True, capture_output=True)
    (secrets / "metrics-password").write_text("x")
    for name in ("prometheus.yml", "web.yml"):
        path = folder / name
        path.write_text(path.read_text().replace("/run/secrets", str(secrets)))
    run("promtool", "check", "config", "prometheus.yml", folder=folder)
    run("promtool", "check", "config", "--agent", "agent.yml", folder=folder)
    web = folder / "web.yml"
    web.write_text(web.read_text().replace("REPLACE-BY-A-BCRYPT-HASH", HASH_OF_TEST))  # as it comes, it is refused
    run("promtool", "check", "web-config", "web.yml", folder=folder)
    # The examples in the files of targets, once uncommented, are targets.
    for path in sorted((folder / "targets").iterdir()):
        lines = path.read_text().replace("# - targets", "- targets").replace("#   labels", "  labels").splitlines()
        (entry,) = yaml.safe_load("\n".join(line for line in lines if line != "[]"))
        assert set(entry["labels"]) == {"site", "node", "instance"} and len(entry["targets"]) == 1


def test_alertmanager_is_valid_and_routes() -> None:
    folder = DEPLOY / "alertmanager"
    run("amtool", "check-config", "alertmanager.yml", folder=folder)
    routes = run(
        "amtool", "config", "routes", "test", "--config.file=alertmanager.yml", "severity=critical", folder=folder
    )
    assert routes.stdout.split() == ["shown"]
    names = {alert["alert"] for alert in ALERTS}
    for rule in yaml.safe_load((folder / "alertmanager.yml").read_text())["inhibit_rules"]:
        told = re.findall(r'alertname="(\w+)"', " ".join(rule["source_matchers"] + rule["target_matchers"]))
        assert told and set(told) <= names
