"""What the data set of DCASE 2020 Task 2 consists of, and where on Zenodo.

https://dcase.community/challenge2020/task-unsupervised-detection-of-anomalous-sounds
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

REPORTED_IDS = ("id_00", "id_02", "id_04")
"""Machine ids of the development set at whose mean some reports stop: they leave out id_06, the hard one."""
MACHINES = ("fan", "pump", "slider", "valve", "ToyCar", "ToyConveyor")
DEVELOPMENT, EVALUATION = "development", "evaluation"
SUBSETS = (DEVELOPMENT, EVALUATION)
GROUND_TRUTH_RECORD, GROUND_TRUTH = 3951620, "eval_data_list.csv"
"""The labels of the evaluation set's test clips, whose names carry none. The organisers' evaluator,
https://github.com/y-kawagu/dcase2020_task2_evaluator, takes them from there."""


@dataclass(frozen=True)
class Archive:
    """A kind of archive, of which there is one for each machine."""

    subset: str
    record: int
    """Number on Zenodo."""
    name: str
    splits: tuple[str, ...]
    """Folders below the machine's in it."""


ARCHIVES = (
    Archive(DEVELOPMENT, 3678171, "dev_data_{machine}.zip", ("train", "test")),
    # The "additional training dataset": normal clips of the evaluation set's ids.
    Archive(EVALUATION, 3727685, "eval_data_train_{machine}.zip", ("train",)),
    Archive(EVALUATION, 3841772, "eval_data_test_{machine}.zip", ("test",)),
)


def without_id_06(ids: Iterable[str]) -> tuple[str, ...] | None:
    """The ids at whose mean some reports stop, where these are the four of the development set; else None."""
    return REPORTED_IDS if set(ids) == {*REPORTED_IDS, "id_06"} else None
