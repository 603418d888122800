"""What is said about a configuration that is wrong: the place, what was expected, and what may have been meant."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from parts.configs import SMALL, complaint, complaints

from edge_asd.config_file import load_config
from edge_asd.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hall.yaml"


@pytest.mark.parametrize(
    ("wrong", "place", "says"),
    [
        ("sitte: x", "7:1", "sitte: is not a known key; did you mean site?"),
        ("machine: []", "7:1", "machine: is not a known key; did you mean machines?"),
        ("zzz: 1", "7:1", "zzz: is not a known key; known are site, node, device, machines, mqtt, metrics"),
        ("    hop_second: 10", "7:5", "machines.1.hop_second: is not a known key; did you mean hop_seconds?"),
        ("    alarm: {raise_afte: 1 of 2}", "7:13", "did you mean raise_after?"),
        ("    active_when: {level_above_dbsf: -3, level_above_dbfs: -3}", "7:19", "did you mean level_above_dbfs?"),
        ("mqtt: {host: h, prot: 1883}", "7:17", "mqtt.prot: is not a known key; did you mean port?"),
        ("mqtt: {host: h, tls: {certificat: x}}", "7:23", "did you mean certificate?"),
        ("metrics: {listne: 'a:1'}", "7:11", "did you mean listen?"),
        ("device: {nam: USB}", "7:10", "device.nam: is not a known key; did you mean name?"),
        ("evidence: {picture: true}", "7:12", "evidence.picture: is not a known key; did you mean pictures?"),
        ('"a[b": 1', "7:1", "a[b: is not a known key"),
        ('"a\\nb": 1', "7:1", "is not a known key"),
        ('"": 1', "7:1", "is not a known key"),
    ],
)
def test_unknown_keys_are_refused_with_what_may_have_been_meant(file, wrong, place, says):
    where, what = complaint(file, f"{SMALL}{wrong}\n")
    assert where == place
    assert says in what


@pytest.mark.parametrize(
    ("wrong", "place", "says"),
    [
        ("alarm: {raise_after: 6 of 5}", "7:13", "6 of 5 windows can never be reached"),
        ("alarm: {raise_after: 0 of 5}", "7:13", "0 of 5 windows can never be reached"),
        ("alarm: {raise_after: 3 of 1001}", "7:13", "n at most 1000"),
        ("alarm: {raise_after: 3/5}", "7:13", 'must be "k of n"'),
        ("alarm: {raise_after: 3}", "7:13", "raise_after: should be a valid string"),
        ("alarm: {threshold: 12}", "7:13", "a threshold of 12 can never work"),
        ("alarm: {threshold: 0}", "7:13", "should be greater than 0"),
        ("alarm: {threshold: 1e999}", "7:13", "should be a finite number"),
        ("alarm: {threshold: '3'}", "7:13", "should be a valid number"),
        ("alarm: {threshold: 3, false_alarms_per_day: 1}", "7:5", "exclude each other"),
        ("alarm: {false_alarms_per_day: 0}", "7:13", "should be greater than 0"),
        ("alarm: {false_alarms_per_day: true}", "7:13", "should be a valid number"),
        ("alarm: {clear_after: 0}", "7:13", "should be greater than or equal to 1"),
        ("alarm: {clear_after: 2.5}", "7:13", "should be a valid integer"),
        ("alarm: {rest_seconds: -1}", "7:13", "should be greater than or equal to 0"),
        ("alarm: 3 of 5", "7:5", "alarm: should be a mapping of keys to values"),
        ("hop_seconds: 0.5", "7:5", "should be greater than or equal to 1"),
        ("hop_seconds: 1 s", "7:5", "should be a valid number"),
        ("recording_channel: 0", "7:5", "should be greater than or equal to 1"),
        ("repeat: 1", "7:5", "repeat: should be a valid boolean"),
        ("active_when: {level_above_dbfs: 3}", "7:19", "should be less than 0"),
        (
            "active_when: {}",
            "7:5",
            "active_when: give level_above_dbfs in dB re full scale",
        ),
        ("active_when: {level_above_dbfs: -3, learned: true}", "7:5", "give level_above_dbfs"),
        ("active_when: {topic: plc/running}", "7:5", "topic, on and off go together"),
        (
            "active_when: {on: a, off: b}",
            "7:5",
            "give level_above_dbfs in dB re full scale",
        ),
        ("active_when: {topic: t, on: a, off: b, learned: true}", "7:5", "or learned, or topic: one of them"),
        ("active_when: {topic: t, on: a, off: a}", "7:5", "on and off must differ"),
        ("active_when: {topic: t, on: 1, off: '0'}", "7:29", "on: should be a valid string, not '1'"),
        ("active_when: {topic: plc/+/running, on: a, off: b}", "7:19", "one MQTT topic, without the wildcards + and #"),
        ("active_when: {topic: 'plc/#', on: a, off: b}", "7:19", "one MQTT topic, without the wildcards"),
        ("active_when: {topic: '', on: a, off: b}", "7:19", "one MQTT topic"),
        ("active_when: always", "7:5", "active_when: should be a mapping of keys to values"),
    ],
)
def test_wrong_values_of_a_machine(file, wrong, place, says):
    where, what = complaint(file, f"{SMALL}    {wrong}\n")
    assert where == place
    assert what.startswith("machines.1.")
    assert says in what


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("plant-3", "Plant 3", "1:1", "site: 'Plant 3' must be small letters, digits, - and _"),
        ("plant-3", "-3a", "1:1", "beginning with a letter or digit"),
        ("plant-3", "3", "1:1", "site: should be a valid string, not '3'"),
        ("plant-3", "no", "1:7", "no is ambiguous in YAML"),
        ("plant-3", "a" * 64, "1:1", "must be small letters"),
        ("node: press-hall-1\n", "", "1:1", "node: is missing"),
        ("    recordings: sound\n", "", "4:5", "slide-rail-7: give channel (of the device) or recordings, one of"),
        ("recordings: sound", "recordings: a\n    channel: 1", "5:5", "give channel (of the device) or recordings"),
        ("recordings: sound", "channel: 1", "5:5", "slide-rail-7 listens to a channel, but there is no device section"),
        ("recordings: sound", "channel: 0", "5:5", "should be greater than or equal to 1"),
        ("[cae.onnx]", "cae.onnx", "6:5", "detectors: should be a valid list"),
        ("[cae.onnx]", "[5]", "6:17", "detectors.1: should be a mapping of keys to values"),
        ("[cae.onnx]", "[a, {id: x}]", "6:20", "detectors.2.file: is missing"),
        ("[cae.onnx]", "[{file: a, idd: x}]", "6:27", "detectors.1.idd: is not a known key; did you mean id?"),
        ("recordings: sound", "recordings: 5", "5:5", "machines.1.recordings: "),
        ("name: slide-rail-7", "name: slide/rail", "4:5", "machines.1.name: 'slide/rail' must be"),
        ("name: slide-rail-7", "name: [a]", "4:5", "machines.1.name: should be a valid string"),
    ],
)
def test_wrong_values_elsewhere(file, old, new, place, says):
    assert old in SMALL
    where, what = complaint(file, SMALL.replace(old, new, 1))
    assert where == place
    assert says in what


@pytest.mark.parametrize(
    ("section", "place", "says"),
    [
        ("mqtt: {host: h, port: 70000}", "7:17", "should be less than or equal to 65535"),
        ("mqtt: {host: h, port: '1883'}", "7:17", "should be a valid integer"),
        ("mqtt: {host: ''}", "7:8", "mqtt.host: "),
        ("mqtt: {host: 5}", "7:8", "should be a valid string"),
        ("mqtt: {port: 1883}", "7:1", "mqtt.host: is missing"),
        ("mqtt: broker", "7:1", "should be a mapping of keys to values"),
        ("mqtt: {host: h, discovery: {prefix: a/+}}", "7:29", "one MQTT topic, without the wildcards"),
        ("mqtt: {host: h, discovery: {prefix: /a}}", "7:29", "without a slash at its beginning or end"),
        ("mqtt: {host: h, discovery: homeassistant}", "7:17", "discovery: should be a mapping of keys to values"),
        ("mqtt: {host: h, discovery: {prefx: a}}", "7:29", "did you mean prefix?"),
        ("device: {}", "7:1", "device: give name, usb or port, as `edge-asd devices`"),
        ("device:", "7:1", "device: give name, usb or port"),
        ("device: {name: USB, rate: 4000}", "7:21", "should be greater than or equal to 8000"),
        ("device: {name: USB, channels: 65}", "7:21", "should be less than or equal to 64"),
        ("device: {name: 5}", "7:10", "should be a valid string"),
        ("device: {usb: 1-1.4}", "7:10", "device.usb: '1-1.4' must be VENDOR:PRODUCT, as in 08bb:29c6"),
        ("device: {name: USB}", "7:1", "there is a device, but no machine listens to a channel of it"),
        ("metrics: {listen: '9464'}", "7:11", "must be ADDRESS:PORT"),
        ("metrics: {listen: ':9464'}", "7:11", "must be ADDRESS:PORT"),
        ("metrics: {listen: 'a:99999'}", "7:11", "must be ADDRESS:PORT"),
        ("metrics: {listen: 'a:'}", "7:11", "must be ADDRESS:PORT"),
        ("metrics: {listen: '::1:9464'}", "7:11", "in brackets, for example [::1]:9464"),
        ("metrics: {listen: '[::1:9464'}", "7:11", "in brackets, for example [::1]:9464"),
        ("metrics: {listen: '[127.0.0.1]:9464'}", "7:11", "in brackets, for example [::1]:9464"),
        ("metrics: {listen: 'http://a:9464'}", "7:11", "in brackets, for example [::1]:9464"),
        ("metrics: {listen: '*:9464'}", "7:11", "0.0.0.0 is for all addresses"),
        ("metrics: {username: prometheus}", "7:1", "username and password_file go together: give both or none"),
        ("metrics: {password_file: word}", "7:1", "username and password_file go together: give both or none"),
        ("metrics: {username: 'a:b', password_file: word}", "7:11", "username: must have no colon"),
        ("metrics: {username: a, password: b}", "7:24", "metrics.password: is not a known key; did you mean password_"),
        ("metrics: {tls: {certificate: a}}", "7:11", "metrics.tls.key: is missing"),
        ("metrics: {tls: {certificate: a, key: b, ca: c}}", "7:41", "not a known key; known are certificate, key"),
        ("mqtt: {host: h, tls: {cert: c}}", "7:23", "is not a known key; did you mean certificate?"),
    ],
)
def test_wrong_values_of_a_section(file, section, place, says):
    where, what = complaint(file, f"{SMALL}{section}\n")
    assert where == place
    assert says in what


def test_several_errors_are_several_lines_in_one_go(file):
    text = SMALL.replace("plant-3", "Plant") + "    hop_seconds: 0\nmqtt: {host: h, prot: 1}\n"
    assert [where for where, _ in complaints(file, text)] == ["1:1", "7:5", "8:17"]


def test_an_error_in_an_item_is_not_also_a_list_too_short(file):
    where, what = complaint(file, "site: a1\nnode: b1\nmachines: [5]\n")
    assert (where, what[:11]) == ("3:12", "machines.1:")


def test_an_empty_file_leads_to_the_example_that_is_there(file, monkeypatch):
    monkeypatch.setattr("edge_asd.config_file._EXAMPLE", file.parent / "none")
    assert complaint(file, "")[1].endswith("see deploy/edge-asd.example.yaml in the repository")
    monkeypatch.setattr("edge_asd.config_file._EXAMPLE", file)
    assert complaint(file, "")[1].endswith(f"see {file}")


def test_names_of_machines_are_unique(file):
    text = SMALL + "  - {name: slide-rail-7, recordings: b, detectors: [c]}\n"
    assert complaint(file, text) == ("7:6", "machines.2.name: the name slide-rail-7 is given twice")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "a text", "5", "- site: a"])
def test_what_is_no_mapping_at_all(file, text):
    where, what = complaint(file, text)
    assert where == "1:1"
    assert "site, node and machines" in what


@pytest.mark.parametrize(
    ("text", "place"),
    [(f"{SMALL}site: again\n", "7:1"), (f"{SMALL}mqtt: {{host: [}}\n", "7:15"), ("site: a1\n\tnode: b\n", "2:1")],
)
def test_what_is_no_yaml_has_its_place_too(file, text, place):
    assert complaint(file, text)[0] == place


def test_files_that_cannot_be_read(file):
    def said() -> str:
        with pytest.raises(ConfigurationError) as caught:
            load_config(file)
        return str(caught.value)

    assert said() == f"{file}: No such file or directory"
    file.mkdir()
    assert said() == f"{file}: Is a directory"
    file.rmdir()
    file.write_bytes(b"site: \xff\xfe")
    assert said().startswith(f"{file}:1:7: is not UTF-8 text; save it as UTF-8")
    file.write_bytes(b"#" * 500_001)
    assert "larger than 500 kB" in said()


@pytest.mark.parametrize(
    ("path", "says"),
    [("''", "must be a path"), ('"a\\0b"', "must be a path"), ("~/a", "written out"), ("$HOME/a", "written out")],
)
def test_what_is_no_path(file, path, says):
    where, what = complaint(file, SMALL.replace("sound", path))
    assert where == "5:5" and says in what


def test_a_pipe_or_a_device_is_not_waited_for(file):
    os.mkfifo(file)
    for path in (file, Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match="is not a file, but a pipe or a device"):
            load_config(path)


def test_many_errors_are_not_all_shown(file):
    lines = complaints(file, SMALL + "".join(f"zzz{n}: 1\n" for n in range(500)))
    assert len(lines) == 21 and lines[-1][1] == "and 480 more errors; mend these first"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("hopSeconds: 10", "did you mean hop_seconds?"),
        ("hop-seconds: 10", "did you mean hop_seconds?"),
        ("Hop_Seconds: 10", "did you mean hop_seconds?"),
        ("raise_after: 3 of 5", "it belongs to alarm; look at the indentation"),
        ("level_above_dbfs: -55", "it belongs to active_when"),
        ("host: broker", "it belongs to mqtt"),
        ("hop_seconds: '10'", "write it without quotes: hop_seconds: 10"),
        ("hop_seconds: 2,5", "write a decimal point: hop_seconds: 2.5"),
        ("hop_seconds: 10 s", "write the number alone, without its unit: hop_seconds: 10"),
        ("hop_seconds: 10s", "without its unit: hop_seconds: 10"),
        ("active_when: {level_above_dbfs: -55dB}", "without its unit: level_above_dbfs: -55"),
        ("active_when: {topic: t, on: 1, off: '0'}", 'put it in quotes: on: "1"'),
        ("active_when: {topic: t, on: true, off: 'false'}", 'put it in quotes: on: "true"'),
        ("hop_seconds: 2 min", "write the number alone, in seconds: hop_seconds: 120"),
        ("hop_seconds: 0,5h", "write the number alone, in seconds: hop_seconds: 1800"),
        ("active_when: {level_above_dbfs: -55,5}", "in braces a comma ends a value: write a decimal point"),
        ("hop_seconds:", "nothing stands after the colon"),
        ("repeat: 'true'", "write true or false, without quotes"),
        ("alarm: 3 of 5", "the keys of alarm belong on lines of their own"),
    ],
)
def test_a_likely_meaning_is_given(file, line, meant):
    assert meant in complaint(file, f"{SMALL}    {line}\nmqtt: {{host: h}}\n")[1]


@pytest.mark.parametrize(
    ("old", "new", "place", "meant"),
    [
        ("site: plant-3", "site:plant-3", "2:5", "indented too far"),
        ("node: press", "\tnode: press", "2:1", "indent with spaces"),
        ("    recordings", "   recordings", "5:4", "is the line indented as those that it belongs to?"),
        ("    recordings", "     recordings", "5:16", "or a line is indented too far"),
        ("[cae.onnx]", "[cae.onnx", "7:1", "is a bracket not closed"),
        ("[cae.onnx]", "['cae.onnx]", "7:1", "is a quote not closed"),
        ("[cae.onnx]", "[@cae.onnx]", "6:17", "put a text that begins with this character in quotes"),
        ("sound", '"C:\\sound"', "5:21", "take single quotes"),
        ("[cae.onnx]", "cae.onnx", "6:5", "write it as a list: detectors: [cae.onnx]"),
        ("[cae.onnx]", "\n      -", "7:8", "nothing stands after the dash or comma; write a value, or remove it"),
        ("[cae.onnx]", "[[cae.onnx]]", "6:17", "it is a list in a list: leave one out"),
        ("[cae.onnx]", "[5]", "6:17", "not '5'; write it as {KEY: VALUE}"),
        ("node: p", "device: {name: USB, rate: 44.1 kHz}\nnode: p", "2:21", "alone, in Hz: rate: 44100"),
        ("plant-3", "3", "1:1", 'put it in quotes: site: "3"'),
    ],
)
def test_a_likely_meaning_of_what_is_wrong_with_the_yaml(file, old, new, place, meant):
    where, what = complaint(file, SMALL.replace(old, new, 1))
    assert meant in what
    assert where == place


@pytest.mark.parametrize("host", ["mqtt://broker", "broker:1883", "edge@broker", "two words", "b/x", "a\x00b", "[::1]"])
def test_a_host_is_a_host_alone(file, host):
    text = json.dumps(host)
    assert "must be the name or address alone" in complaint(file, f"{SMALL}mqtt: {{host: {text}}}\n")[1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[cae.onnx]", "[a/x.onnx, b/x.onnx]", "x.onnx is there twice"),
        ("site: plant-3", "mqtt: {host: a..b}\nsite: plant-3", "'a..b' is not a host name"),
        ("site: plant-3", "mqtt: {host: h, tls: {certificate: c}}\nsite: plant-3", "certificate and key go together"),
        ("site: plant-3", "mqtt: {host: h, password_file: p}\nsite: plant-3", "password_file needs a username"),
    ],
)
def test_what_would_only_fail_later_is_refused_now(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        load_config(path)
