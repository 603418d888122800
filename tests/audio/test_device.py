"""Which input is meant: sysfs and procfs as the kernel would show them, in a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_asd.audio.device import DeviceSettings, find_device
from edge_asd.audio.hardware import CardIdentity, card_identity, hardware_numbers, holders
from edge_asd.audio.portaudio import InputDevice
from edge_asd.errors import DeviceError

from .fake_device import write_sysfs

AUDIO, AUDIO_2 = "USB Audio: - (hw:1,0)", "USB Audio 2: - (hw:2,0)"


def inputs(*names: str) -> list[InputDevice]:
    return [InputDevice(n, name, "ALSA", 2, 48_000) for n, name in enumerate(names)]


def found(
    names: Sequence[str],
    sys: Path,
    name: str | None = None,
    usb: str | None = None,
    port: str | None = None,
    before: CardIdentity | None = None,
) -> str:
    device, card = find_device(inputs(*names), DeviceSettings(name, usb, port), before=before, sys=sys)
    assert card == card_identity(device.name, sys)
    return device.name


@pytest.mark.parametrize(
    "name, numbers",
    [("Card: PCM (hw:1,0)", (1, 0)), ("Card: - (hw:12,3)", (12, 3)), ("vmic", None), ("hw:1,0 of old", None)],
)
def test_hardware_is_told_from_names(name, numbers):
    assert hardware_numbers(name) == numbers


@pytest.mark.parametrize("name", ["USB Audio: - (hw:1,0)", "USB Audio: - (hw:7,0)", "USB Audio: -", "USB Audio"])
def test_a_card_is_found_by_its_name_whatever_its_number(tmp_path, name):
    assert found(["HDA Intel: ALC257 (hw:0,0)", AUDIO, AUDIO_2, "vmic"], tmp_path, name) == AUDIO


@pytest.mark.parametrize(
    "name", ["USB", "USB Aud", "Audio", "USB Audio 2: - (hw:1,0)x", "usb audio", "-", "", "(hw:1,0)"]
)
def test_no_part_of_a_name_is_a_name(tmp_path, name):
    with pytest.raises(DeviceError, match=r"no input .*is there"):
        found([AUDIO], tmp_path, name)


def test_another_card_is_not_taken_when_the_one_that_is_meant_is_gone(tmp_path):
    with pytest.raises(DeviceError, match=re.escape(f"no input 'USB Audio' is there; inputs are: {AUDIO_2!r}")):
        found([AUDIO_2], tmp_path, "USB Audio")
    with pytest.raises(DeviceError, match="inputs are: none"):
        found([], tmp_path, "USB Audio")


def test_the_number_of_the_pcm_counts_and_that_of_the_card_does_not(tmp_path):
    listed = ["Card: In (hw:3,0)", "Card: In (hw:3,1)"]
    assert found(listed, tmp_path, "Card: In (hw:1,1)") == listed[1]
    with pytest.raises(DeviceError, match="several inputs 'Card' are there"):
        found(listed, tmp_path, "Card")


def test_what_is_no_hardware_is_called_exactly_so(tmp_path):
    assert found(["vmic", "vmic 2", "Card: vmic (hw:2,0)"], tmp_path, "vmic") == "vmic"
    with pytest.raises(DeviceError, match="no input 'vmic'"):
        found(["vmic: there"], tmp_path, "vmic")


def test_the_same_name_in_two_sound_systems_is_not_guessed(tmp_path):
    twice = [InputDevice(0, "Mic", "ALSA", 1, 48_000), InputDevice(1, "Mic", "JACK Audio Connection Kit", 1, 48_000)]
    with pytest.raises(DeviceError, match="several inputs 'Mic' are there"):
        find_device(twice, DeviceSettings("Mic"), sys=tmp_path)


def test_what_a_card_is_is_read_from_sysfs(tmp_path):
    write_sysfs(tmp_path, 1, "08bb:2902:A1", "1-1.4")
    write_sysfs(tmp_path, 2, "0d8c:0014", "3-2")
    assert card_identity(AUDIO, tmp_path) == CardIdentity("1-1.4", "08bb:2902", "A1")
    assert str(card_identity(AUDIO, tmp_path)) == "08bb:2902:A1 at 1-1.4"
    assert card_identity(AUDIO_2, tmp_path) == CardIdentity("3-2", "0d8c:0014")
    assert str(card_identity(AUDIO_2, tmp_path)) == "0d8c:0014 at 3-2"
    assert card_identity("vmic", tmp_path) is None
    assert card_identity("Gone: - (hw:5,0)", tmp_path) is None


def test_a_card_that_is_not_on_usb_is_known_by_its_slot(tmp_path):
    card = tmp_path / "devices" / "pci0000:00" / "0000:00:1f.3" / "sound" / "card0"
    card.mkdir(parents=True)
    (card / "device").symlink_to(Path("..") / ".." / ".." / "0000:00:1f.3")
    (tmp_path / "class" / "sound").mkdir(parents=True)
    (tmp_path / "class" / "sound" / "card0").symlink_to(card)
    name = "HDA Intel: ALC257 (hw:0,0)"
    slot = card_identity(name, tmp_path)
    assert slot == CardIdentity("0000:00:1f.3") and str(slot) == "0000:00:1f.3"
    assert found([name, AUDIO], tmp_path, port="0000:00:1f.3", before=slot) == name
    with pytest.raises(DeviceError, match="no input USB 08bb:2902"):
        found([name], tmp_path, usb="08bb:2902")
    with pytest.raises(DeviceError, match="it is another one"):
        found([name], tmp_path, "HDA Intel", before=CardIdentity("0000:00:1f.4"))


@pytest.mark.parametrize(
    "how", [{"usb": "08bb:2902"}, {"usb": "08BB:2902:a1"}, {"port": "1-1.4"}, {"usb": "08bb:2902", "port": "1-1.4"}]
)
def test_usb_and_socket_tell_cards_of_the_same_name_apart(tmp_path, how):
    listed = ["USB Audio: - (hw:1,0)", "USB Audio: - (hw:2,0)"]
    write_sysfs(tmp_path, 1, "0d8c:0014", "1-1.3")
    write_sysfs(tmp_path, 2, "08bb:2902:A1", "1-1.4")
    assert found(listed, tmp_path, **how) == listed[1]
    assert found(listed, tmp_path, "USB Audio", **how) == listed[1]
    with pytest.raises(DeviceError, match=r"several .*\(0d8c:0014 at 1-1.3\).*\(08bb:2902:A1 at 1-1.4\); say which"):
        found(listed, tmp_path, "USB Audio")
    with pytest.raises(DeviceError, match=r"no input 'Other' .* is there"):
        found(listed, tmp_path, "Other", **how)
    with pytest.raises(DeviceError, match=r"no input USB 0d8c:0014 at 1-1\.4 is there"):
        found(listed, tmp_path, usb="0d8c:0014", port="1-1.4")


@pytest.mark.parametrize(
    "how",
    [{"usb": u} for u in ("08bb", "08bb:290", "08bb:2902:", "08bb:2902:A", "", "None")]
    + [{"port": p} for p in ("1-1", "1-1.40", "")],
)
def test_no_part_of_an_identity_is_one(tmp_path, how):
    write_sysfs(tmp_path, 1, "08bb:2902:A1", "1-1.4")
    with pytest.raises(DeviceError, match="no input"):
        found([AUDIO], tmp_path, **how)


def test_a_card_that_comes_back_is_known_by_its_usb_identity(tmp_path):
    write_sysfs(tmp_path, 1, "08bb:2902:A1", "1-1.4")
    before = card_identity(AUDIO, tmp_path)
    (tmp_path / "class" / "sound" / "card1").unlink()
    write_sysfs(tmp_path, 2, "0d8c:0014", "1-1.3")
    listed = ["USB Audio: - (hw:2,0)"]
    with pytest.raises(DeviceError, match=r"it is another one \(0d8c:0014 at 1-1.3\) than 08bb:2902:A1 at 1-1.4"):
        found(listed, tmp_path, "USB Audio", before=before)
    listed.append("USB Audio: - (hw:3,0)")
    write_sysfs(tmp_path, 3, "08bb:2902:A1", "1-1.2")  # in another socket
    assert found(listed, tmp_path, "USB Audio", before=before) == listed[1]
    write_sysfs(tmp_path, 3, "08bb:2902:A2", "1-1.4")  # the same model, in the same socket
    with pytest.raises(DeviceError, match="it is another one"):
        found(listed, tmp_path, "USB Audio", before=before)


def test_of_two_of_a_model_without_serial_the_one_in_its_socket_is_meant(tmp_path):
    write_sysfs(tmp_path, 1, "0d8c:0014", "1-1.3")
    write_sysfs(tmp_path, 2, "0d8c:0014", "1-1.4")
    listed = ["USB Audio: - (hw:1,0)", "USB Audio: - (hw:2,0)"]
    before = CardIdentity("1-1.4", "0d8c:0014")
    assert found(listed, tmp_path, "USB Audio", before=before) == listed[1]
    # Without a serial nothing tells them from one another but their sockets: a twin is not taken for what is gone.
    with pytest.raises(DeviceError, match=r"it is another one .* if it was moved, start edge-asd anew"):
        found(listed, tmp_path, "USB Audio", before=CardIdentity("1-1.1", "0d8c:0014"))
    with pytest.raises(DeviceError, match="it is another one"):
        found(listed[:1], tmp_path, "USB Audio", before=before)


def test_who_holds_a_card_is_read_from_procfs(tmp_path):
    def status(pcm: str, text: str) -> None:
        folder = tmp_path / "asound" / pcm / "sub0"
        folder.mkdir(parents=True)
        (folder / "status").write_text(text)

    status("card1/pcm0c", "state: RUNNING\nowner_pid   : 78\ntrigger_time: 1.2\n")
    status("card1/pcm0p", "state: RUNNING\nowner_pid   : 80\n")
    status("card2/pcm0c", "closed\n")
    for task, name in [("77", "arecord"), ("78", "a thread of arecord"), ("80", "aplay")]:
        (tmp_path / task).mkdir()
        (tmp_path / task / "comm").write_text(f"{name}\n")
        (tmp_path / task / "status").write_text(f"Name:\t{name}\nTgid:\t{'77' if task == '78' else task}\n")
    assert holders(AUDIO, tmp_path) == ["arecord (pid 77)"]
    assert holders("Other: - (hw:2,0)", tmp_path) == []
    assert holders("Third: - (hw:3,0)", tmp_path) == []
    assert holders("vmic", tmp_path) == []
    (tmp_path / "77" / "comm").unlink()
    assert holders(AUDIO, tmp_path) == ["a process (pid 77)"], "gone meanwhile"


def test_messages_name_the_device_as_the_configuration_does():
    assert str(DeviceSettings(name="USB Audio")) == "'USB Audio'"
    assert str(DeviceSettings("USB Audio", "08bb:2902", "1-1.4")) == "'USB Audio' USB 08bb:2902 at 1-1.4"


def test_serial_none_is_no_serial():
    assert not CardIdentity("1-1", "08bb:2902").is_meant_by("08bb:2902:None", None)
