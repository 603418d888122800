"""What the data set of DCASE 2020 Task 2 consists of, and where on Zenodo.

https://dcase.community/challenge2020/task-unsupervised-detection-of-anomalous-sounds
"""

from __future__ import annotations

from dataclasses import dataclass

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
