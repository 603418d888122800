"""A sound system made up for tests: its devices, a sound server, and the time in which all of it happens.

Time is either simulated (whoever waits makes it go on: a hundred outages take a second and come out the same every
time) or real and faster by some factor, with a thread of its own.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_asd.audio import microphone, opening
from edge_asd.audio.device import find_device
from edge_asd.audio.hardware import card_identity
from edge_asd.audio.ledger import Block
from edge_asd.audio.portaudio import InputDevice, OnBlock
from edge_asd.audio.sound_server import Source
from edge_asd.errors import DeviceError

BLOCK_SECONDS = 0.1
FRAME_NUMBERS = 2**24
"""Frames are numbered from 0 again after so many: float32 has no more."""


class SimulatedTime:
    """Seconds that pass while somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def clock(self) -> float:
        return self.now

    def at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._count), action))

    def go_on(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while not until() and self.now <= end and self._due and self._due[0][0] <= end:
            moment, _, action = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            action()
        if not until():
            self.now = max(self.now, end)

    def stand_still(self, seconds: float) -> None:
        """This process does nothing for a while, as under SIGSTOP."""
        self.now += seconds

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Microphones made from now on wait in this time."""

        def event() -> Any:
            return _Event(self)

        fake = SimpleNamespace(Event=event, Thread=threading.Thread, Lock=threading.Lock)
        patch.setattr(microphone, "threading", fake)


class _Event(threading.Event):
    def __init__(self, world: SimulatedTime) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        if threading.current_thread().name != "microphone":
            return super().wait(timeout)
        assert timeout is not None
        self._world.go_on(timeout, self.is_set)
        return self.is_set()


class FastTime(SimulatedTime):
    """Real seconds, so many times as fast; `install` has the microphone look as often as it would."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor, self._began = factor, time.monotonic()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="sound-system", daemon=True).start()

    def clock(self) -> float:
        return 1000.0 + (time.monotonic() - self._began) * self._factor

    def at(self, moment: float, action: Callable[[], None]) -> None:
        with self._lock:
            super().at(moment, action)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(microphone, "TICK_SECONDS", microphone.TICK_SECONDS / self._factor)

    def go_on(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.clock() + seconds
        while self.clock() < end and not until():
            time.sleep(0.01 / self._factor)

    def _run(self) -> None:
        while True:
            with self._lock:
                is_due = self._due and self._due[0][0] <= self.clock()
                action = heapq.heappop(self._due)[2] if is_due else None
            if action is None:
                time.sleep(0.02 / self._factor)
            else:
                action()


@dataclass
class FakeInput:
    """An input of the sound system, and what is wrong with it."""

    name: str
    """As PortAudio lists it; of hardware without its ``(hw:1,0)``."""
    mark: float = 1.0
    """What its last channel gives, so that sound can be told from that of others."""
    card: int | None = None
    """ALSA's number; None where it is no hardware."""
    usb: str | None = None
    """``VENDOR:PRODUCT:SERIAL`` of a card on USB."""
    port: str = "1-1"
    channels: int = 2
    rate: int = 16_000
    rates: tuple[int, ...] = ()
    """That it takes; its own alone unless given."""
    is_there: bool = True
    refuses: str | None = None
    """What opening it says."""
    is_dead: bool = False
    """It opens, and gives nothing."""
    opened: list[tuple[int, int]] = field(default_factory=list)
    """Rate and channels of each time it was opened."""

    @property
    def listed(self) -> str:
        return self.name if self.card is None else f"{self.name} (hw:{self.card},0)"


class FakeStream:
    """Gives frames whose first channel is their number since the beginning of time; see `FakeInput.mark`."""

    def __init__(self, system: FakeSoundSystem, device: FakeInput, rate: int, channels: int, on_block: OnBlock) -> None:
        self.has_ended = False
        self.is_open = True
        self.buffer_seconds = 2.0
        self.loses = False
        self.device = device
        """May be another one later: a sound server's doing."""
        self._system, self._rate, self._channels, self._on_block = system, rate, channels, on_block
        self._frame = self._due_frame()
        self._card = device.card
        self._system.time.at(system.time.clock() + BLOCK_SECONDS, self._deliver)

    def close(self) -> None:
        self._system.call("close")
        self.is_open = False

    def end(self) -> None:
        """As a sound server does."""
        self.has_ended = True

    def _due_frame(self) -> int:
        return int((self._system.time.clock() - self._system.began) * self._rate)

    def _deliver(self) -> None:
        device, now = self.device, self._system.time.clock()
        # A card that was pulled out has no stream any more, even if it was put back at once.
        if not self.is_open or self.has_ended or not device.is_there or device.card != self._card:
            return
        first, self._frame = self._frame, self._due_frame()
        if not device.is_dead and not self._system.is_stopped and self._frame > first:
            samples = np.full((self._frame - first, self._channels), device.mark, np.float32)
            samples[:, 0] = np.arange(first, self._frame) % FRAME_NUMBERS
            self._on_block(Block(samples, now))
        self._system.time.at(now + BLOCK_SECONDS, self._deliver)


class FakeSoundSystem:
    """A `Backend`."""

    def __init__(self, world: SimulatedTime, *devices: FakeInput, sys: Path | None = None) -> None:
        self.time, self.devices, self.began = world, list(devices), world.clock()
        self.streams: list[FakeStream] = []
        self.is_stopped = False
        """Nobody gives samples."""
        self.hangs_in: str | None = None
        """The call that never returns: restart, open, close."""
        self.restarts = 0
        self.is_unchanged = False
        """Nothing that could be seen of it has changed."""
        self.fails_with: Exception | None = None
        """What starting raises."""
        self._listed: list[FakeInput] = []
        self._sys = sys

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Cards are what these devices are."""
        assert self._sys is not None
        patch.setattr(opening, "card_identity", partial(card_identity, sys=self._sys))
        patch.setattr(microphone, "find_device", partial(find_device, sys=self._sys))
        for device in self.devices:
            self.plug(device) if device.is_there else self.unplug(device)

    def may_find_more(self) -> bool:
        return not self.is_unchanged

    def plug(self, device: FakeInput, card: int | None = None) -> None:
        device.is_there = True
        device.card = device.card if card is None else card
        if self._sys is not None and device.usb is not None:
            assert device.card is not None
            write_sysfs(self._sys, device.card, device.usb, device.port)

    def unplug(self, device: FakeInput) -> None:
        device.is_there = False
        for stream in self.streams:
            stream.is_open &= stream.device is not device
        if self._sys is not None and device.usb is not None:
            (self._sys / "class" / "sound" / f"card{device.card}").unlink(missing_ok=True)

    def call(self, name: str) -> None:
        if self.hangs_in == name:
            time.sleep(3600)

    def restart(self) -> None:
        self.call("restart")
        self.restarts += 1
        if self.fails_with is not None:
            raise self.fails_with
        self._listed = [d for d in self.devices if d.is_there]

    def shut_down(self) -> None:
        self._listed = []

    def inputs(self) -> list[InputDevice]:
        return [InputDevice(n, d.listed, "ALSA", d.channels, d.rate) for n, d in enumerate(self._listed)]

    def supports(self, device: InputDevice, rate: int, channels: int) -> bool:
        wanted = self._listed[device.index]
        return rate in (wanted.rates or (wanted.rate,)) and channels <= wanted.channels

    def open(self, device: InputDevice, rate: int, channels: int, on_block: OnBlock) -> FakeStream:
        self.call("open")
        self.time.go_on(0.2)
        wanted = self._listed[device.index]
        wanted.opened.append((rate, channels))
        if wanted.refuses or not wanted.is_there or device.name != wanted.listed:
            raise DeviceError(f"{device.name!r} cannot be opened: {wanted.refuses or 'no such device'}")
        if not self.supports(device, rate, channels):
            raise DeviceError(f"{device.name!r} cannot be opened: {rate} Hz, {channels} channels")
        self.streams.append(FakeStream(self, wanted, rate, channels, on_block))
        return self.streams[-1]


class FakeWatch:
    """A `StreamWatch` over the newest stream; the sound server's doings are attributes of the class that `of` makes."""

    source: Source | None = None
    moved_to: str | None = None
    is_silent = False
    """The server answers nothing."""

    def __init__(self, world: SimulatedTime) -> None:
        self._time = world
        self.vouched_until = float("-inf")

    @staticmethod
    def of(world: SimulatedTime, source: Source | None) -> Any:
        return type(
            "FakeWatch", (FakeWatch,), {"source": source, "__init__": lambda self: FakeWatch.__init__(self, world)}
        )

    def locate(self) -> bool:
        if self.is_silent:
            raise DeviceError("the sound server has not answered for 2 s")
        self._time.go_on(0.25)
        return self.source is not None

    def ask(self) -> None:
        if self.moved_to is None and not self.is_silent:
            self.vouched_until = self._time.clock()

    def wait_for_answer(self, seconds: float) -> None:
        if self.is_silent:
            self._time.go_on(seconds)

    def close(self) -> None:
        pass


def write_sysfs(sys: Path, card: int, usb: str, port: str = "1-1") -> None:
    """A card on USB as the kernel shows it: ``class/sound/card1`` leads to the card below its interface and device."""
    vendor, product, *serial = usb.split(":")
    device = sys / "devices" / "pci0000:00" / f"usb{port[0]}" / port
    shown = device / f"{port}:1.0" / "sound" / f"card{card}"
    shown.mkdir(parents=True, exist_ok=True)
    for name, value in [("idVendor", vendor), ("idProduct", product), *(("serial", s) for s in serial)]:
        (device / name).write_text(f"{value}\n")
    if not serial:
        (device / "serial").unlink(missing_ok=True)
    back = shown / "device"
    if not back.is_symlink():
        back.symlink_to(Path("..") / ".." / ".." / f"{port}:1.0")
    link = sys / "class" / "sound" / f"card{card}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / ".." / shown.relative_to(sys))
