"""Errors whose message is the whole story for the person in front of the machine: no traceback is shown for them."""

from __future__ import annotations

from pathlib import Path

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_SOUND_SYSTEM_HUNG = 70
EXIT_CONFIGURATION = 78


class EdgeAsdError(Exception):
    """What was wrong, where, and what to do, in one line."""

    exit_status = EXIT_SOME_FAILED


class RecordingError(EdgeAsdError):
    """A recording cannot be read as sound."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class DetectorError(EdgeAsdError):
    """A file is not a detector that can be trusted, or does not suit what it is asked."""

    exit_status = EXIT_CONFIGURATION

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ReportError(EdgeAsdError):
    """A page cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ConfigurationError(EdgeAsdError):
    """The configuration says something that cannot be meant."""

    exit_status = EXIT_CONFIGURATION


class UsageError(EdgeAsdError):
    """The command line asks for something that cannot be done."""

    exit_status = EXIT_USAGE


class DeviceError(EdgeAsdError):
    """An input device is not there, or cannot be used now."""
