"""Home Assistant's discovery: what it wants to see, and what its templates make of our real documents."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jinja2
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from parts.pipelines import QUICK, RATE, pipeline_of

from edge_asd.audio.windows import Window
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.maintenance import Maintenance
from edge_asd.publish import payloads
from edge_asd.publish.discovery import discovery
from edge_asd.publish.payloads import MachineState, Place

PLACE = Place("plant-3", "hall", "press", "rail-7")
MACHINE = "edge_asd/plant-3/hall/machine/rail-7"

# As Home Assistant's own schemas have it (components/mqtt/schemas.py, binary_sensor.py, sensor.py, 2024.11 and later),
# without its abbreviations. There, an entity's keys that are not known are dropped: here none may be.
_TOPIC = {"type": "string", "pattern": r"^[^+#\x00]+$"}
_TEMPLATE = {"type": "string", "pattern": r"^\{\{ .+ \}\}$"}
_TEXT = {"type": "string", "minLength": 1}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


_ENTITY = {
    "unique_id": _TEXT,
    "name": {"type": ["string", "null"]},
    "state_topic": _TOPIC,
    "value_template": _TEMPLATE,
}
_OF_ENTITIES = {
    "json_attributes_topic": _TOPIC,
    "json_attributes_template": _TEMPLATE,
    "entity_category": {"enum": ["config", "diagnostic"]},
    "icon": {"type": "string", "pattern": "^mdi:[a-z-]+$"},
    "expire_after": {"type": "integer", "minimum": 0},
}
_BINARY_SENSOR = _object(
    {"platform": {"const": "binary_sensor"}, **_ENTITY},
    {**_OF_ENTITIES, "device_class": {"enum": ["problem", "running", "sound", "connectivity"]}},
)
_SENSOR = _object(
    {"platform": {"const": "sensor"}, **_ENTITY},
    {
        **_OF_ENTITIES,
        "state_class": {"enum": ["measurement", "total", "total_increasing"]},
        "suggested_display_precision": {"type": "integer", "minimum": 0},
    },
)
HOME_ASSISTANT = Draft202012Validator(
    _object(
        {
            "device": _object(
                {"identifiers": {"type": "array", "items": _TEXT, "minItems": 1}},
                dict.fromkeys(("name", "manufacturer", "model", "sw_version"), _TEXT),
            ),
            "origin": _object({"name": _TEXT}, {"sw_version": _TEXT, "support_url": _TEXT}),
            "components": {"type": "object", "additionalProperties": {"oneOf": [_BINARY_SENSOR, _SENSOR]}},
        },
        {
            "availability": {
                "type": "array",
                "items": _object({"topic": _TOPIC}, {"payload_available": _TEXT, "payload_not_available": _TEXT}),
            },
            "availability_mode": {"enum": ["all", "any", "latest"]},
            "qos": {"enum": [0, 1, 2]},
        },
    )
)


def discovered(place: Place = PLACE, hop: float = 10.0) -> tuple[str, dict[str, Any]]:
    topic, text = discovery(
        place, root="edge_asd", prefix="homeassistant", hop_seconds=hop, kinds=["cae", "statistics"]
    )
    return topic, json.loads(text)


def test_it_is_what_home_assistant_wants() -> None:
    topic, document = discovered()
    HOME_ASSISTANT.validate(document)
    # Its pattern of topics, see components/mqtt/discovery.py.
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", topic)
    for missing in ("device", "origin", "components"):
        assert not HOME_ASSISTANT.is_valid({k: v for k, v in document.items() if k != missing})
    components = document["components"]
    assert {key: c["platform"] for key, c in components.items()} == {
        "problem": "binary_sensor",
        "rarity": "sensor",
        "signal": "binary_sensor",
        "maintenance": "binary_sensor",
    }
    assert components["problem"]["device_class"] == "problem" and "entity_category" not in components["problem"]
    assert components["rarity"]["state_class"] == "measurement"
    assert {components[k]["entity_category"] for k in ("signal", "maintenance")} == {"diagnostic"}


def test_its_topics_are_those_that_are_published() -> None:
    _, document = discovered()
    (availability,) = document["availability"]
    assert availability == {
        "topic": "edge_asd/plant-3/hall/daemon/press/status",
        "payload_available": "online",
        "payload_not_available": "offline",
    }
    topics = {key: c["state_topic"] for key, c in document["components"].items()}
    state = f"{MACHINE}/state"
    assert topics == {"problem": state, "rarity": f"{MACHINE}/score", "signal": state, "maintenance": state}


@pytest.mark.parametrize(("hop", "seconds"), [(1.0, 60), (10.0, 60), (60.0, 240), (3600.0, 14_400)])
def test_a_rarity_expires_when_no_window_follows(hop: float, seconds: int) -> None:
    assert discovered(hop=hop)[1]["components"]["rarity"]["expire_after"] == seconds


def test_no_two_machines_are_one() -> None:
    places = [
        PLACE,
        replace(PLACE, machine="rail-8"),
        replace(PLACE, site="plant", node="3-hall"),
        replace(PLACE, node="hall-rail", machine="7"),
        replace(PLACE, site="plant_3"),
    ]
    found = [discovered(p) for p in places]
    assert len({topic for topic, _ in found}) == len(places)
    identifiers = [c["unique_id"] for _, d in found for c in d["components"].values()]
    assert len(set(identifiers)) == len(identifiers) == 4 * len(places)
    assert len({d["device"]["identifiers"][0] for _, d in found}) == len(places)
    # The daemon that serves a machine may be another one tomorrow: it stays the same device.
    assert discovered(replace(PLACE, instance="other"))[0] == discovered()[0]


class HomeAssistant:
    """What its entities show after a document, as its MQTT integration makes it of a template's text."""

    def __init__(self) -> None:
        self.entities = discovered()[1]["components"]
        self._environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
        self._environment.filters["tojson"] = json.dumps

    def show(self, topic: str, document: dict[str, Any]) -> dict[str, str | float | None]:
        shown: dict[str, str | float | None] = {}
        for key, entity in self.entities.items():
            if entity["state_topic"] != topic:
                continue
            text = self._render(entity["value_template"], document)
            if entity["platform"] == "binary_sensor":
                assert text in ("ON", "OFF"), text
                shown[key] = text
            else:
                shown[key] = None if text == "None" else float(text)
        return shown

    def attributes(self, key: str, document: dict[str, Any]) -> dict[str, Any]:
        loaded = json.loads(self._render(self.entities[key]["json_attributes_template"], document))
        assert isinstance(loaded, dict), "Home Assistant takes nothing else"
        return loaded

    def _render(self, template: str, document: dict[str, Any]) -> str:
        return self._environment.from_string(template).render(value_json=json.loads(json.dumps(document)))


