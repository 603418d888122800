"""What a configuration may say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from parts.configs import SMALL, complaint, config

from edge_asd.config_file import load_config

FULL = """\
# A hall with two machines.
site: plant-3
node: press-hall-1
machines:
  - name: slide-rail-7
    recordings: sound/rail
    recording_channel: 2
    repeat: true
    detectors: [slide-rail-7.cae.onnx, {file: /opt/models/all.onnx, id: id_02}]
    hop_seconds: 2.5
    active_when: {level_above_dbfs: -55}
    alarm: {false_alarms_per_day: 0.5, raise_after: 2 of 4, clear_after: 6, rest_seconds: 60}
  - name: fan_1
    recordings: /var/sound/fan.flac
    detectors:
      - fan.onnx
    alarm:
      threshold: 3
mqtt:
  host: broker.plant-3
  port: 8883
  tls: {ca: plant-ca.pem, certificate: client.pem, key: client.key}
  username: edge
  password_file: mqtt-password
metrics:
  listen: "[::1]:9464"
  tls: {certificate: hall.pem, key: hall.key}
  username: prometheus
  password_file: metrics-password
scoring: {cores: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hall.yaml"


def test_every_key_is_read(file):
    read = config(file, FULL)
    rail, fan = read.machines
    assert (read.site, read.node) == ("plant-3", "press-hall-1")
    assert (rail.name, rail.recording_channel, rail.repeat, rail.hop_seconds) == ("slide-rail-7", 2, True, 2.5)
    assert rail.active_when is not None
    assert rail.active_when.level_above_dbfs == -55.0
    assert [d.id for d in rail.detectors] == [None, "id_02"]
    alarm = rail.alarm.settings()
    assert (alarm.raise_count, alarm.raise_window, alarm.clear_after, alarm.rest_seconds) == (2, 4, 6, 60.0)
    assert (alarm.false_alarms_per_day, alarm.threshold) == (0.5, None)
    assert fan.alarm.settings().threshold == 3.0
    assert read.mqtt is not None
    assert (read.mqtt.host, read.mqtt.port, read.mqtt.username) == ("broker.plant-3", 8883, "edge")
    assert read.metrics is not None
    assert read.metrics.address == ("::1", 9464)
    assert read.scoring.cores == 2
    assert read.metrics.username == "prometheus"
    assert read.metrics.password_file == file.parent / "metrics-password"
    assert read.metrics.tls is not None
    assert (read.metrics.tls.certificate, read.metrics.tls.key) == (file.parent / "hall.pem", file.parent / "hall.key")


def test_a_device_and_its_channels(file):
    text = SMALL.replace("recordings: sound", "channel: 2").replace("detectors: [cae.onnx]", "active_when: learned")
    read = config(
        file, f"{text}device: {{name: 'USB Audio CODEC', usb: '08bb:29c6', source: s, channels: 2, rate: 48000}}\n"
    )
    assert read.device is not None
    assert (read.device.name, read.device.usb, read.device.source) == ("USB Audio CODEC", "08bb:29c6", "s")
    assert (read.device.channels, read.device.rate) == (2, 48_000)
    (machine,) = read.machines
    assert (machine.channel, machine.recordings, machine.detectors) == (2, None, ())
    assert machine.active_when is not None
    assert machine.active_when.gate == "learned"
    where, what = complaint(file, f"{text}device: {{name: USB, channels: 1}}\n")
    assert (where, what) == ("5:5", "machines.1.channel: slide-rail-7 listens to channel 2 of 1 device.channels")


def test_what_is_left_out_has_a_default(file):
    read = config(file, SMALL)
    (machine,) = read.machines
    assert (machine.recording_channel, machine.repeat, machine.hop_seconds) == (1, False, 10.0)
    assert machine.active_when is None
    assert read.scoring.cores is None
    alarm = machine.alarm.settings()
    assert (alarm.false_alarms_per_day, alarm.threshold) == (0.1, None)
    assert (alarm.raise_count, alarm.raise_window, alarm.clear_after, alarm.rest_seconds) == (3, 5, 5, 300.0)
    assert read.mqtt is None
    assert read.metrics is None
    assert read.evidence is None


def test_relative_paths_start_at_the_folder_of_the_configuration(file, monkeypatch):
    monkeypatch.chdir("/")
    read = config(file, FULL)
    rail, fan = read.machines
    folder = file.parent
    assert rail.recordings == folder / "sound" / "rail"
    assert fan.recordings == Path("/var/sound/fan.flac")
    assert [d.file for d in rail.detectors] == [folder / "slide-rail-7.cae.onnx", Path("/opt/models/all.onnx")]
    assert read.mqtt is not None
    assert read.mqtt.tls is not None
    assert read.mqtt.tls.ca == folder / "plant-ca.pem"
    assert read.mqtt.tls.certificate == folder / "client.pem"
    assert read.mqtt.tls.key == folder / "client.key"
    assert read.mqtt.password_file == folder / "mqtt-password"


def test_a_relative_path_to_the_configuration_gives_absolute_ones(file, monkeypatch):
    file.write_text(SMALL)
    monkeypatch.chdir(file.parent)
    assert load_config(Path(file.name)).machines[0].recordings == file.parent / "sound"


@pytest.mark.parametrize("tls", ["tls: {}", "tls:"])
def test_an_empty_tls_section_is_tls(file, tls):
    mqtt = config(file, f"{SMALL}mqtt:\n  host: broker\n  {tls}\n").mqtt
    assert mqtt is not None
    assert mqtt.tls is not None


def test_a_topic_that_says_whether_a_machine_runs(file):
    text = f"{SMALL}    active_when: {{topic: plc/press-7/running, on: '1', off: '0'}}\n"
    gate = config(file, f"{text}mqtt: {{host: h}}\n").machines[0].active_when
    assert gate is not None
    assert (gate.topic, gate.on, gate.off, gate.gate) == ("plc/press-7/running", "1", "0", None)
    assert complaint(file, text) == (
        "7:19",
        "machines.1.active_when.topic: slide-rail-7 runs when an MQTT topic says so, but there is no mqtt section",
    )


@pytest.mark.parametrize(
    ("discovery", "prefix"),
    [
        ("", None),
        (", discovery: false", None),
        (", discovery: true", "homeassistant"),
        (", discovery: {}", "homeassistant"),
        (", discovery: ", "homeassistant"),
        (", discovery: {prefix: home/assistant}", "home/assistant"),
    ],
)
def test_discovery_is_an_option(file, discovery, prefix):
    mqtt = config(file, f"{SMALL}mqtt: {{host: h{discovery}}}\n").mqtt
    assert mqtt is not None
    assert (mqtt.discovery.prefix if mqtt.discovery else None) == prefix


@pytest.mark.parametrize("host", ["broker", "broker.plant-3", "127.0.0.1", "::1", "fe80::1%eth0", "b\u00fcro.example"])
def test_names_and_addresses_are_hosts(file, host):
    assert config(file, f"{SMALL}mqtt: {{host: {json.dumps(host)}}}\n").mqtt.host == host


def test_places_are_known_after_loading(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(SMALL)
    config = load_config(path)
    assert config.place("machines", 0, "detectors", 0) == f"{path}:6:17: machines.1.detectors.1"
    assert config.place("machines", 0, "alarm") == f"{path}:4:5: machines.1.alarm", "of what encloses it"


def test_evidence(file):
    kept = config(file, f"{SMALL}evidence: {{clips: true, before_seconds: 5, folder: kept, group: hall}}\n").evidence
    assert kept is not None
    assert (kept.pictures, kept.clips, kept.before_seconds, kept.keep_megabytes) == (True, True, 5.0, 200.0)
    assert (kept.folder, kept.group) == (file.parent / "kept", "hall")
    for text in ("evidence:", "evidence: {}"):
        empty = config(file, f"{SMALL}{text}\n").evidence
        assert empty is not None
        assert (empty.pictures, empty.clips, empty.before_seconds) == (True, False, 10.0)
    for wrong in ("keep_megabytes: 0.5", "before_seconds: -1", "before_seconds: 111", "clips: 1", "group: ''"):
        place, _ = complaint(file, f"{SMALL}evidence: {{{wrong}}}\n")
        assert place == "7:12"
