"""Opens an input at its own rate, with its own channels, and makes sure that it is the one that was meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.guard import Guard
from edge_asd.audio.hardware import CardIdentity, card_identity, hardware_numbers, holders
from edge_asd.audio.portaudio import Backend, InputDevice, OnBlock, Stream
from edge_asd.audio.sound_server import Source, StreamWatch
from edge_asd.errors import DeviceError

USUAL_RATES = (48_000, 44_100, 96_000, 32_000, 16_000, 8_000)
"""Hz, tried in this order where a device does not take the rate that it is said to prefer."""
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class Opening:
    """What was opened."""

    device: InputDevice
    card: CardIdentity | None
    source: Source | None
    """Of the sound server, where the stream goes through one."""
    rate: int
    """Hz."""
    channels: int
    buffer_seconds: float
    """What the device keeps for us while we are busy."""


@dataclass(frozen=True)
class OpenInput:
    """An input that gives samples."""

    opening: Opening
    stream: Stream
    watch: StreamWatch | None
    """Over a stream that goes through a sound server."""

    def close(self) -> None:
        """Close it; may hang."""
        if self.watch is not None:
            self.watch.close()
        self.stream.close()


class Opener:
    """Opens inputs on a backend, each call under a guard."""

    def __init__(self, backend: Backend, guard: Guard, new_watch: Callable[[], StreamWatch] = StreamWatch) -> None:
        """``new_watch`` makes a watch over a stream that was just opened."""
        self._backend, self._guard, self._new_watch = backend, guard, new_watch

    def open(
        self,
        device: InputDevice,
        card: CardIdentity | None,
        settings: DeviceSettings,
        *,
        needed_channels: int,
        before: Opening | None,
        new_sink: Callable[[], OnBlock],
    ) -> OpenInput:
        """Open and start.

        Args:
            device: as PortAudio lists it now.
            card: what it is, as far as the kernel says.
            settings: rate and channels where they are not to be its own.
            needed_channels: it must have so many.
            before: when it was opened last; it must be the same input again.
            new_sink: makes what is given the blocks, on the sound system's thread; it may be opened twice, and what the
                first stream still gives must not be taken for the second's.

        Raises:
            DeviceError: it cannot be opened, or is another one.
        """
        if not device.max_channels:
            # So PortAudio lists hardware that another process holds, and outputs.
            held = ", ".join(holders(device.name))
            raise DeviceError(f"{device.name!r} is held by {held}" if held else f"{device.name!r} is no input now")
        if before is not None and before.device.name == device.name:
            rate, channels = before.rate, before.channels
        else:
            rate, channels = self._first_choice(device, settings, needed_channels)
        opened = self._open(device, card, rate, channels, new_sink())
        source = opened.opening.source
        if source is not None:
            own = (settings.rate or source.rate, settings.channels or source.channels)
            if own != (rate, channels):
                # What goes through a sound server can be opened at any rate; only now its own is known.
                self.close(opened)
                opened = self._open(device, card, *own, new_sink())
        try:
            self._check(opened.opening, settings, needed_channels, before)
        except DeviceError:
            self.close(opened)
            raise
        return opened

    def close(self, opened: OpenInput) -> None:
        """Close an input."""
        with self._guard.watch(f"closing {opened.opening.device.name!r}"):
            opened.close()

    def _first_choice(self, device: InputDevice, settings: DeviceSettings, needed: int) -> tuple[int, int]:
        """Rate and channels to open with, as far as they can be known beforehand."""
        is_hardware = hardware_numbers(device.name) is not None
        most = min(device.max_channels, _MOST_CHANNELS)
        channels = settings.channels or (most if is_hardware else min(needed, most))
        wanted = (settings.rate,) if settings.rate else (device.default_rate, *USUAL_RATES)
        with self._guard.watch(f"asking what {device.name!r} can do"):
            rate = next((r for r in wanted if self._backend.supports(device, r, channels)), None)
        # Where nothing is said to be supported, opening it says why: as a rule, another program holds it.
        return rate or wanted[0], channels

    def _open(
        self, device: InputDevice, card: CardIdentity | None, rate: int, channels: int, on_block: OnBlock
    ) -> OpenInput:
        try:
            with self._guard.watch(f"opening {device.name!r}"):
                stream = self._backend.open(device, rate, channels, on_block)
        except DeviceError as error:
            held = holders(device.name)
            raise DeviceError(f"{error}; held by {', '.join(held)}" if held else str(error)) from None
        opening = Opening(device, card, None, rate, channels, stream.buffer_seconds)
        if hardware_numbers(device.name) is not None:
            return OpenInput(opening, stream, None)
        watch = self._new_watch()
        try:
            goes_through_a_server = watch.locate()
        except DeviceError:
            self.close(OpenInput(opening, stream, watch))
            raise
        if goes_through_a_server:
            return OpenInput(replace(opening, source=watch.source), stream, watch)
        watch.close()
        return OpenInput(opening, stream, None)

    def _check(self, opening: Opening, settings: DeviceSettings, needed: int, before: Opening | None) -> None:
        name, source = opening.device.name, opening.source
        is_hardware = hardware_numbers(name) is not None
        if source is None and not is_hardware and settings.channels is None:
            # Opened with fewer channels than it has, ALSA would mix them into one another.
            raise DeviceError(f"{name!r} does not say how many channels it has: say so with device.channels")
        if settings.source is not None and (source is None or source.name != settings.source):
            found = "no source of a sound server" if source is None else repr(source.name)
            raise DeviceError(f"{name!r} is {found}, and not {settings.source!r} as device.source says")
        there = opening.channels if source is None else min(opening.channels, source.channels)
        if there < needed:
            raise DeviceError(f"{name!r} has {there} channel(s); channel {needed} is configured")
        if card_identity(name) != opening.card:
            raise DeviceError(f"{name!r} was changed for another one while it was opened")
        if before is not None and before.source is not None and (source is None or source.name != before.source.name):
            now = "not there" if source is None else repr(source.name)
            raise DeviceError(f"{name!r} was {before.source.name!r} at the sound server, and is {now} now")
