"""What is remembered of a machine over a restart: the alarm's state, the number of the last alert, and that alert.

The alarm's clock counts samples and begins anew with the process. So what it showed is kept beside the moment when: by
the clock that counts from boot, which never steps, and by the wall clock, for when the computer was restarted too.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from edge_asd.calibration import Calibration
from edge_asd.clock import boot_time
from edge_asd.pipeline import Pipeline
from edge_asd.publish.payloads import MachineState, iso

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def key(machine: str) -> str:
    """Under which the outbox remembers it."""
    return f"alarm/{machine}"


def essence(state: MachineState) -> dict[str, Any]:
    """What makes it worth saving: it stays the same while nothing changes that matters."""
    return {
        "alarm": state.pipeline.alarm.snapshot(),
        "scale": _scale(state.pipeline),
        "sequence": state.sequence,
        "last_alert": state.last_alert,
        "overtaken": list(state.overtaken),
    }


def remember(state: MachineState, heard: int) -> dict[str, Any]:
    """All that `restore` needs, as plain JSON.

    Args:
        state: of the machine, after a reading.
        heard: the sample that the reading ends at.
    """
    moment = state.time_of(heard)
    clock = {
        "seconds": heard / state.pipeline.sample_rate,
        "boot_id": _boot_id(),
        "boot_seconds": moment,
        "utc_seconds": time.time() - (boot_time() - moment),
    }
    return {**essence(state), "since": iso(state.since), "clock": clock}


def reconcile(found: Any, made: dict[str, Any]) -> Any:
    """What is to be remembered where a process did not know what was remembered before: the disk was away.

    As long as nothing was told since, it counts what was found. Else its own alarm goes on, its numbers go on from the
    higher one, and the incidents that were open before are overtaken: nobody has heard yet that they are over.

    Args:
        found: on disk; it may be damaged, and counts for nothing then.
        made: by `remember`.
    """
    if made["last_alert"] is None and made["alarm"]["incident"] is None:
        return found
    try:
        sequence, incident = int(found["sequence"]), found["alarm"]["incident"]
        before = [str(uuid.UUID(i)) for i in (*found.get("overtaken", []), incident) if i is not None]
    except (AttributeError, KeyError, TypeError, ValueError):
        return made
    known = (made["alarm"]["incident"], *made["overtaken"])
    overtaken = [*made["overtaken"], *(incident for incident in before if incident not in known)]
    return {**made, "sequence": max(sequence, made["sequence"]), "overtaken": overtaken}


def restore(state: MachineState, remembered: Any) -> None:
    """Go on where another process ended. Votes that other detectors cast, or another threshold, do not count any more.

    Raises:
        ValueError: that is nothing that `remember` gave; nothing was changed.
    """
    try:
        sequence, last_alert = int(remembered["sequence"]), remembered["last_alert"]
        since, former_clock = datetime.fromisoformat(remembered["since"]), _former_clock(state, remembered["clock"])
        if not (last_alert is None or isinstance(last_alert, dict)):
            raise TypeError(last_alert)
        alarm, overtaken = remembered["alarm"], [str(uuid.UUID(i)) for i in remembered.get("overtaken", [])]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no state of a machine: {error!r}") from None
    state.pipeline.alarm.restore(alarm, former_clock)
    if remembered.get("scale") != _scale(state.pipeline):
        state.pipeline.alarm.forget()
    state.sequence, state.last_alert, state.overtaken = sequence, last_alert, overtaken
    state.incident = state.pipeline.alarm.incident
    if state.incident is not None:
        state.condition, state.since = state.pipeline.condition, since


def _scale(pipeline: Pipeline) -> dict[str, Any]:
    """By what votes are cast: those of pipelines that agree in it count together."""
    detectors = [[d.detector.sha256, d.machine_id, _sha256(d.calibration)] for d in pipeline.detectors]
    return {"threshold": pipeline.rule.threshold, "detectors": detectors}


@lru_cache(maxsize=256)  # asked after every window; a calibration may hold a million scores
def _sha256(calibration: Calibration) -> str:
    return hashlib.sha256(calibration.model_dump_json().encode()).hexdigest()


def _former_clock(state: MachineState, clock: dict[str, Any]) -> Callable[[float], float]:
    seconds, boot_id = float(clock["seconds"]), clock["boot_id"]
    boot_seconds, utc_seconds = float(clock["boot_seconds"]), float(clock["utc_seconds"])

    def former(now: float) -> float:
        moment = state.time_of(round(now * state.pipeline.sample_rate))
        if boot_id is not None and boot_id == _boot_id():
            passed = moment - boot_seconds
        else:
            # A wall clock that went back says nothing; then it counts as if no time had passed.
            passed = time.time() - (boot_time() - moment) - utc_seconds
        return seconds + max(passed, 0.0)

    return former


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None
