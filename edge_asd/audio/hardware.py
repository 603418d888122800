"""Sound cards as the kernel knows them: which is which, and who holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HARDWARE = re.compile(r"\s*\(hw:(?P<card>\d+),(?P<device>\d+)\)$")
"""How PortAudio ends the names of ALSA hardware. The card's number depends on what else is plugged in."""


@dataclass(frozen=True)
class CardIdentity:
    """What tells a sound card from others that are called the same."""

    port: str
    """Where it is plugged in: a USB socket such as ``1-1.4``, a PCI slot such as ``0000:00:1f.3``."""
    usb: str | None = None
    """``VENDOR:PRODUCT`` in hexadecimal digits, as lsusb shows them; None where it is not on USB."""
    serial: str | None = None
    """Of a USB card; many cheap ones have none."""

    def is_meant_by(self, usb: str | None, port: str | None) -> bool:
        """Whether ``VENDOR:PRODUCT`` or ``VENDOR:PRODUCT:SERIAL``, and a port, where they are given, name it."""
        if port is not None and port != self.port:
            return False
        if usb is None:
            return True
        names = [self.usb or "", f"{self.usb}:{self.serial}" if self.serial else ""]
        return usb.lower() in [name.lower() for name in names]

    def may_be(self, other: CardIdentity) -> bool:
        """Whether it is the same piece: only what has a serial number may have moved to another socket."""
        return self == other or (self.serial is not None and (self.usb, self.serial) == (other.usb, other.serial))

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


def without_number(name: str) -> str:
    """A PortAudio name without the ``(hw:1,0)`` at its end."""
    return _HARDWARE.sub("", name)


def has_capture(name: str, proc: Path = Path("/proc")) -> bool:
    """Whether a PortAudio name is hardware that can capture, even while another process holds it."""
    numbers = hardware_numbers(name)
    return numbers is not None and (proc / "asound" / f"card{numbers[0]}" / f"pcm{numbers[1]}c").exists()


def holders(name: str, proc: Path = Path("/proc")) -> list[str]:
    """Processes that hold the capture side of ALSA hardware, as ``arecord (pid 123)``.

    ALSA says so to every user, where ``/proc/PID/fd`` only tells of one's own processes.
    """
    numbers = hardware_numbers(name)
    if numbers is None:
        return []
    found = []
    for status in sorted((proc / "asound" / f"card{numbers[0]}" / f"pcm{numbers[1]}c").glob("sub*/status")):
        owner = re.search(r"^owner_pid\s*:\s*(\d+)", _read(status) or "", re.MULTILINE)
        if owner is None:
            continue
        # The owner may be a thread: its group is the process.
        group = re.search(r"^Tgid:\s*(\d+)", _read(proc / owner[1] / "status") or "", re.MULTILINE)
        pid = group[1] if group else owner[1]
        command = _read(proc / pid / "comm")
        found.append(f"{command or 'a process'} (pid {pid})")
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
