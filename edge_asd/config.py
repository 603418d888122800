"""What the configuration file may say.

The models below are the documentation: every key, its unit, its default. `edge_asd.config_file` reads them from YAML.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from edge_asd.audio.windows import MIN_HOP_SECONDS, WINDOW_SECONDS
from edge_asd.config_publish import EvidenceSection, MetricsSection, MqttSection, OutboxSection
from edge_asd.config_scoring import ScoringSection
from edge_asd.config_types import Name, Number, RelativePath, Section, Topic, as_section, dotted, wrong_at
from edge_asd.operating_point import MOST_PER_DAY
from edge_asd.pipeline import AlarmSettings
from edge_asd.strict_yaml import Document


def _k_of_n(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,6})\s+of\s+(\d{1,6})\s*", text)
    if match is None:
        raise ValueError('must be "k of n", for example "3 of 5"')
    return int(match[1]), int(match[2])


class DetectorEntry(Section):
    """A detector file and, where it serves several machine ids, the one that is meant."""

    file: RelativePath
    """The detector, an ONNX file."""
    id: str | None = None
    """The machine id that is meant, such as ``id_02``."""


def _short_form(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


def _active_when(value: Any) -> Any:
    return {"learned": True} if value == "learned" else as_section(value)


class ActiveWhen(Section):
    """When a machine counts as running; otherwise it is idle and not scored."""

    level_above_dbfs: Annotated[Number, Field(ge=-120, lt=0)] | None = None
    """Level of a window, dB re full scale."""
    learned: bool = False
    """Instead of a level, also written ``active_when: learned``: 6 dB below the quietest windows that the first
    detector was calibrated on, which must have been recorded with this microphone."""
    topic: Topic | None = None
    """Instead of a level: an MQTT topic of the broker under ``mqtt`` that says whether the machine runs."""
    on: Annotated[str, Field(min_length=1)] | None = None
    """Payload of ``topic`` while it runs; text, hence in quotes."""
    off: Annotated[str, Field(min_length=1)] | None = None
    """Likewise, while it stands still."""

    @model_validator(mode="after")
    def _is_one_gate(self) -> Self:
        if (self.level_above_dbfs is not None) + self.learned + (self.topic is not None) != 1:
            raise ValueError(
                "give level_above_dbfs in dB re full scale, such as -55, or learned, or topic: one of them"
            )
        if (self.topic is None) != (self.on is None) or (self.topic is None) != (self.off is None):
            raise ValueError('topic, on and off go together, as in {topic: plc/press-7/running, on: "1", off: "0"}')
        if self.topic is not None and self.on == self.off:
            raise ValueError("on and off must differ")
        return self

    @property
    def gate(self) -> float | Literal["learned"] | None:
        """As the pipeline takes it; None where a topic decides."""
        return "learned" if self.learned else self.level_above_dbfs


class AlarmSection(Section):
    """When to raise and to clear."""

    false_alarms_per_day: Annotated[Number, Field(gt=0, le=MOST_PER_DAY)] = 0.1
    """Raised incidents per machine and day that normal sound may cause."""
    threshold: Annotated[Number, Field(gt=0)] | None = None
    """Rarity, instead of ``false_alarms_per_day``."""
    raise_after: str = "3 of 5"
    """"k of n": raised when k of the last n scored windows pass the threshold."""
    clear_after: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Cleared after so many windows in a row below the lower threshold."""
    rest_seconds: Annotated[Number, Field(ge=0)] = 300.0
    """After clearing, nothing is raised for so long."""

    @field_validator("raise_after")
    @classmethod
    def _can_be_reached(cls, text: str) -> str:
        count, window = _k_of_n(text)
        if not 1 <= count <= window <= 1000:
            raise ValueError(f"{count} of {window} windows can never be reached; k must be from 1 to n, n at most 1000")
        return text

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if self.threshold is not None and "false_alarms_per_day" in self.model_fields_set:
            raise ValueError("threshold and false_alarms_per_day exclude each other: give one")
        try:
            self.settings().rule()
        except ValueError as error:
            raise wrong_at(str(error), "threshold") from None
        return self

    def settings(self) -> AlarmSettings:
        """As the pipeline takes them."""
        count, window = _k_of_n(self.raise_after)
        return AlarmSettings(
            self.false_alarms_per_day, count, window, self.clear_after, self.rest_seconds, self.threshold
        )


class DeviceSection(Section):
    """The input that the machines' channels belong to."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """As ``edge-asd devices`` shows it, or the card's name, before its colon; a ``(hw:1,0)`` may differ."""
    usb: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:.+)?$")] | None = None
    """``VENDOR:PRODUCT`` or ``VENDOR:PRODUCT:SERIAL``, where several have one name."""
    port: Annotated[str, Field(min_length=1)] | None = None
    """The socket or slot it is plugged into, such as ``1-1.4``, where several are the same in everything else."""
    source: Annotated[str, Field(min_length=1)] | None = None
    """At PulseAudio or PipeWire, as ``pactl list short sources`` shows it: nothing else is taken, whatever it does."""
    channels: Annotated[int, Field(ge=1, le=64)] | None = None
    """To open; its own unless given."""
    rate: Annotated[int, Field(ge=8000, le=192_000)] | None = None
    """Hz; its own unless given. Resampled to what the detectors want."""

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.name is None and self.usb is None and self.port is None:
            raise ValueError("give name, usb or port, as `edge-asd devices` shows them")
        return self


