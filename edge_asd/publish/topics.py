"""MQTT topics."""

from __future__ import annotations

from collections.abc import Callable

from edge_asd.publish.payloads import Place

ROOT = "edge_asd"

Hearer = Callable[[str, bytes, bool], None]
"""Takes a message: its topic, its payload, and whether it is retained, or was published to be."""


def machine_topic(place: Place, kind: str) -> str:
    """Of a machine; ``kind`` is ``alert``, ``state`` or ``score``."""
    return f"{ROOT}/{place.site}/{place.node}/machine/{place.machine}/{kind}"


def daemon_topic(site: str, node: str, instance: str, kind: str) -> str:
    """Of a daemon; ``kind`` is ``status`` or ``test``."""
    return f"{ROOT}/{site}/{node}/daemon/{instance}/{kind}"
