"""What deploy/integration.md promises to programs: its example, its topics and its metrics are the daemon's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from parts.metric_names import served

from edge_asd.detector import Detector
from edge_asd.publish.payloads import Place
from edge_asd.publish.topics import ROOT, daemon_topic, machine_topic

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def text() -> str:
    return (DEPLOY / "integration.md").read_text()


def test_the_alert_is_one(text: str, schema: Callable[[str], Draft202012Validator]) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    schema("alert").validate(json.loads(example))


def test_the_topics_are_the_daemons(text: str) -> None:
    said = set(re.findall(rf"\| `({ROOT}/[^`]+)` \|", text))
    place = Place("SITE", "NODE", "INSTANCE", "MACHINE")
    kinds = ("alert", "state", "score", "maintenance/set")
    assert said == {daemon_topic("SITE", "NODE", "INSTANCE", "status"), *(machine_topic(place, k) for k in kinds)}


def test_every_metric_is_told_and_there(text: str, site: Detector) -> None:
    said = set(re.findall(r"^\| `(edge_asd_\w+)`", text, re.MULTILINE))
    there = {name for name in served(site) if name.startswith("edge_asd_") and not name.endswith("_created")}
    assert said == {re.sub("_(bucket|count|sum)$", "", name) for name in there}


def test_its_links_lead_somewhere(text: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (DEPLOY / link).exists(), link
