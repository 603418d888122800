"""Makes a machine known to Home Assistant: one retained document for each, on ``homeassistant/device/ID/config``.

The format is that of its device discovery (Home Assistant 2024.11 and later,
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload). The machine is the device; its entities
read the documents that are published anyway, so nothing else has to be sent.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from edge_asd import __version__
from edge_asd.publish.payloads import Place

_EXPIRED_HOPS = 4
"""A rarity that is not followed by another for so long is unknown: windows may be late, and one may be lost."""
_LEAST_EXPIRY_SECONDS = 60


def discovery(place: Place, *, root: str, prefix: str, hop_seconds: float, kinds: list[str]) -> tuple[str, str]:
    """Topic and payload of a machine.

    Args:
        place: of the machine.
        root: topics begin with it, see `edge_asd.publish.mqtt`.
        prefix: Home Assistant's discovery prefix.
        hop_seconds: from score to score.
        kinds: of its detectors, for people.
    """
    base = f"{root}/{place.site}/{place.node}"
    state, score = (f"{base}/machine/{place.machine}/{kind}" for kind in ("state", "score"))
    identity = f"{root}/{place.site}/{place.node}/{place.machine}"

    def entity(key: str, platform: str, name: str | None, topic: str, template: str, **more: Any) -> dict[str, Any]:
        return {
            "platform": platform,
            "unique_id": f"{identity}/{key}",
            "name": name,
            "state_topic": topic,
            "value_template": template,
            **more,
        }

    document = {
        "device": {
            "identifiers": [identity],
            "name": place.machine,
            "manufacturer": "edge_asd",
            "model": f"{place.site} / {place.node}: {', '.join(kinds)}",
            "sw_version": __version__,
        },
        "origin": {"name": "edge_asd", "sw_version": __version__},
        "availability": [
            {
                "topic": f"{base}/daemon/{place.instance}/status",
                "payload_available": "online",
                "payload_not_available": "offline",
            }
        ],
        "availability_mode": "all",
        "qos": 1,
        "components": {
            # An incident, not the condition: it stays what it is through maintenance and standstill.
            "problem": entity(
                "problem",
                "binary_sensor",
                "Anomaly",
                state,
                _on_if("value_json.incident is not none"),
                device_class="problem",
                json_attributes_topic=state,
                json_attributes_template=_only("condition", "since", "incident", "threshold", "last_alert"),
            ),
            "rarity": entity(
                "rarity",
                "sensor",
                "Rarity",
                score,
                "{{ value_json.rarity }}",
                state_class="measurement",
                suggested_display_precision=2,
                expire_after=max(_LEAST_EXPIRY_SECONDS, math.ceil(_EXPIRED_HOPS * hop_seconds)),
                icon="mdi:waveform",
            ),
            "signal": entity(
                "signal",
                "binary_sensor",
                "Sound signal",
                state,
                _on_if("value_json.signal != 'ok'"),
                device_class="problem",
                entity_category="diagnostic",
                json_attributes_topic=state,
                json_attributes_template=_only("signal", "signal_reason", "suspect"),
            ),
            "maintenance": entity(
                "maintenance",
                "binary_sensor",
                "Maintenance",
                state,
                _on_if("value_json.maintenance is not none"),
                entity_category="diagnostic",
                json_attributes_topic=state,
                json_attributes_template="{{ (value_json.maintenance or {}) | tojson }}",
                icon="mdi:wrench-clock",
            ),
        },
    }
    return f"{prefix}/device/{_object_id(identity)}/config", json.dumps(document)


def _on_if(condition: str) -> str:
    return f"{{{{ 'ON' if {condition} else 'OFF' }}}}"


def _only(*keys: str) -> str:
    """A template of the attributes that an entity shows."""
    return f"{{{{ {{{', '.join(f'{k!r}: value_json.{k}' for k in keys)}}} | tojson }}}}"


def _object_id(identity: str) -> str:
    """Letters, digits, - and _, and different where the identity is: with slashes made -, ``a-b/c`` was ``a/b-c``."""
    return f"{identity.replace('/', '-')}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