class MachineSection(Section):
    """One machine."""

    name: Name
    """Unique; part of topics and labels."""
    channel: Annotated[int, Field(ge=1, le=64)] | None = None
    """Of the device, from 1."""
    recordings: RelativePath | None = None
    """Instead of a channel: a WAV or FLAC file, or a folder of them, played in order of their names in real time."""
    recording_channel: Annotated[int, Field(ge=1, le=64)] = 1
    """Of recordings with several channels."""
    repeat: bool = False
    """Begin again after the last recording."""
    detectors: Annotated[
        tuple[Annotated[DetectorEntry, BeforeValidator(_short_form)], ...],
        Field(max_length=16, strict=False),
    ] = ()
    """Detector files; several are combined. Only ``edge-asd record`` does without."""
    hop_seconds: Annotated[Number, Field(ge=MIN_HOP_SECONDS, le=3600)] = WINDOW_SECONDS
    """From the start of a window to the start of the next."""
    active_when: Annotated[ActiveWhen | None, BeforeValidator(_active_when)] = None
    """Unless given, it always counts as running."""
    alarm: Annotated[AlarmSection, BeforeValidator(as_section)] = AlarmSection()
    """When to raise and to clear."""

    @model_validator(mode="after")
    def _has_one_sound(self) -> Self:
        if (self.channel is None) == (self.recordings is None):
            place = () if self.channel is None else ("recordings",)
            raise wrong_at(f"{self.name}: give channel (of the device) or recordings, one of the two", *place)
        return self

    @field_validator("detectors")
    @classmethod
    def _file_names_differ(cls, detectors: tuple[DetectorEntry, ...]) -> tuple[DetectorEntry, ...]:
        names = [d.file.name for d in detectors]
        for index, name in enumerate(names):
            if name in names[:index]:
                message = f"{name} is there twice; metrics and messages tell a machine's detectors by file name"
                raise wrong_at(message, index)
        return detectors


class Config(Section):
    """The whole file."""

    site: Name
    """The plant."""
    node: Name
    """The PC or the place in the plant."""
    device: Annotated[DeviceSection | None, BeforeValidator(as_section)] = None
    """The microphone; without this section recordings are played."""
    machines: Annotated[tuple[MachineSection, ...], Field(min_length=1, max_length=1000, strict=False)]
    """Each is scored and alarmed by itself."""
    mqtt: Annotated[MqttSection | None, BeforeValidator(as_section)] = None
    """The broker; without this section events go to the log only."""
    metrics: Annotated[MetricsSection | None, BeforeValidator(as_section)] = None
    """The Prometheus endpoint; without this section there is none."""
    scoring: Annotated[ScoringSection, BeforeValidator(as_section)] = ScoringSection()
    """How much of the computer scoring may use."""
    evidence: Annotated[EvidenceSection | None, BeforeValidator(as_section)] = None
    """What is kept of incidents; without this section pictures."""
    outbox: Annotated[OutboxSection, BeforeValidator(as_section)] = OutboxSection()
    """Where alerts wait until the broker has them."""

    @field_validator("machines")
    @classmethod
    def _names_are_unique(cls, machines: tuple[MachineSection, ...]) -> tuple[MachineSection, ...]:
        names = [m.name for m in machines]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise wrong_at(f"the name {name} is given twice", index, "name")
        return machines

    @model_validator(mode="after")
    def _channels_have_a_device(self) -> Self:
        for index, machine in enumerate(self.machines):
            if machine.channel is None:
                continue
            place = ("machines", index, "channel")
            if self.device is None:
                raise wrong_at(f"{machine.name} listens to a channel, but there is no device section", *place)
            if self.device.channels is not None and machine.channel > self.device.channels:
                message = (
                    f"{machine.name} listens to channel {machine.channel} of {self.device.channels} device.channels"
                )
                raise wrong_at(message, *place)
        if self.device is not None and all(m.channel is None for m in self.machines):
            raise wrong_at("there is a device, but no machine listens to a channel of it", "device")
        return self

    @model_validator(mode="after")
    def _topics_have_a_broker(self) -> Self:
        for index, machine in enumerate(self.machines):
            if self.mqtt is None and machine.active_when is not None and machine.active_when.topic is not None:
                message = f"{machine.name} runs when an MQTT topic says so, but there is no mqtt section"
                raise wrong_at(message, "machines", index, "active_when", "topic")
        return self

    _file: Path = PrivateAttr(default=Path("configuration"))
    _document: Document = PrivateAttr(default_factory=lambda: Document(None))

    def remember(self, file: Path, document: Document) -> None:
        """Where the values came from."""
        self._file, self._document = file, document

    @property
    def file(self) -> Path:
        """The file itself."""
        return self._file

    @property
    def folder(self) -> Path:
        """Where the file lies."""
        return self._file.absolute().parent

    def place(self, *path: str | int) -> str:
        """``FILE:LINE:COLUMN: KEY`` of a value, for errors that only show when it is used.

        Args:
            path: keys and indices (from 0), as in ``place("machines", 0, "alarm")``.
        """
        line, column = self._document.place(path)
        return f"{self._file}:{line}:{column}: {dotted(path)}"

    def placed(self, message: str) -> str:
        """What is wrong at the start, with the place of the key that it begins with, as in ``mqtt.tls: ...``.

        Args:
            message: of an error; one that begins with no key is given the file alone.
        """
        key, _, reason = message.partition(": ")
        path = key.split(".")
        return f"{self.place(*path)}: {reason}" if path[0] in type(self).model_fields else f"{self._file}: {message}"
