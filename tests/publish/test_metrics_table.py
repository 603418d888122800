"""Every metric that is promised is there from the start, with its type, its labels and a help text; and no other."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from parts.metrics_server import Served
from prometheus_client.parser import text_string_to_metric_families

from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.verification import load_detector

REPOSITORY = Path(__file__).parents[2]
TABLE = """
machine_rarity                  gauge      machine
machine_rarity_threshold        gauge      machine
condition                       gauge      machine condition
signal                          gauge      machine signal
signal_suspect                  gauge      machine reason
audio_level_dbfs                gauge      machine
windows_total                   counter    machine result
audio_frames_total              counter    machine
audio_lost_frames_total         counter    machine
audio_disturbances_total        counter    kind
audio_device_up                 gauge
last_score_timestamp_seconds    gauge      machine
incidents_total                 counter    machine
detector_score                  gauge      machine detector
scoring_duration_seconds        histogram  machine detector
detector_info                   gauge      machine detector sha256 kind
scoring_budget_ratio            gauge
mqtt_connected                  gauge
mqtt_acknowledged_total         counter
mqtt_refused_total              counter
mqtt_unheard_total              counter
config_last_reload_successful   gauge
config_last_reload_success_timestamp_seconds  gauge
build_info                      gauge      version
"""
NO_METRICS = {"edge_asd_train"}
"""Names in the README that begin as metrics do."""


@pytest.fixture
def page(tiny: Callable[..., bytes], tmp_path: Path) -> str:
    """What ``/metrics`` shows of a daemon that has a device and a machine, and has heard nothing yet."""
    (tmp_path / "tiny.onnx").write_bytes(tiny())
    detector = MachineDetector.of(load_detector(tmp_path / "tiny.onnx"), None)
    with Served() as served:
        served.metrics.introduce("rail-7", Pipeline([detector], AlarmSettings(threshold=2.5), hop_seconds=10.0))
        served.metrics.introduce_device()
        return served.get("/metrics")[2].decode()


def test_the_table(page: str) -> None:
    found = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation.endswith("."), family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.samples, f"{name} has no series from the start"
        found[name] = (family.type, labels)
    for line in TABLE.strip().splitlines():
        name, kind, *labels = line.split()
        assert found[f"edge_asd_{name}"] == (kind, set(labels))


def test_every_name_of_the_readme_is_there(page: str) -> None:
    there = set(re.findall(r"^(edge_asd_\w+)", page, re.MULTILINE))
    said = set(re.findall(r"\b(edge_asd_[a-z_]+)\b", (REPOSITORY / "README.md").read_text())) - NO_METRICS
    assert len(said) > 5 and said <= there, said - there


def test_promtool_has_nothing_to_say(page: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run([program, "check", "metrics"], input=page, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
