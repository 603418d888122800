"""`edge-asd devices`: the inputs there are, what they can do, how loud it is there, and which one would be taken."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_asd.audio.device import DeviceSettings, find_device
from edge_asd.audio.guard import Guard
from edge_asd.audio.hardware import CardIdentity, card_identity, hardware_numbers
from edge_asd.audio.ledger import Block
from edge_asd.audio.level import level_bar, level_dbfs
from edge_asd.audio.opening import USUAL_RATES, Opener
from edge_asd.audio.portaudio import Backend, InputDevice, OnBlock, PortAudio
from edge_asd.errors import EXIT_DONE, EXIT_SOME_FAILED, DeviceError

_RATES = tuple(sorted({*USUAL_RATES, 22_050, 192_000}))
_FIRST_SAMPLES_SECONDS = 2.5
_METERS_IN_A_LINE = 2


@dataclass(frozen=True)
class Listing:
    """An input and what was found out about it."""

    device: InputDevice
    card: CardIdentity | None
    rates: tuple[int, ...]
    """Hz, of the usual ones; of an input that goes through a sound server, its source's own."""
    channels: int
    source: str | None
    """At the sound server, where it goes through one."""
    levels_dbfs: tuple[float, ...]
    """Mean power of each channel just now; -120 is digital silence."""
    problem: str | None
    """Why there is no level."""
    rate: int | None = None
    """Hz, that it was opened with."""

    @property
    def line(self) -> str:
        """For a table."""
        rates = f"{self.rates[0] / 1000:g}" if len(self.rates) == 1 else _span(self.rates)
        origin = f"source {self.source}" if self.source else self.device.host_api
        card = f"  {self.card}" if self.card else ""
        return f"{self.device.name!r}  {self.channels} channel(s), {rates} kHz, {origin}{card}"

    @property
    def meter(self) -> str:
        """Its levels, channel by channel."""
        if self.problem is not None:
            return self.problem
        shown = [f"{n}: {level_bar(level)}" for n, level in enumerate(self.levels_dbfs, 1)]
        rows = ["   ".join(shown[n : n + _METERS_IN_A_LINE]) for n in range(0, len(shown), _METERS_IN_A_LINE)]
        return "\n      ".join(rows)

    def document(self, is_taken: bool) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.device.name,
            "host_api": self.device.host_api,
            "usb": self.card.usb if self.card else None,
            "serial": self.card.serial if self.card else None,
            "port": self.card.port if self.card else None,
            "source": self.source,
            "channels": self.channels,
            "rates": list(self.rates),
            "levels_dbfs": [round(level, 1) for level in self.levels_dbfs],
            "problem": self.problem,
            "taken_by_configuration": is_taken,
        }


def devices(
    wanted: DeviceSettings | None,
    *,
    needed_channels: int = 1,
    seconds: float,
    as_json: bool,
    backend: Backend | None = None,
) -> int:
    """List all inputs on standard output.

    Args:
        wanted: the configuration's device, which is marked.
        needed_channels: that its machines listen to.
        seconds: to listen to each.
        as_json: one document instead of a table.
        backend: PortAudio unless given.

    Returns:
        The exit status: 1 if the configuration would find no device to take.
    """
    guard = Guard()
    backend = backend or PortAudio()
    with guard.watch("starting PortAudio"):
        backend.restart()
        inputs = backend.inputs()
    taken, problem = None, None
    if wanted is not None:
        try:
            taken, _ = find_device(inputs, wanted)
        except DeviceError as error:
            problem = str(error)
    opener = Opener(backend, guard)
    documents = []
    for device in inputs:
        is_taken = device == taken
        settings = wanted if is_taken and wanted is not None else DeviceSettings(device.name)
        listing = look_at(device, settings, needed_channels if is_taken else 1, backend, opener, guard, seconds)
        if is_taken and listing.problem is not None:
            is_taken, taken, problem = False, None, listing.problem
        documents.append(listing.document(is_taken))
        if not as_json:
            print(f"{'*' if is_taken else ' '} {listing.line}\n      {listing.meter}", flush=True)
    with guard.watch("leaving PortAudio"):
        backend.shut_down()
    guard.close()
    if as_json:
        print(json.dumps({"schema": 1, "devices": documents, "problem": problem}, indent=1))
    else:
        _explain(len(inputs), taken, problem, wanted)
    return EXIT_DONE if problem is None else EXIT_SOME_FAILED


def look_at(
    device: InputDevice,
    settings: DeviceSettings,
    needed_channels: int,
    backend: Backend,
    opener: Opener,
    guard: Guard,
    seconds: float,
) -> Listing:
    """Find out about an input, and listen to it.

    Args:
        device: as PortAudio lists it now.
        settings: rate and channels, where they are not to be its own.
        needed_channels: it must have so many.
        backend: that lists it.
        opener: opens it.
        guard: watches the calls.
        seconds: to listen.
    """
    card = card_identity(device.name)
    is_virtual = hardware_numbers(device.name) is None
    with guard.watch(f"asking what {device.name!r} can do"):
        channels = 1 if is_virtual else max(1, device.max_channels)
        rates = tuple(r for r in _RATES if backend.supports(device, r, channels)) or (device.default_rate,)
    heard = _Heard()
    try:
        opened = opener.open(device, card, settings, needed_channels=needed_channels, before=None, new_sink=heard.begin)
    except DeviceError as error:
        return Listing(device, card, rates, device.max_channels, None, (), str(error))
    levels = heard.levels(seconds)
    opener.close(opened)
    opening = opened.opening
    return Listing(
        device,
        opening.card,
        rates if opening.source is None else (opening.source.rate,),
        opening.channels,
        opening.source.name if opening.source else None,
        levels,
        None if levels else f"gives no samples within {_FIRST_SAMPLES_SECONDS:g} s",
        opening.rate,
    )


class _Heard:
    """Collects blocks for a while."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._came = threading.Event()

    def begin(self) -> OnBlock:
        """A stream is opened; those before it no longer count."""
        self._blocks = blocks = list[Block]()
        self._came.clear()

        def take(block: Block) -> None:
            blocks.append(block)
            self._came.set()

        return take

    def levels(self, seconds: float) -> tuple[float, ...]:
        """Of each channel, over what comes in so many seconds; nothing if nothing comes."""
        if not self._came.wait(_FIRST_SAMPLES_SECONDS) or not self._blocks:
            return ()
        threading.Event().wait(seconds)
        samples = np.concatenate([b.samples for b in list(self._blocks)])
        return tuple(level_dbfs(samples[:, n]) for n in range(samples.shape[1]))


def _explain(count: int, taken: InputDevice | None, problem: str | None, wanted: DeviceSettings | None) -> None:
    if not count:
        print("no inputs: is a microphone plugged in, and may this user use it (group audio)?")
    if taken is not None:
        print("\n* is what the configuration takes.")
    elif problem is not None:
        print(f"\nThe configuration takes none of them: {problem}")
    elif wanted is None and count:
        print("\nIn the configuration: `device: {name: …}` with one of these names; -c FILE marks what it takes.")


def _span(rates: tuple[int, ...]) -> str:
    return f"{rates[0] / 1000:g} to {rates[-1] / 1000:g}"
