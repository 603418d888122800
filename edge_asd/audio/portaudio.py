"""PortAudio through sounddevice: the few calls that a microphone needs, for one thread only.

Whatever is called here may hang for ever where a sound server has stopped or hardware is gone; `edge_asd.audio.guard`
watches over that. PortAudio's list of devices is frozen until it is initialised again.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from edge_asd.audio.hardware import has_capture
from edge_asd.audio.ledger import Block
from edge_asd.audio.surroundings import Surroundings
from edge_asd.clock import boot_time
from edge_asd.errors import ConfigurationError, DeviceError

BUFFER_SECONDS = 2.0
"""What the device (or the sound server) keeps for us while we are busy."""
_PERIODS = 20
"""The buffer in pieces of 0.1 s. With PortAudio's own 4, blocks come every 0.6 s (measured on ALSA, PulseAudio)."""

OnBlock = Callable[[Block], None]


@dataclass(frozen=True)
class InputDevice:
    """An input that PortAudio lists."""

    index: int
    """Of no use to anybody but PortAudio: it changes with whatever is plugged in."""
    name: str
    host_api: str
    max_channels: int
    """0 where another process holds it."""
    default_rate: int


class Stream(Protocol):
    """An open input."""

    @property
    def has_ended(self) -> bool:
        """The sound system ended it by itself."""

    @property
    def buffer_seconds(self) -> float:
        """What is kept for us while we are busy; `BUFFER_SECONDS` are asked for, some hardware has less."""

    def close(self) -> None:
        """Abort and close."""


class Backend(Protocol):
    """A sound system."""

    def restart(self) -> None:
        """Forget everything and look for devices anew."""

    def may_find_more(self) -> bool:
        """Whether a restart could bring anything new."""

    def shut_down(self) -> None:
        """Leave."""

    def inputs(self) -> list[InputDevice]:
        """All inputs there are."""

    def supports(self, device: InputDevice, rate: int, channels: int) -> bool:
        """Whether it can be opened so."""

    def open(self, device: InputDevice, rate: int, channels: int, on_block: OnBlock) -> Stream:
        """Open and start.

        Raises:
            DeviceError: it cannot be opened so.
        """


class PortAudio:
    """The real one."""

    def __init__(self) -> None:
        self._sd: Any = None
        self._surroundings = Surroundings()

    def restart(self) -> None:
        """Initialise, again where it was.

        Raises:
            ConfigurationError: PortAudio is not installed.
            DeviceError: it cannot be initialised now.
        """
        if self._sd is None:
            self._sd = _load()  # this initialises, too
            return
        self._terminate()
        try:
            self._sd._initialize()
        except self._sd.PortAudioError as error:
            raise DeviceError(f"PortAudio cannot be started: {_text(error)}") from None

    def may_find_more(self) -> bool:
        """Whether cards or sources have changed since this was last true."""
        return self._surroundings.have_changed()

    def shut_down(self) -> None:
        """Terminate."""
        if self._sd is not None:
            self._terminate()

    def inputs(self) -> list[InputDevice]:
        """All inputs as they were when PortAudio was initialised; one that is held elsewhere then has no channels."""
        apis = self._sd.query_hostapis()
        return [
            InputDevice(
                d["index"],
                d["name"],
                apis[d["hostapi"]]["name"],
                d["max_input_channels"],
                round(d["default_samplerate"]),
            )
            for d in self._sd.query_devices()
            if d["max_input_channels"] > 0 or has_capture(d["name"])
        ]

    def supports(self, device: InputDevice, rate: int, channels: int) -> bool:
        """Whether a device can be opened so."""
        try:
            self._sd.check_input_settings(device.index, channels, "float32", samplerate=rate)
        except (self._sd.PortAudioError, ValueError):
            return False
        return True

    def open(self, device: InputDevice, rate: int, channels: int, on_block: OnBlock) -> Stream:
        """Open and start; ``on_block`` is called on PortAudio's thread.

        Raises:
            DeviceError: it cannot be opened so.
        """
        try:
            return _PortAudioStream(self._sd, device, rate, channels, on_block)
        except (self._sd.PortAudioError, ValueError) as error:
            raise DeviceError(f"{device.name!r} cannot be opened: {_text(error)}") from None

    def _terminate(self) -> None:
        # Fails only where it was not initialised, which a failed start before may have left so.
        with contextlib.suppress(self._sd.PortAudioError):
            self._sd._terminate()


class _PortAudioStream:
    def __init__(self, sd: Any, device: InputDevice, rate: int, channels: int, on_block: OnBlock) -> None:
        self.has_ended = False

        def callback(samples: Any, _frames: int, _time: Any, status: Any) -> None:
            on_block(Block(np.array(samples), boot_time(), bool(status.input_overflow)))

        def finished() -> None:
            self.has_ended = True

        self._stream = sd.InputStream(
            device=device.index,
            samplerate=rate,
            channels=channels,
            dtype="float32",
            blocksize=0,  # as they come: cutting them to a size of ours would only delay them
            latency=BUFFER_SECONDS,
            callback=callback,
            finished_callback=finished,
        )
        try:
            self._stream.start()
        except sd.PortAudioError:
            self.close()
            raise

    @property
    def buffer_seconds(self) -> float:
        return round(float(self._stream.latency), 3)

    def close(self) -> None:
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)


def _load() -> ModuleType:
    """sounddevice, with ALSA's complaints off standard error and a device buffer in small pieces."""
    _silence_alsa()
    try:
        sd = importlib.import_module("sounddevice")
    except OSError as error:
        raise ConfigurationError(
            f"device: PortAudio is needed for a microphone ({error}): sudo apt-get install libportaudio2"
        ) from None
    with contextlib.suppress(OSError, AttributeError):  # an ALSA matter: elsewhere it is not there
        ctypes.CDLL(sd._libname).PaAlsa_SetNumPeriods(_PERIODS)
    return sd


_ERROR_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)(
    lambda *_: None
)
"""Kept here, since ALSA keeps a pointer to it."""


def _silence_alsa() -> None:
    """ALSA writes to standard error whatever it tries in vain while devices are listed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_ERROR_HANDLER)


def _text(error: Exception) -> str:
    """PortAudio's own words: ``Error opening InputStream: Device unavailable [PaErrorCode -9985]``."""
    return " ".join(str(error).split())
