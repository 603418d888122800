"""SIGHUP to a daemon of its own, with a real broker: what its subscribers and Prometheus hear of a reload."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from jsonschema import Draft202012Validator
from parts.broker import Broker, Subscriber
from parts.daemon import Daemon, write_config
from parts.waiting import until

from edge_asd.demo.clips import simulate

pytestmark = pytest.mark.system


def test_an_open_incident_is_cleared_by_another_detector_under_its_own_name(
    tmp_path: Path, site_file: Path, statistics_file: Path, schema: Callable[[str], Draft202012Validator]
) -> None:
    soundfile.write(tmp_path / "rail.wav", simulate("id_00", 30, seed=5), 16_000, subtype="PCM_16")
    broker = Broker(tmp_path / "broker").start()
    subscriber = Subscriber(broker.port)
    machine = "name: rail-7, recordings: rail.wav, hop_seconds: 1, detectors: [%s], alarm: {%s}"
    everything_raises = "threshold: 0.001, raise_after: 1 of 1, clear_after: 100, rest_seconds: 0"
    nothing_does = "threshold: 11, raise_after: 1 of 1, clear_after: 1, rest_seconds: 600"
    mqtt = f"host: 127.0.0.1, port: {broker.port}"
    config = write_config(tmp_path / "press.yaml", machine % (site_file, everything_raises), mqtt=mqtt)
    daemon = Daemon(config, NOTIFY_SOCKET=str(tmp_path / "nobody"))  # as a service, also where there is a terminal
    try:
        (raised,) = until(lambda: subscriber.of("machine/rail-7/alert"), "the alert", 30)
        two = f"{site_file}, {{file: {statistics_file}, id: id_00}}"
        write_config(config, machine % (two, nothing_does), mqtt=mqtt)
        daemon.process.send_signal(signal.SIGHUP)
        told = daemon.wait_for("reloaded")
        assert told["changed"] == {"rail-7": ["detectors", "alarm"]}
        _, cleared = until(lambda: len(found := subscriber.of("machine/rail-7/alert")) == 2 and found, "its end", 10)
        before, after = json.loads(raised.text), json.loads(cleared.text)
        assert (before["event"], after["event"], after["sequence"]) == ("raised", "cleared", 2)
        assert before["incident"] == after["incident"] and len(after["detectors"]) == 2
        states = [json.loads(m.text) for m in subscriber.of("machine/rail-7/state")]
        for state in states:
            schema("state").validate(state)
        held = [s for s in states if (s["threshold"], s["incident"]) == (11, before["incident"])]
        assert held and len(held[0]["detectors"]) == 2, "told at once, before the next window"
        info = f'{{detector="{statistics_file.name}",kind="statistics",machine="rail-7",sha256="%s"}}'
        assert daemon.metric("edge_asd_detector_info" + info % after["detectors"][1]["sha256"]) == 1
        # What is wrong is told, and whatever it is, the sound goes on.
        config.write_text(config.read_text().replace("hop_seconds", "hop"))
        frames = daemon.metric('edge_asd_audio_frames_total{machine="rail-7"}')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("reload_failed")
        assert daemon.metric("edge_asd_config_last_reload_successful") == 0
        loaded = daemon.metric("edge_asd_config_last_reload_success_timestamp_seconds")
        assert 0 < time.time() - loaded < 30
        until(lambda: daemon.metric('edge_asd_audio_frames_total{machine="rail-7"}') > frames, "more sound", 5)
        assert daemon.terminate() == 0
    finally:
        daemon.kill()
        subscriber.close()
        broker.stop()
