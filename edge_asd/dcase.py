"""Names of clips as in DCASE 2020 Task 2: ``{normal,anomaly}_id_XX_NNNNNNNN``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

_NAME = re.compile(r"^(?:(?P<label>normal|anomaly)_)?(?P<id>id_\d{2})_(?P<number>\d+)")


@dataclass(frozen=True)
class ClipName:
    """What the name of a clip tells."""

    machine_id: str
    """For example ``id_02``."""
    is_anomaly: bool | None
    """None where the name carries no label, as in DCASE's evaluation set."""
    number: str
    """The digits as written."""


def parse_clip_name(path: PurePath) -> ClipName | None:
    """The parts of a clip's name, or None where it does not follow the pattern."""
    match = _NAME.match(path.stem)
    if match is None:
        return None
    label = match["label"]
    return ClipName(match["id"], None if label is None else label == "anomaly", match["number"])
