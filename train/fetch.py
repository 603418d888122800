"""Brings the data set of DCASE 2020 Task 2 from Zenodo into folders that training and evaluation read.

``OUT/development/MACHINE/{train,test}`` and ``OUT/evaluation/MACHINE/{train,test}``, and beside the latter
``OUT/evaluation/eval_data_list.csv``, the labels of its test clips, which their names do not carry.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_asd.errors import UsageError

from .dcase2020 import ARCHIVES, EVALUATION, GROUND_TRUTH, GROUND_TRUTH_RECORD, SUBSETS, Archive
from .download import FetchError, Patience, bytes_there, check_space, download
from .ground_truth import read_ground_truth
from .unpack import clips_in, unpack
from .zenodo import BASE_URL, Record, read_record

_UNPACKED = 1.5
"""Of its archive, what the clips of one take up at most."""


@dataclass(frozen=True)
class _Wanted:
    """An archive that is not unpacked yet."""

    archive: Archive
    machine: str
    target: Path

    @property
    def name(self) -> str:
        return self.archive.name.format(machine=self.machine)

    @property
    def is_there(self) -> bool:
        return all(clips_in(self.target / split) for split in self.archive.splits)


def fetch(
    out: Path,
    machines: Sequence[str],
    subsets: Sequence[str] = SUBSETS,
    *,
    base_url: str = BASE_URL,
    keep_archives: bool = False,
    patience: Patience | None = None,
) -> None:
    """Download and unpack what is not there yet; prints the licences first, then progress.

    Args:
        out: folder to fill; archives and parts of them lie in its ``archives`` until they are unpacked.
        machines: for example ``slider``; see `dcase2020.MACHINES`.
        subsets: ``development``, ``evaluation``.
        base_url: of Zenodo or a mirror of it.
        keep_archives: instead of deleting each once it is unpacked.
        patience: with the server.

    Raises:
        FetchError: something cannot be had, is damaged, or does not fit.
        UsageError: ``out`` cannot be written to.
    """
    patience = patience or Patience()
    wanted = [
        _Wanted(archive, machine, out / archive.subset / machine)
        for machine in dict.fromkeys(machines)
        for archive in ARCHIVES
        if archive.subset in subsets
    ]
    truth = out / EVALUATION / GROUND_TRUTH if EVALUATION in subsets else None
    with _alone_in(out):
        missing = [each for each in wanted if not each.is_there]
        numbers = list(dict.fromkeys(each.archive.record for each in missing))
        if truth is not None and not truth.exists():
            numbers.append(GROUND_TRUTH_RECORD)
        records = {number: read_record(number, base_url, patience) for number in numbers}
        for record in records.values():
            print(_terms(record), flush=True)
        archives = out / "archives"
        archives.mkdir(exist_ok=True)
        _check_space(archives, missing, records, keep_archives)
        if truth is not None and not truth.exists():  # the smallest first: what is wrong shows at once
            truth.parent.mkdir(exist_ok=True)
            download(records[GROUND_TRUTH_RECORD].file(GROUND_TRUTH), truth, patience)
        for each in missing:
            archive = archives / each.name
            download(records[each.archive.record].file(each.name), archive, patience)
            unpack(archive, each.machine, each.archive.splits, each.target)
            if not keep_archives:
                archive.unlink()
        if not any(archives.iterdir()):
            archives.rmdir()
        for target in dict.fromkeys(each.target for each in wanted):
            print(f"{target}: {len(clips_in(target / 'train'))} train, {len(clips_in(target / 'test'))} test clips")
            if truth is not None and target.parent == truth.parent:
                _check_ground_truth(truth, target)


def _terms(record: Record) -> str:
    if record.non_commercial:
        meaning = "Not for commercial use: to try and to compare, not to make the detectors of a factory."
    else:
        meaning = "The data set was published for non-commercial use (CC BY-NC-SA 4.0): read the page before other use."
    return f"{record.title}\n  {record.page}\n  Licence: {record.licence}. {meaning}"


def _check_space(archives: Path, missing: list[_Wanted], records: Mapping[int, Record], keep_archives: bool) -> None:
    files = [records[each.archive.record].file(each.name) for each in missing]
    if not files:
        return
    to_come = [file.size - bytes_there(archives / file.name) for file in files]
    # Each archive is deleted before the next one comes.
    needed = (sum(to_come) if keep_archives else max(to_come)) + _UNPACKED * sum(file.size for file in files)
    check_space(archives, int(needed), "all of it")


def _check_ground_truth(truth: Path, target: Path) -> None:
    labels = read_ground_truth(truth, target.name)
    clips = {clip.stem for clip in clips_in(target / "test")}
    for names, told in (
        (clips - set(labels), "has no label for"),
        (set(labels) - clips, "names clips that are not in"),
    ):
        if names:
            raise FetchError(
                f"{truth}: {told} {target / 'test'}: {len(names)}, {min(names)} for one; delete the folder and this "
                "file and fetch them again"
            )
    print(f"{truth}: {sum(labels.values())} of the {len(labels)} test clips of {target.name} are anomalous")


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """No two runs write to the same folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; choose another folder") from None
    try:
        if not os.access(out, os.W_OK):
            raise UsageError(f"--out {out}: cannot be written to; choose another folder")
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"--out {out}: another edge-asd-train fetch is filling it; wait for its end") from None
    finally:
        os.close(folder)
