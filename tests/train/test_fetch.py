"""edge-asd-train fetch, against a server on this machine that holds small archives of the data set's form."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from edge_asd_train.cli import main
from edge_asd_train.corpus import read_clips
from edge_asd_train.dcase2020 import ARCHIVES, GROUND_TRUTH_RECORD
from edge_asd_train.download import FetchError, Patience
from edge_asd_train.fetch import fetch
from edge_asd_train.ground_truth import read_ground_truth
from edge_asd_train.zenodo import read_record
from parts.waiting import until
from parts.zenodo import Fault, Zenodo, zipped

QUICK = Patience(attempts=3, first_wait_seconds=0.01, timeout_seconds=2)
DEVELOPMENT = {
    "train/normal_id_00_00000000.wav",
    "train/normal_id_00_00000001.wav",
    "test/normal_id_00_00000000.wav",
    "test/anomaly_id_00_00000000.wav",
}
EVALUATION_TRAIN = {"train/normal_id_01_00000000.wav"}
EVALUATION_TEST = {"test/id_01_00000000.wav", "test/id_01_00000001.wav"}
TRUTH = (
    "fan\r\nid_01_00000000.wav,normal_id_01_00000000.wav,0\r\n"
    "slider\r\nid_01_00000000.wav,anomaly_id_01_00000000.wav,1\r\nid_01_00000001.wav,normal_id_01_00000001.wav,0\r\n"
)


def archive(clips: set[str]) -> bytes:
    return zipped({f"slider/{clip}": os.urandom(50_000) for clip in sorted(clips)})


@pytest.fixture
def zenodo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zenodo]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Zenodo() as server:
        for kind, clips in zip(ARCHIVES, (DEVELOPMENT, EVALUATION_TRAIN, EVALUATION_TEST), strict=True):
            server.add_record(
                kind.record, {kind.name.format(machine="slider"): archive(clips)}, title=f"DCASE 2020 {kind.subset}"
            )
        server.add_record(GROUND_TRUTH_RECORD, {"eval_data_list.csv": TRUTH.encode()}, "cc-by-4.0")
        yield server


def arguments(zenodo: Zenodo, out: Path, *more: str) -> list[str]:
    return ["fetch", "dcase2020", "--machine", "slider", "--out", str(out), "--base-url", zenodo.url, *more]


def found(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


ALL = (
    {f"development/slider/{clip}" for clip in DEVELOPMENT}
    | {f"evaluation/slider/{clip}" for clip in EVALUATION_TRAIN | EVALUATION_TEST}
    | {"evaluation/eval_data_list.csv"}
)


def test_fetch_end_to_end(zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    assert main(arguments(zenodo, out)) == 0
    assert found(out) == ALL and not (out / "archives").exists()
    said = capsys.readouterr().out
    assert (
        f"DCASE 2020 development\n  {zenodo.url}/records/3678171\n  Licence: cc-by-nc-sa-4.0. Not for commercial"
        in said
    )
    assert f"{out}/development/slider: 2 train, 2 test clips" in said
    assert "eval_data_list.csv: 1 of the 2 test clips of slider are anomalous" in said

    # What training and evaluation make of it.
    assert len(read_clips(out / "development", "slider", "train")) == 2
    labels = read_ground_truth(out / "evaluation" / "eval_data_list.csv", "slider")
    clips = read_clips(out / "evaluation", "slider", "test", labels=labels)
    assert [(c.path.name, c.is_anomaly) for c in clips] == [("id_01_00000000.wav", True), ("id_01_00000001.wav", False)]

    # Nothing is asked for again.
    zenodo.asked.clear()
    assert main(arguments(zenodo, out)) == 0
    assert zenodo.asked == []


def test_licence_comes_before_the_first_byte(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zenodo.faults.extend(Fault(status=404) for _ in range(9))
    assert main(arguments(zenodo, tmp_path / "data")) == 1
    said = capsys.readouterr()
    assert said.out.count("Licence:") == 4
    error = said.err.splitlines()[-1]
    assert error.startswith(f"edge-asd-train: {zenodo.url}/api/records/3951620/files/eval_data_list.csv/content: the")


def test_one_set_and_its_archives(zenodo: Zenodo, tmp_path: Path) -> None:
    assert main(arguments(zenodo, tmp_path, "--only", "development", "--keep-archives")) == 0
    assert found(tmp_path) == {f"development/slider/{c}" for c in DEVELOPMENT} | {"archives/dev_data_slider.zip"}
    # An archive that was brought by hand, or kept, is not downloaded; a split that was deleted comes back from it.
    for clip in (tmp_path / "development" / "slider" / "test").iterdir():
        clip.unlink()
    zenodo.asked.clear()
    assert main(arguments(zenodo, tmp_path, "--only", "development")) == 0
    assert found(tmp_path) == {f"development/slider/{c}" for c in DEVELOPMENT}
    assert zenodo.downloads() == []


def test_ctrl_c_keeps_the_part_and_says_so(zenodo: Zenodo, tmp_path: Path) -> None:
    hang = threading.Event()
    zenodo.faults.append(Fault(break_off_after=100_000, hang=hang))
    command = [sys.executable, "-m", "edge_asd_train.cli", *arguments(zenodo, tmp_path, "--only", "development")]
    # Where make runs in the background of a shell, Ctrl-C is ignored, and children inherit that.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
    part = tmp_path / "archives" / "dev_data_slider.zip.part"
    until(lambda: part.exists() and part.stat().st_size == 100_000, "the part")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    hang.set()
    assert process.returncode == 130 and "Traceback" not in error
    assert error.splitlines()[-1].startswith("edge-asd-train: interrupted; what was downloaded is kept in")
    assert main(arguments(zenodo, tmp_path, "--only", "development")) == 0
    assert zenodo.downloads() == [("dev_data_slider.zip", None), ("dev_data_slider.zip", "bytes=100000-")]
    assert found(tmp_path) == {f"development/slider/{clip}" for clip in DEVELOPMENT}


def test_no_torch_is_needed(zenodo: Zenodo, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxscript=None)\n"
        "from edge_asd_train.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *arguments(zenodo, tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert found(tmp_path) == ALL


def test_a_folder_that_is_in_use_or_no_folder(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert main(arguments(zenodo, tmp_path)) == 2
    assert "another edge-asd-train fetch is filling it" in capsys.readouterr().err
    os.close(holder)
    (tmp_path / "file").touch()
    for out, complaint in ((tmp_path / "file", "is a file"), (Path("/proc/data"), "choose another folder")):
        assert main(arguments(zenodo, out)) == 2
        assert complaint in capsys.readouterr().err
    assert zenodo.asked == []


def test_a_disk_too_small_is_said_before_the_download(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.records[3678171]["files"][0]["size"] = 10**18
    with pytest.raises(FetchError, match=r"all of it needs about 2500000000\.\d GB, and [\d.]+ GB are free"):
        fetch(tmp_path, ["slider"], base_url=zenodo.url, patience=QUICK)
    assert zenodo.downloads() == []


def test_labels_that_do_not_fit_the_clips(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.add_record(GROUND_TRUTH_RECORD, {"eval_data_list.csv": b"slider\nid_01_00000000.wav,1\n"})
    with pytest.raises(FetchError, match=r"has no label for .*evaluation/slider/test: 1, id_01_00000001 for one"):
        fetch(tmp_path, ["slider"], base_url=zenodo.url, patience=QUICK)


def test_records_in_the_forms_of_other_years(zenodo: Zenodo) -> None:
    md5 = hashlib.md5(b"x").hexdigest()
    old = [{"filename": "a b.zip", "filesize": 1, "checksum": md5, "links": {"download": "https://z/old"}}]
    zenodo.records[1] = {"metadata": {"title": "T", "license": "other"}, "files": old}
    new = {"entries": {"a b.zip": {"size": 1, "checksum": f"md5:{md5.upper()}"}}}
    zenodo.records[2] = {"metadata": {"title": "T", "rights": [{"id": "cc-by-nc-4.0"}]}, "files": new}
    described = "<p>Creative Commons Attribution-NonCommercial-ShareAlike 4.0</p>"
    zenodo.records[3] = {"metadata": {"title": "T", "description": described}, "files": []}
    first, second, third = (read_record(n, zenodo.url + "/", QUICK) for n in (1, 2, 3))
    assert (first.licence, second.licence, third.licence) == ("other", "cc-by-nc-4.0", "none stated")
    assert (first.non_commercial, second.non_commercial, third.non_commercial) == (False, True, True)
    assert first.file("a b.zip").url == "https://z/old" and first.file("a b.zip").digest == md5
    assert second.file("a b.zip").url == f"{zenodo.url}/records/2/files/a%20b.zip?download=1"
    assert second.file("a b.zip").digest == md5
    with pytest.raises(FetchError, match=r"records/2: holds no b\.zip; it holds a b\.zip"):
        second.file("b.zip")


@pytest.mark.parametrize(
    "document",
    [[], {}, {"metadata": {"title": "T"}, "files": [{"key": "a", "size": 1}]}, {"files": 3, "metadata": None}],
)
def test_what_is_no_record(zenodo: Zenodo, document: object) -> None:
    zenodo.records[1] = document  # type: ignore[assignment]
    with pytest.raises(FetchError, match=r"/api/records/1: is no record as Zenodo's API gives it"):
        read_record(1, zenodo.url, QUICK)
