"""A site's own calibration of a detector: ``DETECTOR.MACHINE.calibration.json``, written by `edge-asd calibrate`.

The file is bound to the content of the detector file, the machine and the machine id. It lies in the state folder or
beside the detector, and counts in place of the calibration inside the detector. A file that is bound to something else
is not used, and that is said: a detector that was replaced brings a calibration of its own, and listening with that is
better than not listening until somebody has calibrated again. A file that is damaged is an error: nothing that edge-asd
does leaves one behind, and whoever calibrated believes that it counts.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_asd.calibration import Calibration
from edge_asd.config_types import Name
from edge_asd.detector import Detector, one_line
from edge_asd.errors import ConfigurationError, EdgeAsdError
from edge_asd.state_folder import make_state_folder

SCHEMA = 1
SUFFIX = ".calibration.json"
FORMER_KEPT = 5
"""So many former files are kept beside the one that counts."""
_MAX_BYTES = 64 * 1024 * 1024
_MODE = 0o644
"""The daemon may be another user than who calibrates."""
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that makes none, or no more of this file: link(2)."""


class SiteCalibration(BaseModel):
    """The whole file; its schema is ``deploy/schemas/calibration.schema.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_number: Annotated[Literal[1], Field(alias="schema")] = 1
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the detector file."""
    machine: Name
    """As the configuration calls it."""
    id: str
    """The machine id within the detector."""
    calibration: Calibration

    def objection(self, sha256: str, machine: str, machine_id: str) -> str | None:
        """Why it does not count for a detector file, a machine and an id; None where it does."""
        if self.machine != machine:
            return f"is for machine {self.machine}, not {machine}"
        if self.sha256 != sha256:
            return f"is for another detector file (sha256 {self.sha256[:12]}..., not {sha256[:12]}...)"
        if self.id != machine_id:
            return f"is for id {self.id}, not {machine_id}"
        return None


@dataclass(frozen=True)
class CalibrationInUse:
    """What a detector runs with on a machine."""

    calibration: Calibration
    path: Path | None
    """None: the one inside the detector."""
    ignored: tuple[str, ...] = ()
    """Files that do not count, each with the reason."""


def site_calibration_path(detector: Path, machine: str, state: Path | None) -> Path:
    """Where the calibration of a detector file on a machine belongs: in the state folder, else beside the detector."""
    folder = detector.parent if state is None else state
    return folder / f"{detector.name.removesuffix('.onnx')}.{machine}{SUFFIX}"


def calibration_in_use(
    detector: Detector, file: Path, machine: str, machine_id: str, state: Path | None
) -> CalibrationInUse:
    """The calibration that counts: of the state folder, else beside the detector, else inside it.

    Args:
        detector: loaded.
        file: the detector file as the configuration names it.
        machine: as the configuration calls it.
        machine_id: within the detector.
        state: the state folder, if there is one.

    Raises:
        ConfigurationError: a file that is there is damaged.
    """
    ignored: list[str] = []
    used: tuple[Calibration, Path] | None = None
    for folder in dict.fromkeys((state, None)):
        path = site_calibration_path(file, machine, folder)
        if not os.path.lexists(path):
            continue
        if used is not None:
            ignored.append(f"{path}: {used[1]} comes first")
            continue
        found = read_site_calibration(path)
        objection = found.objection(detector.sha256, machine, machine_id)
        if objection is None:
            used = found.calibration, path
        else:
            ignored.append(f"{path}: {objection}; run `edge-asd calibrate` again, or remove it")
    if used is None:
        return CalibrationInUse(detector.metadata.calibration[machine_id], None, tuple(ignored))
    return CalibrationInUse(*used, tuple(ignored))


def read_site_calibration(path: Path) -> SiteCalibration:
    """Read and check a file.

    Raises:
        ConfigurationError: it cannot be read, is damaged, or of a foreign schema; the message names file and place.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"{path}: is larger than {_MAX_BYTES // 2**20} MB, which no calibration is")
    try:
        loose = json.loads(content)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{path}:{error.lineno}:{error.colno}: is damaged, no JSON: {error.msg}; mend or remove it"
        ) from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path}: is damaged, no JSON; mend or remove it") from None
    number = loose.get("schema") if isinstance(loose, dict) else None
    if isinstance(number, int) and number != SCHEMA:
        raise ConfigurationError(f"{path}: has schema {number}; this version of edge-asd reads schema {SCHEMA}")
    try:
        return SiteCalibration.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = one_line(ValueError(f"is wrong at {place or 'the top'}: {first['msg']}"))
        raise ConfigurationError(f"{path}: {reason}") from None


def write_site_calibration(path: Path, document: SiteCalibration) -> Path | None:
    """Write a file whole or not at all, and keep the one that was there.

    Args:
        path: from `site_calibration_path`; its folder is made where it is missing.
        document: what it shall hold.

    Returns:
        Where the former file is now, if there was one.

    Raises:
        EdgeAsdError: it cannot be written; the former file still counts.
    """
    part: Path | None = None
    try:
        make_state_folder(path.parent)
        for left in path.parent.glob(f".{path.name}.*.part"):
            left.unlink(missing_ok=True)  # of a process that was killed
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        part = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(document.model_dump_json(by_alias=True) + "\n")
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())
        former = _keep_former(path)
        part.replace(path)
        _sync_folder(path.parent)
        _forget_old(path)
        return former
    except OSError as error:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise EdgeAsdError(f"{path}: {error.strerror or error}") from None


def former_files(path: Path) -> list[Path]:
    """Former files that were kept, oldest first: ``….calibration.former-7.json`` and so on."""
    prefix = f"{path.name.removesuffix('.json')}.former-"
    numbered = [
        (int(number), p)
        for p in path.parent.glob("*.json")
        if p.name.startswith(prefix) and (number := p.name.removeprefix(prefix).removesuffix(".json")).isdecimal()
    ]
    return [p for _, p in sorted(numbered)]


def _keep_former(path: Path) -> Path | None:
    """Another name for the file that is about to be replaced; it keeps its own until then."""
    if not path.exists():
        return None
    kept = former_files(path)
    if kept and kept[-1].samefile(path):
        return kept[-1]  # a process was killed between this and the replacing
    stem = path.name.removesuffix(".json")
    number = 1 + int(kept[-1].name.removeprefix(f"{stem}.former-").removesuffix(".json")) if kept else 1
    former = path.with_name(f"{stem}.former-{number}.json")
    try:
        former.hardlink_to(path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _copy(path, former)
    return former


def _copy(path: Path, to: Path) -> None:
    """Into a file that is new; no link is followed: the folder may be another user's, and this one root."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        content = source.read()
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), _MODE)
        os.fsync(file.fileno())


def _forget_old(path: Path) -> None:
    for old in former_files(path)[:-FORMER_KEPT]:
        old.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
