"""Which input is meant: by name or USB identity, never by a number that the next reboot changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_asd.audio.hardware import CardIdentity, card_identity, hardware_numbers, without_number
from edge_asd.audio.portaudio import InputDevice
from edge_asd.errors import DeviceError

_Candidate = tuple[InputDevice, CardIdentity | None]


@dataclass(frozen=True)
class DeviceSettings:
    """Which input, and how."""

    name: str | None = None
    """See `find_device`."""
    usb: str | None = None
    """``VENDOR:PRODUCT`` or ``VENDOR:PRODUCT:SERIAL``."""
    port: str | None = None
    """See `CardIdentity`."""
    source: str | None = None
    """At the sound server, where it goes through one."""
    channels: int | None = None
    """Its own unless given."""
    rate: int | None = None
    """Hz; its own unless given."""

    def __str__(self) -> str:
        """As in messages: 'USB Audio CODEC' at 1-1.4."""
        parts = (self.name and repr(self.name), self.usb and f"USB {self.usb}", self.port and f"at {self.port}")
        return " ".join(part for part in parts if part)


def missing_band(rate: int, wanted: int) -> str:
    """What is missing of the sound of a device that has a lower rate than the detectors were made for, both in Hz."""
    return (
        f"{rate} Hz is less than the {wanted} Hz that the detectors were made for: they miss what is above "
        f"{rate / 2000:g} kHz; take a rate of {wanted} Hz or more, or another device"
    )


def find_device(
    inputs: Sequence[InputDevice],
    settings: DeviceSettings,
    *,
    before: CardIdentity | None = None,
    sys: Path = Path("/sys"),
) -> tuple[InputDevice, CardIdentity | None]:
    """The one input that is meant.

    Args:
        inputs: all there are.
        settings: what is said of it; all of it must fit. A name is as PortAudio lists it, or the card's name, which
            comes before its colon. Of a ``(hw:1,0)`` at its end only the device number counts. It is never any part of
            a name: when "USB Audio" is gone, "USB Audio 2" must not be taken.
        before: what it was when it was opened before.
        sys: where sysfs is mounted.

    Raises:
        DeviceError: none is there, several fit, or it is another one than before.
    """
    found: list[_Candidate] = [(d, card_identity(d.name, sys)) for d in inputs]
    if settings.usb is not None or settings.port is not None:
        found = [(d, card) for d, card in found if card is not None and card.is_meant_by(settings.usb, settings.port)]
    if before is not None:
        # What the kernel does not know has gone since PortAudio made its list.
        found = [(d, card) for d, card in found if card is not None]
    if settings.name is not None:
        found = [(d, card) for d, card in found if _same_name(d.name, settings.name)]
    if not found:
        there = ", ".join(repr(d.name) for d in inputs[:8]) or "none"
        raise DeviceError(f"no input {settings} is there; inputs are: {there}")
    if before is not None:
        same: list[_Candidate] = [(d, card) for d, card in found if card is not None and card.may_be(before)]
        if not same:
            raise DeviceError(
                f"an input {settings} is there, but it is another one ({found[0][1]}) than {before}; if it was moved, "
                "start edge-asd anew"
            )
        at_home: list[_Candidate] = [(d, card) for d, card in same if card is not None and card.port == before.port]
        found = at_home or same
    if len(found) > 1:
        several = ", ".join(f"{d.name!r} ({card})" if card else repr(d.name) for d, card in found)
        one_card = len({card for _, card in found}) == 1
        key = "device.name" if one_card else "device.usb or device.port"
        raise DeviceError(f"several inputs {settings} are there: {several}; say which with {key}")
    return found[0]


def _same_name(listed: str, wanted: str) -> bool:
    numbers, wanted_numbers = hardware_numbers(listed), hardware_numbers(wanted)
    full, asked = (without_number(n) for n in (listed, wanted))
    # PortAudio writes "CARD: PCM (hw:1,0)"; the card's name alone will do.
    if asked != full and (numbers is None or asked != full.partition(": ")[0]):
        return False
    return numbers is None or wanted_numbers is None or numbers[1] == wanted_numbers[1]
