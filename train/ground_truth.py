"""Labels of clips whose names carry none, as in DCASE's evaluation sets.

The organisers of 2020 publish one file, ``eval_data_list.csv`` (https://zenodo.org/records/3951620): a line with the
name of a machine alone, then a line for each of its test clips, ``NAME,NAME WITH LABEL,0 or 1``. Names repeat from one
machine to the next. ``NAME,0 or 1`` and ``NAME,NAME WITH LABEL`` are read too, and so is a folder of such files, the
machine in their names, as later years have it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from edge_asd.dcase import parse_clip_name
from edge_asd.errors import EdgeAsdError

_LABELS = {"0": False, "0.0": False, "1": True, "1.0": True}


class GroundTruthError(EdgeAsdError):
    """A file of labels is missing, or says something that cannot be meant."""


def read_ground_truth(path: Path, machine: str) -> dict[str, bool]:
    """The labels of a machine's clips.

    Args:
        path: CSV file, or folder of CSV files. In a file without a machine's name in a line of its own, all clips are
            of the machine, unless it lies in a folder: then the machine must be in its name.
        machine: for example ``slider``.

    Returns:
        True for anomalous, by the name of the clip without its ending, for example ``id_01_00000000``: a recording may
        have been made a FLAC file since.

    Raises:
        GroundTruthError: a file cannot be read, a line is no label, a clip has two, or there are none of the machine.
    """
    labels: dict[str, bool] = {}
    others = set()
    for file in _files(path):
        ours = not path.is_dir() or machine.lower() in re.split(r"[^a-z0-9]+", file.stem.lower())
        section = machine if ours else None
        for number, row in _rows(file):
            if len(row) == 1:
                section = row[0]
                continue
            if section != machine:
                others.add(section)
                continue
            name, is_anomaly = _label(row, f"{file}:{number}")
            if labels.setdefault(name, is_anomaly) != is_anomaly:
                raise GroundTruthError(f"{file}:{number}: {name} of {machine} is normal and anomalous")
    if not labels:
        there = ", ".join(sorted(each for each in others if each)) or "no machine"
        raise GroundTruthError(f"{path}: holds no labels of {machine}; of {there}")
    return labels


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.csv"))
    if not files:
        raise GroundTruthError(f"{path}: holds no .csv file")
    return files


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, with their numbers."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened)
            for row in reader:
                cells = [cell.strip() for cell in row]
                while cells and not cells[-1]:
                    cells.pop()
                if cells:
                    yield reader.line_num, cells
    except FileNotFoundError:
        raise GroundTruthError(
            f"{file}: no such file; eval_data_list.csv of https://zenodo.org/records/3951620 has the labels of DCASE "
            "2020, and edge-asd-train fetch dcase2020 brings it"
        ) from None
    except OSError as error:
        raise GroundTruthError(f"{file}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise GroundTruthError(f"{file}: is not a CSV file in UTF-8 ({error})") from None


def _label(row: list[str], where: str) -> tuple[str, bool]:
    """A clip's name without its ending, and its label; a row that says it twice must not contradict itself."""
    clip = PurePath(row[0])
    name = parse_clip_name(clip)
    if name is None or clip.name != row[0]:
        raise GroundTruthError(f"{where}: {row[0]!r} is not named like id_01_00000000.wav")
    told = {name.is_anomaly}
    for cell in row[1:]:
        named = parse_clip_name(PurePath(cell))
        if cell in _LABELS:
            told.add(_LABELS[cell])
        elif named is not None and (named.machine_id, named.number) == (name.machine_id, name.number):
            told.add(named.is_anomaly)
        else:
            raise GroundTruthError(f"{where}: {cell!r} is neither 0 (normal) nor 1 (anomalous)")
    told.discard(None)
    if len(told) != 1:
        raise GroundTruthError(f"{where}: {','.join(row)!r} " + ("contradicts itself" if told else "has no label"))
    return clip.stem, bool(told.pop())