def test_templates_make_on_and_off_of_real_documents(site: Detector) -> None:
    pipeline = pipeline_of(site, alarm=QUICK, hop=10.0, active_above_dbfs=-60.0)
    state = MachineState(PLACE, pipeline)
    home = HomeAssistant()
    normal = simulate("id_00", 10, seed=5)
    broken = simulate("id_00", 10, seed=5, fault=Fault.RAIL_DAMAGE, severity=1.0)
    position = 0

    def hear(samples: Any) -> tuple[dict[str, Any], float | str | None]:
        nonlocal position
        reading = pipeline.read(Window(position, samples, 0), is_held=lambda: pipeline.is_in_maintenance)
        position += 10 * RATE
        state.take(reading)
        rarity = home.show(f"{MACHINE}/score", payloads.score(state, reading))["rarity"]
        return home.show(f"{MACHINE}/state", payloads.machine_state(state)), rarity

    assert home.show(f"{MACHINE}/state", payloads.machine_state(state)) == {
        "problem": "OFF",
        "signal": "ON",
        "maintenance": "OFF",
    }
    state.hear("ok", None)
    shown, rarity = hear(normal)
    assert shown == {"problem": "OFF", "signal": "OFF", "maintenance": "OFF"}
    assert isinstance(rarity, float) and 0 <= rarity < 2
    shown, rarity = hear(broken)
    assert shown == {"problem": "ON", "signal": "OFF", "maintenance": "OFF"}
    assert isinstance(rarity, float) and rarity >= 2
    attributes = home.attributes("problem", payloads.machine_state(state))
    assert attributes["incident"] == pipeline.alarm.incident and attributes["condition"] == "anomalous"
    shown, rarity = hear(np.zeros(10 * RATE, np.float32))
    assert shown["problem"] == "ON" and rarity is None, "idle: the incident is held, and there is no rarity"
    pipeline.is_in_maintenance = True
    state.maintain(Maintenance.of(2, "mia", datetime.now(UTC)))
    shown, rarity = hear(normal)
    assert shown == {"problem": "ON", "signal": "OFF", "maintenance": "ON"}, "the incident is held"
    assert home.attributes("maintenance", payloads.machine_state(state))["by"] == "mia"
    pipeline.is_in_maintenance = False
    state.maintain(None)
    shown, _ = hear(normal)
    assert shown == {"problem": "OFF", "signal": "OFF", "maintenance": "OFF"}
    assert home.attributes("maintenance", payloads.machine_state(state)) == {}
    state.hear("suspect", "flat tops", "clipping")
    assert home.show(f"{MACHINE}/state", payloads.machine_state(state))["signal"] == "ON"
    assert home.attributes("signal", payloads.machine_state(state)) == {
        "signal": "suspect",
        "signal_reason": "flat tops",
        "suspect": "clipping",
    }
