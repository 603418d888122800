"""What ``edge-asd check`` says of the device: there or not, taken by whom, and how loud each channel is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_asd.audio.claim import Claim
from edge_asd.audio.device import DeviceSettings, find_device
from edge_asd.check_sound import check_device
from edge_asd.config import Config
from edge_asd.config_file import load_config
from edge_asd.errors import ConfigurationError
from edge_asd.finding import Finding

from .fake_device import FakeInput, FakeSoundSystem, FastTime

HALL = """\
site: plant
node: hall
device: {{name: {name}}}
machines:
  - {{name: press, channel: {channel}, detectors: [a.onnx]}}
"""


@pytest.fixture
def hall(tmp_path: Path) -> Callable[..., Config]:
    def write(name: str = "USB", channel: int = 2) -> Config:
        (tmp_path / "hall.yaml").write_text(HALL.format(name=name, channel=channel))
        return load_config(tmp_path / "hall.yaml")

    return write


@pytest.fixture
def world() -> Iterator[FastTime]:
    yield FastTime(1)


def found(config: Config, system: FakeSoundSystem) -> dict[str, Finding]:
    return {f.check: f for f in check_device(config, system)}


@pytest.mark.parametrize(
    ("mark", "channel", "state", "says"),
    [
        (0.1, 2, "ok", "channel 2 (press): -20.0 dBFS over 1 s"),
        (0.0, 2, "warning", "channel 2 (press) is digital silence: is the microphone switched off or muted"),
        (3e-6, 2, "warning", "has -110 dBFS: is a microphone plugged in"),
        (0.1, 1, "warning", "it is too loud and clips; turn its gain down"),  # the number of each frame
    ],
)
def test_levels(hall: Callable[..., Config], world: FastTime, mark: float, channel: int, state: str, says: str) -> None:
    system = FakeSoundSystem(world, FakeInput("USB", card=77, mark=mark))
    findings = found(hall(channel=channel), system)
    assert (
        findings["device"].state == "ok" and "hall.yaml:3:1: device: takes 'USB (hw:77,0)'" in findings["device"].text
    )
    assert findings["level"].state == state and says in findings["level"].text
    assert not any(stream.is_open for stream in system.streams)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (
            FakeInput("Other", card=77),
            "no input 'USB' is there; inputs are: 'Other (hw:77,0)'; `edge-asd devices`",
        ),
        (FakeInput("USB", card=77, refuses="busy"), "device: 'USB (hw:77,0)' cannot be opened: busy"),
        (FakeInput("USB", card=77, is_dead=True), "gives no samples within 2.5 s"),
        (FakeInput("USB", card=77, channels=1), "has 1 channel(s); channel 2 is configured"),
    ],
)
def test_what_cannot_be_heard(hall: Callable[..., Config], world: FastTime, device: FakeInput, says: str) -> None:
    findings = found(hall(), FakeSoundSystem(world, device))
    assert findings["device"].state == "failed" and says in findings["device"].text
    assert "level" not in findings


def test_a_rate_below_the_detectors_misses_part_of_the_sound(
    hall: Callable[..., Config], world: FastTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_asd.check_sound._SECONDS", 0.01)  # how loud it is does not matter

    def say(config: Config, rate: int) -> list[str]:
        findings = check_device(config, FakeSoundSystem(world, FakeInput("USB", card=77, rate=rate)), 16_000)
        return [f.text for f in findings if f.state == "warning" and f.check == "device"]

    config, words = hall(), "8000 Hz is less than the 16000 Hz that the detectors were made for: they miss what is"
    assert say(config, 16_000) == []
    (text,) = say(config, 8_000)
    assert text.startswith(f"{config.file}:3:1: device: {words} above 4 kHz; take a rate of 16000 Hz or more")
    config.file.write_text(config.file.read_text().replace("{name: USB", "{rate: 8000, name: USB"))
    (text,) = say(load_config(config.file), 16_000)  # also where the device does not have that rate
    assert text.startswith(f"{config.file}:3:10: device.rate: {words}")


def test_a_daemon_that_has_the_device_is_left_alone(hall: Callable[..., Config], world: FastTime) -> None:
    system = FakeSoundSystem(world, FakeInput("USB", card=77))
    claim = Claim()
    system.restart()
    device, card = find_device(system.inputs(), DeviceSettings("USB"))
    claim.take(device.name, card)
    try:
        findings = found(hall(), system)
    finally:
        claim.give_back()
    assert findings["device"].state == "ok" and "is held by" in findings["device"].text
    assert not system.streams, "it was opened"
    assert found(hall(), system)["level"], "the claim was not given back"


def test_without_portaudio(hall: Callable[..., Config], world: FastTime) -> None:
    system = FakeSoundSystem(world)
    system.fails_with = ConfigurationError("PortAudio is not installed")
    finding = found(hall(), system)["device"]
    assert finding.state == "failed" and "PortAudio is not installed" in finding.text
