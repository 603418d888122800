"""Which input is meant: by name or USB identity, never by a number that the next reboot changes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_asd.audio.portaudio import InputDevice
from edge_asd.errors import DeviceError

_HARDWARE = re.compile(r"\s*\(hw:(?P<card>\d+),(?P<device>\d+)\)$")
"""How PortAudio ends the names of ALSA hardware. The card's number depends on what else is plugged in."""


_Candidate = tuple[InputDevice, "CardIdentity | None"]


@dataclass(frozen=True)
class DeviceSettings:
    """Which input, and how."""

    name: str | None = None
    """See `find_device`."""
    usb: str | None = None
    """``VENDOR:PRODUCT`` or ``VENDOR:PRODUCT:SERIAL``."""
    port: str | None = None
    """See `CardIdentity`."""
    channels: int | None = None
    """Its own unless given."""
    rate: int | None = None
    """Hz; its own unless given."""

    def __str__(self) -> str:
        """As in messages: 'USB Audio CODEC' at 1-1.4."""
        parts = (self.name and repr(self.name), self.usb and f"USB {self.usb}", self.port and f"at {self.port}")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class CardIdentity:
    """What tells a sound card from others that are called the same."""

    port: str
    """Where it is plugged in: a USB socket such as ``1-1.4``, a PCI slot such as ``0000:00:1f.3``."""
    usb: str | None = None
    """``VENDOR:PRODUCT`` in hexadecimal digits, as lsusb shows them; None where it is not on USB."""
    serial: str | None = None
    """Of a USB card; many cheap ones have none."""

    def is_meant_by(self, settings: DeviceSettings) -> bool:
        """Whether ``usb`` (with or without serial) and ``port``, where they are given, name it."""
        if settings.port is not None and settings.port != self.port:
            return False
        names = {str(name).lower() for name in (self.usb, f"{self.usb}:{self.serial}")}
        return settings.usb is None or (self.usb is not None and settings.usb.lower() in names)

    def may_be(self, other: CardIdentity) -> bool:
        """Whether it can be the same piece; what is on USB may have moved to another socket."""
        if self.usb is None or other.usb is None:
            return self == other
        return (self.usb, self.serial) == (other.usb, other.serial)

    def __str__(self) -> str:
        usb = f"{self.usb}:{self.serial}" if self.serial else self.usb
        return f"{usb} at {self.port}" if usb else self.port


def hardware_numbers(name: str) -> tuple[int, int] | None:
    """ALSA card and device in a PortAudio name; None where it is not hardware, but a PCM of ALSA's configuration."""
    match = _HARDWARE.search(name)
    return None if match is None else (int(match["card"]), int(match["device"]))


def card_identity(name: str, sys: Path = Path("/sys")) -> CardIdentity | None:
    """Of the card behind a PortAudio name; None where it is not hardware, or gone."""
    numbers = hardware_numbers(name)
    if numbers is None:
        return None
    try:
        device = (sys / "class" / "sound" / f"card{numbers[0]}" / "device").resolve(strict=True)
    except OSError:
        return None
    # A USB card is an interface of the USB device, which is the folder above and knows what it is.
    vendor, product, serial = (_read(device.parent / f) for f in ("idVendor", "idProduct", "serial"))
    if vendor is None or product is None:
        return CardIdentity(device.name)
    return CardIdentity(device.parent.name, f"{vendor}:{product}", serial)


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
        found = [(d, card) for d, card in found if card is not None and card.is_meant_by(settings)]
    if settings.name is not None:
        found = [(d, card) for d, card in found if _same_name(d.name, settings.name)]
    if not found:
        there = ", ".join(repr(d.name) for d in inputs[:8]) or "none"
        raise DeviceError(f"no input {settings} is there; inputs are: {there}")
    if before is not None:
        same: list[_Candidate] = [(d, card) for d, card in found if card is not None and card.may_be(before)]
        if not same:
            raise DeviceError(f"an input {settings} is there, but it is another one ({found[0][1]}) than {before}")
        at_home: list[_Candidate] = [(d, card) for d, card in same if card is not None and card.port == before.port]
        found = at_home or same
    if len(found) > 1:
        several = ", ".join(f"{d.name!r} ({card})" if card else repr(d.name) for d, card in found)
        raise DeviceError(f"several inputs {settings} are there: {several}; say which with device.usb or device.port")
    return found[0]


def holders(name: str, proc: Path = Path("/proc")) -> list[str]:
    """Processes that hold the capture side of ALSA hardware, as ``arecord (pid 123)``, as far as we may see."""
    numbers = hardware_numbers(name)
    if numbers is None:
        return []
    node = f"/dev/snd/pcmC{numbers[0]}D{numbers[1]}c"
    found = []
    for process in proc.glob("[0-9]*"):
        try:
            if any(str(f.readlink()) == node for f in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} (pid {process.name})")
        except OSError:
            continue  # not ours to look at, or gone meanwhile
    return found


def _same_name(listed: str, wanted: str) -> bool:
    numbers, wanted_numbers = hardware_numbers(listed), hardware_numbers(wanted)
    full, asked = (_HARDWARE.sub("", n) for n in (listed, wanted))
    # PortAudio writes "CARD: PCM (hw:1,0)"; the card's name alone will do.
    if asked != full and (numbers is None or asked != full.partition(": ")[0]):
        return False
    return numbers is None or wanted_numbers is None or numbers[1] == wanted_numbers[1]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
