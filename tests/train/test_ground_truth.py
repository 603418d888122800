"""Labels of an evaluation set, as the organisers publish them and as other years did."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_asd_train.corpus import CorpusError, read_clips
from edge_asd_train.ground_truth import GroundTruthError, read_ground_truth

PUBLISHED = """\ufefffan
id_01_00000000.wav,normal_id_01_00000000.wav,0
id_01_00000001.wav,anomaly_id_01_00000001.wav,1

slider
id_01_00000000.wav,anomaly_id_01_00000000.wav,1
id_03_00000000.wav,normal_id_03_00000000.wav,0
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_published_file(tmp_path: Path, end: str) -> None:
    path = tmp_path / "eval_data_list.csv"
    path.write_text(PUBLISHED.replace("\n", end), encoding="utf-8", newline="")
    assert read_ground_truth(path, "slider") == {"id_01_00000000": True, "id_03_00000000": False}
    assert read_ground_truth(path, "fan") == {"id_01_00000000": False, "id_01_00000001": True}
    with pytest.raises(GroundTruthError, match=r"eval_data_list\.csv: holds no labels of valve; of fan, slider"):
        read_ground_truth(path, "valve")


def test_a_folder_with_a_file_for_each_machine_and_id(tmp_path: Path) -> None:
    (tmp_path / "ground_truth_slider_id_01.csv").write_text("id_01_00000000.wav,0\nid_01_00000001.wav,1\n")
    (tmp_path / "ground_truth_slider_id_03.csv").write_text("id_03_00000000.wav,anomaly_id_03_00000000.wav\n")
    (tmp_path / "ground_truth_fan_id_01.csv").write_text("id_01_00000000.wav,1\n")
    assert read_ground_truth(tmp_path, "slider") == {
        "id_01_00000000": False,
        "id_01_00000001": True,
        "id_03_00000000": True,
    }
    assert read_ground_truth(tmp_path / "ground_truth_fan_id_01.csv", "fan") == {"id_01_00000000": True}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("slider\nid_01_00000000.wav,2\n", r"truth\.csv:2: '2' is neither 0 \(normal\) nor 1"),
        ("slider\n\nx.wav,1\n", r"truth\.csv:3: 'x\.wav' is not named like id_01_00000000\.wav"),
        ("slider\na/id_01_00000000.wav,1\n", r"truth\.csv:2: 'a/id_01_00000000\.wav' is not named"),
        ("id_01_00000000.wav,1\nid_01_00000000.wav,0\n", r"truth\.csv:2: id_01_00000000 of slider is normal and"),
        ("id_01_00000000.wav,normal_id_01_00000000.wav,1\n", r"truth\.csv:1: '.*' contradicts itself"),
        ("id_01_00000000.wav,normal_id_01_00000009.wav,0\n", r"truth\.csv:1: 'normal_id_01_00000009\.wav' is neither"),
        ("id_01_00000000.wav,id_01_00000000.wav\n", r"truth\.csv:1: '.*' has no label"),
        ("", r"truth\.csv: holds no labels of slider; of no machine"),
        ("\x00\udcff", r"truth\.csv: is not a CSV file in UTF-8"),
    ],
)
def test_what_is_no_label_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "truth.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(GroundTruthError, match=complaint):
        read_ground_truth(path, "slider")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        GroundTruthError, match=r"no\.csv: no such file; eval_data_list\.csv of https://zenodo\.org/rec"
    ):
        read_ground_truth(tmp_path / "no.csv", "slider")
    with pytest.raises(GroundTruthError, match=r"holds no \.csv file"):
        read_ground_truth(tmp_path, "slider")


def test_clips_take_labels_that_their_names_lack(tmp_path: Path) -> None:
    folder = tmp_path / "slider" / "test"
    folder.mkdir(parents=True)
    for name in ("id_01_00000000.flac", "id_01_00000001.wav", "anomaly_id_01_00000002.wav"):
        (folder / name).touch()
    labels = {"id_01_00000000": True, "id_01_00000001": False}
    clips = read_clips(tmp_path, "slider", "test", labels=labels)
    assert {c.path.name: c.is_anomaly for c in clips} == {
        "id_01_00000000.flac": True,
        "id_01_00000001.wav": False,
        "anomaly_id_01_00000002.wav": True,
    }
    with pytest.raises(CorpusError, match=r"id_01_00000001\.wav: has no label, neither in its name nor in the ground"):
        read_clips(tmp_path, "slider", "test", labels={"id_01_00000000": True})
    with pytest.raises(CorpusError, match=r"id_01_00000000\.flac: is not named like normal_id_00"):
        read_clips(tmp_path, "slider", "test")
    # Training clips must be normal by their own names.
    (folder / "anomaly_id_01_00000002.wav").unlink()
    folder.rename(folder.with_name("train"))
    with pytest.raises(CorpusError, match="is not named like"):
        read_clips(tmp_path, "slider", "train", labels=labels)
