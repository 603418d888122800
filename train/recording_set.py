"""The recordings that a reproduction trains on and judges on: the development set, or the evaluation set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .corpus import Clip, CorpusError, read_clips


@dataclass(frozen=True)
class RecordingSet:
    """Recordings in the DCASE layout, development or evaluation."""

    name: str
    """``development`` or ``evaluation``."""
    data: Path
    """Folder that holds the machine's."""
    machine: str
    """Folder within it."""
    ids: tuple[str, ...]
    """Machine ids that are trained on and judged."""
    train: list[Clip]
    """Normal clips."""
    test: list[Clip]
    """Labelled clips."""

    @classmethod
    def read(
        cls,
        name: str,
        data: Path,
        machine: str,
        *,
        ids: Sequence[str] | None = None,
        labels: dict[str, bool] | None = None,
        recording_digits: int = 0,
    ) -> RecordingSet:
        """The clips of both folders.

        Args:
            name: ``development`` or ``evaluation``.
            data: folder that holds the machine's.
            machine: folder within it, with ``train`` and ``test``.
            ids: to take; all unless given.
            labels: of test clips whose names carry none.
            recording_digits: see `edge_asd_train.corpus.read_clips`.

        Raises:
            CorpusError: folders that are missing, clips without a label, ids that are not there.
        """
        train = read_clips(data, machine, "train", recording_digits=recording_digits)
        test = read_clips(data, machine, "test", recording_digits=recording_digits, labels=labels)
        there = sorted({c.machine_id for c in train})
        if strange := sorted(set(ids or ()) - set(there)):
            raise CorpusError(f"{data / machine / 'train'}: no clips of {', '.join(strange)}; of {', '.join(there)}")
        chosen = tuple(i for i in there if not ids or i in ids)
        train, test = ([c for c in clips if c.machine_id in chosen] for clips in (train, test))
        if not test:
            raise CorpusError(f"{data / machine / 'test'}: no test clips of {', '.join(chosen)}")
        return cls(name, data, machine, chosen, train, test)
