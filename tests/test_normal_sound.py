"""Where a machine's normal sound is, and which clips follow each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_asd.errors import RecordingError, UsageError
from edge_asd.normal_sound import clip_digest, find_normal_sound

IDS = frozenset({"id_00"})


def clips(folder: Path, numbers: list[int], machine_id: str = "id_00", label: str = "normal") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"{label}_{machine_id}_{n:08d}.flac" for n in numbers]
    for path in made:
        path.write_bytes(path.name.encode())
    return made


def line(number: int, second: float, session: str = "a", **more: Any) -> str:
    start = f"2026-01-02T03:{int(second // 60):02d}:{second % 60:06.3f}Z"
    clip = f"train/normal_id_00_{number:08d}.flac"
    return json.dumps({"schema": 1, "clip": clip, "session": session, "start": start, **more})


def found(*paths: Path, machine: str = "rail", ids: frozenset[str] = IDS) -> list[tuple[str, bool]]:
    return [(c.path.stem[-2:], c.follows) for c in find_normal_sound(paths, machine, ids)[0]]


def test_the_manifest_tells_what_is_contiguous(tmp_path: Path) -> None:
    clips(tmp_path / "rail" / "train", [0, 1, 2, 3, 10, 11, 12, 20, 21])
    (tmp_path / "rail" / "manifest.jsonl").write_text(
        "\n".join(
            [
                line(0, 0),
                line(1, 10.4),
                line(2, 19.8),
                json.dumps({"schema": 1, "refused": "gap", "session": "a", "start": "2026-01-02T03:00:30Z"}),
                line(3, 30.5),
                line(10, 40.5, "b"),
                line(11, 50.5, "b"),
                line(13, 60.5, "b"),
                line(12, 70.5, "b"),
                line(20, 90.5, "b"),
            ]
        )
        + "\n"
    )
    expected = [
        ("00", False),
        ("01", True),
        ("02", False),  # 9.4 s later: the clock jumped
        ("03", False),  # 10.7 s
        ("10", False),  # another session
        ("11", True),
        ("12", False),  # the one before it was never finished
        ("20", False),
        ("21", False),  # not in the manifest
    ]
    for path in (tmp_path, tmp_path / "rail", tmp_path / "rail" / "train"):
        assert found(path) == expected
    assert found(tmp_path, tmp_path / "rail") == expected, "given twice, taken once"


def test_without_a_manifest_every_clip_is_a_stretch(tmp_path: Path) -> None:
    made = clips(tmp_path / "some" / "where", [3, 1, 2])
    assert found(tmp_path) == [("01", False), ("02", False), ("03", False)]
    assert found(made[0], made[1]) == [("03", False), ("01", False)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"clip": "train/x', "is damaged"),
        ("[1]", "is no JSON object"),
        ('{"clip": "train/x.wav", "session": "a"}', "has no start"),
        ('{"clip": "train/x.wav", "session": "a", "start": "noon"}', "is damaged"),
        ('{"clip": "train/x.wav", "session": "a", "start": "2026-01-02T03:04:05"}', "start must be in UTC"),
        ('{"clip": 1, "session": "a", "start": "2026-01-02T03:04:05Z"}', "must be texts"),
        ("\0", "is damaged"),
    ],
)
def test_a_damaged_manifest_names_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    clips(tmp_path / "rail" / "train", [0, 1])
    (tmp_path / "rail" / "manifest.jsonl").write_text(line(0, 0) + "\n" + text + "\n" + line(1, 10) + "\n")
    with pytest.raises(UsageError, match=rf"manifest\.jsonl:2: .*{complaint}"):
        found(tmp_path)


def test_only_normal_sound_calibrates(tmp_path: Path) -> None:
    clips(tmp_path / "rail" / "test", [7], label="anomaly")
    with pytest.raises(RecordingError, match=r"anomaly_id_00_00000007.* is labelled an anomaly"):
        found(tmp_path / "rail" / "test")
    clips(tmp_path / "rail" / "train", [0])
    assert found(tmp_path) == [("00", False)], "a data set's test clips are not looked at"


def test_another_machines_folder_is_not_taken(tmp_path: Path) -> None:
    clips(tmp_path / "slider" / "train", [0])
    clips(tmp_path / "fan" / "train", [0])
    with pytest.raises(UsageError, match=r"has no folder rail; give the one that is meant: fan, slider"):
        found(tmp_path)


def test_of_several_machines_the_detectors_id_is_taken(tmp_path: Path) -> None:
    clips(tmp_path / "train", [0, 1])
    assert len(found(tmp_path, ids=frozenset({"id_04"}))) == 2, "a site's own: whatever its name says"
    clips(tmp_path / "train", [5], "id_02")
    taken, others = find_normal_sound([tmp_path], "rail", frozenset({"id_02"}))
    assert [c.path.stem for c in taken] == ["normal_id_02_00000005"] and others == 2
    for ids in ({"id_04"}, {"id_00", "id_02"}):
        with pytest.raises(UsageError, match=r"clips of several machines \(id_00, id_02\)"):
            find_normal_sound([tmp_path], "rail", frozenset(ids))


def test_nothing_there(tmp_path: Path, write_recording: Callable[..., Path]) -> None:
    with pytest.raises(RecordingError, match="does not exist"):
        found(tmp_path / "gone")
    with pytest.raises(RecordingError, match=r"holds no \.wav or \.flac"):
        found(tmp_path)
    with pytest.raises(RecordingError, match="No such file"):
        clip_digest(tmp_path / "gone.wav")
