"""Is the sound there? The device that a configuration takes and how loud it is, or the recordings that it plays."""

from __future__ import annotations

from collections.abc import Iterator

from edge_asd.audio.claim import Claim
from edge_asd.audio.device import find_device, missing_band
from edge_asd.audio.guard import Guard
from edge_asd.audio.level import SILENCE_DBFS
from edge_asd.audio.opening import Opener
from edge_asd.audio.portaudio import Backend, PortAudio
from edge_asd.audio.recording import find_recordings, read_blocks
from edge_asd.config import Config
from edge_asd.devices import Listing, look_at
from edge_asd.errors import ConfigurationError, DeviceError, RecordingError
from edge_asd.finding import Finding
from edge_asd.machine import device_settings

_RATE = 16_000
"""Hz; a recording is brought to that of the detectors, whichever it is."""
_SECONDS = 1.0
"""To listen."""
_CLIPPED_DBFS = -3.0
"""Nothing but a signal at its limits is so loud on average."""
_FAINT_DBFS = -100.0
"""The noise of a 16-bit converter with nothing plugged in is about here."""


def check_recordings(config: Config) -> Iterator[Finding]:
    """Whether the machines that play recordings have any, and the first has the channel that is to be heard."""
    for number, machine in enumerate(config.machines):
        if machine.recordings is None:
            continue
        try:
            files = find_recordings([machine.recordings])
            next(read_blocks(files[0], sample_rate=_RATE, channel=machine.recording_channel))
        except RecordingError as error:
            yield Finding("recordings", "failed", f"{config.place('machines', number, 'recordings')}: {error}")
            continue
        text = f"{machine.name}: {len(files)} recording{'' if len(files) == 1 else 's'} in {machine.recordings}"
        yield Finding("recordings", "ok", text, {"machine": machine.name, "files": len(files)})


def check_device(config: Config, backend: Backend | None = None, wanted: int | None = None) -> Iterator[Finding]:
    """Whether the device is there and gives sound on the channels that machines listen to.

    Args:
        config: whose device.
        backend: PortAudio unless given.
        wanted: Hz, the highest rate that a detector was made for.
    """
    if config.device is None:
        return
    place = config.place("device")
    if backend is None:
        from edge_asd.audio.quiet import filter_standard_error

        filter_standard_error()
        backend = PortAudio()
    if config.device.rate is not None:
        yield from _band(config.place("device", "rate"), config.device.rate, wanted)
    guard = Guard()
    try:
        listing, holder = _look(config, backend, guard)
    except ConfigurationError as error:  # PortAudio is not installed
        yield Finding("device", "failed", f"{place}: {error}")
        return
    except DeviceError as error:
        hint = "`edge-asd devices` lists the inputs; is it plugged in, and may this user use it (group audio)?"
        yield Finding("device", "failed", f"{place}: {error}; {hint}")
        return
    finally:
        guard.close()
    if holder is not None:
        yield Finding("device", "ok", f"{place}: is there; {holder}, so its level is not measured")
    elif listing is not None and listing.problem is not None:
        name, problem = repr(listing.device.name), listing.problem
        text = f"{place}: {problem if name in problem else f'{name} {problem}'}"
        yield Finding("device", "failed", text, _figures(listing))
    elif listing is not None:
        yield Finding("device", "ok", f"{place}: takes {listing.line}", _figures(listing))
        if config.device.rate is None and listing.rate is not None:
            yield from _band(place, listing.rate, wanted)
        yield from _levels(config, listing)


def _look(config: Config, backend: Backend, guard: Guard) -> tuple[Listing | None, str | None]:
    """What was found out about the device; or who of us has it, and nothing."""
    assert config.device is not None
    settings, claim = device_settings(config.device), Claim()
    with guard.watch("starting PortAudio"):
        backend.restart()
        inputs = backend.inputs()
    try:
        device, card = find_device(inputs, settings)
        try:
            claim.take(device.name, card)
        except DeviceError as error:
            return None, str(error)
        needed = max(machine.channel or 1 for machine in config.machines)
        return look_at(device, settings, needed, backend, Opener(backend, guard), guard, _SECONDS), None
    finally:
        claim.give_back()
        with guard.watch("leaving PortAudio"):
            backend.shut_down()


def _band(place: str, rate: int, wanted: int | None) -> Iterator[Finding]:
    if wanted is not None and rate < wanted:
        yield Finding("device", "warning", f"{place}: {missing_band(rate, wanted)}", {"rate": rate, "wanted": wanted})


def _levels(config: Config, listing: Listing) -> Iterator[Finding]:
    for number, machine in enumerate(config.machines):
        if machine.channel is None:
            continue
        level = listing.levels_dbfs[machine.channel - 1]
        what = f"channel {machine.channel} ({machine.name})"
        figures = {"machine": machine.name, "channel": machine.channel, "level_dbfs": round(level, 1)}
        place = config.place("machines", number, "channel")
        if level <= SILENCE_DBFS:
            hint = "is the microphone switched off or muted, or is another channel meant?"
            yield Finding("level", "warning", f"{place}: {what} is digital silence: {hint}", figures)
        elif level < _FAINT_DBFS:
            hint = "is a microphone plugged in, and its gain turned up?"
            yield Finding("level", "warning", f"{place}: {what} has {level:.0f} dBFS: {hint}", figures)
        elif level > _CLIPPED_DBFS:
            hint = "it is too loud and clips; turn its gain down"
            yield Finding("level", "warning", f"{place}: {what} has {level:.1f} dBFS: {hint}", figures)
        else:
            yield Finding("level", "ok", f"{what}: {level:.1f} dBFS over {_SECONDS:g} s", figures)


def _figures(listing: Listing) -> dict[str, object]:
    return {
        "name": listing.device.name,
        "source": listing.source,
        "channels": listing.channels,
        "rates": list(listing.rates),
    }
