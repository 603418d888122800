"""A site's own calibration: bound to its detector and machine, written whole or not at all, never used silently."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from edge_asd.calibration import Calibration
from edge_asd.detector import Detector
from edge_asd.errors import ConfigurationError, EdgeAsdError
from edge_asd.site_calibration import (
    FORMER_KEPT,
    SiteCalibration,
    calibration_in_use,
    former_files,
    read_site_calibration,
    site_calibration_path,
    write_site_calibration,
)

SHA = "ab" * 32


def document(sha256: str = SHA, machine: str = "rail", machine_id: str = "id_00", seed: int = 0) -> SiteCalibration:
    scores = np.random.default_rng(seed).normal(size=20).tolist()
    made = Calibration.from_scores(scores, level_dbfs=-30.0, source="drawn by a test", stretches=[5, 15], sound="cafe")
    return SiteCalibration(sha256=sha256, machine=machine, id=machine_id, calibration=made)


@pytest.fixture
def detector(tiny: Callable[..., bytes], tmp_path: Path) -> Detector:
    path = tmp_path / "rail.cae.onnx"
    path.write_bytes(tiny())
    return Detector(path, path.read_bytes())


def in_use(detector: Detector, state: Path | None = None) -> tuple[float, Path | None, tuple[str, ...]]:
    found = calibration_in_use(detector, detector.path, "rail", "id_00", state)
    return found.calibration.scores[0], found.path, found.ignored


def test_what_is_written_is_read_and_fits_its_schema(
    tmp_path: Path, schema: Callable[[str], Draft202012Validator]
) -> None:
    path = site_calibration_path(tmp_path / "new" / "rail.cae.onnx", "rail", None)
    assert path == tmp_path / "new" / "rail.cae.rail.calibration.json"
    assert write_site_calibration(path, document()) is None
    assert read_site_calibration(path) == document().model_copy(
        update={"calibration": read_site_calibration(path).calibration}
    )
    assert read_site_calibration(path).calibration.scores == document().calibration.scores
    schema("calibration").validate(json.loads(path.read_text()))
    assert path.stat().st_mode & 0o777 == 0o644 and [p.name for p in path.parent.iterdir()] == [path.name]


def test_machines_that_share_a_detector_have_files_of_their_own(tmp_path: Path) -> None:
    names = {site_calibration_path(tmp_path / "x.onnx", m, tmp_path / "state") for m in ("rail", "fan")}
    assert {n.name for n in names} == {"x.rail.calibration.json", "x.fan.calibration.json"}
    assert {n.parent for n in names} == {tmp_path / "state"}


def test_former_files_are_kept_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "x.rail.calibration.json"
    formers = [write_site_calibration(path, document(seed=n)) for n in range(12)]
    assert formers[0] is None and formers[3] is not None and formers[3].name == "x.rail.calibration.former-3.json"
    kept = former_files(path)
    assert [p.name for p in kept] == [f"x.rail.calibration.former-{n}.json" for n in range(7, 12)]
    assert len(kept) == FORMER_KEPT
    assert read_site_calibration(kept[-1]).calibration.scores == document(seed=10).calibration.scores
    assert read_site_calibration(path).calibration.scores == document(seed=11).calibration.scores


def no_hard_links(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_the_former_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("os.link", no_hard_links(number))  # as a stick with vfat, which root alone can mount
    path = tmp_path / "x.rail.calibration.json"
    write_site_calibration(path, document(seed=1))
    former = write_site_calibration(path, document(seed=2))
    assert former is not None and former.stat().st_mode & 0o777 == 0o644
    assert read_site_calibration(former).calibration.scores == document(seed=1).calibration.scores
    assert read_site_calibration(path).calibration.scores == document(seed=2).calibration.scores


@pytest.mark.parametrize("has_links", [True, False])
def test_whoever_owns_the_folder_cannot_have_another_file_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """A link, put where the former file is about to go, just after it was looked for."""
    victim, path = tmp_path / "victim", tmp_path / "x.rail.calibration.json"
    victim.write_text("root's own")
    write_site_calibration(path, document(seed=1))

    def looked_for(at: Path) -> list[Path]:
        found = former_files(at)
        with contextlib.suppress(FileExistsError):
            (tmp_path / "x.rail.calibration.former-1.json").symlink_to(victim)
        return found

    monkeypatch.setattr("edge_asd.site_calibration.former_files", looked_for)
    if not has_links:
        monkeypatch.setattr("os.link", no_hard_links(errno.EPERM))
    with pytest.raises(EdgeAsdError, match="exists"):
        write_site_calibration(path, document(seed=2))
    assert victim.read_text() == "root's own"
    assert read_site_calibration(path).calibration.scores == document(seed=1).calibration.scores


def test_no_other_file_is_copied_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what only root can read shown to whoever put a link to it there."""
    secret, path = tmp_path / "secret", tmp_path / "x.rail.calibration.json"
    secret.write_text("root's own")
    path.symlink_to(secret)
    monkeypatch.setattr("os.link", no_hard_links(errno.EPERM))
    with pytest.raises(EdgeAsdError, match="symbolic links"):
        write_site_calibration(path, document(seed=1))
    assert {p.name for p in tmp_path.iterdir()} == {"secret", path.name}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeAsdError, match=r"file"):
        write_site_calibration(tmp_path / "file" / "x.rail.calibration.json", document())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("at", ["part.replace(path)", "former = _keep_former(path)"])
def test_killed_between_writing_and_renaming(tmp_path: Path, at: str) -> None:
    """kill -9 just before a statement of the writing: the former file still counts, and the next write cleans up."""
    path = tmp_path / "x.rail.calibration.json"
    write_site_calibration(path, document(seed=1))
    new = tmp_path / "new.json"
    new.write_text(document(seed=2).model_dump_json(by_alias=True))
    program = (
        "import inspect, os, signal, sys\n"
        "from pathlib import Path\n"
        "from edge_asd import site_calibration as s\n"
        "lines, first = inspect.getsourcelines(s.write_site_calibration)\n"
        f"line = first + next(n for n, text in enumerate(lines) if text.strip() == {at!r})\n"
        "def trace(frame, event, _):\n"
        "    if event == 'line' and frame.f_lineno == line:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return trace\n"
        "document = s.read_site_calibration(Path(sys.argv[2]))\n"
        "sys.settrace(lambda f, *_: trace if f.f_code.co_name == 'write_site_calibration' else None)\n"
        "s.write_site_calibration(Path(sys.argv[1]), document)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path), str(new)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_site_calibration(path).calibration.scores == document(seed=1).calibration.scores
    assert len(list(tmp_path.glob(".*.part"))) == 1
    write_site_calibration(path, document(seed=3))
    assert not list(tmp_path.glob(".*.part"))
    assert [read_site_calibration(p).calibration.scores for p in former_files(path)] == [
        document(seed=1).calibration.scores
    ], "kept once, not twice"


def test_the_sites_own_counts_in_place_of_the_detectors(detector: Detector, tmp_path: Path) -> None:
    own = detector.metadata.calibration["id_00"].scores[0]
    assert in_use(detector) == (own, None, ())
    beside = site_calibration_path(detector.path, "rail", None)
    write_site_calibration(beside, document(detector.sha256, seed=1))
    assert in_use(detector) == (document(seed=1).calibration.scores[0], beside, ())
    assert in_use(detector, tmp_path / "nowhere")[1] == beside
    state = site_calibration_path(detector.path, "rail", tmp_path / "state")
    write_site_calibration(state, document(detector.sha256, seed=2))
    score, path, ignored = in_use(detector, tmp_path / "state")
    assert (score, path) == (document(seed=2).calibration.scores[0], state)
    assert ignored == (f"{beside}: {state} comes first",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": SHA}, "is for another detector file"),
        ({"machine": "fan"}, "is for machine fan, not rail"),
        ({"id": "id_02"}, "is for id id_02, not id_00"),
    ],
)
def test_bound_to_something_else_it_does_not_count(detector: Detector, change: dict[str, str], reason: str) -> None:
    path = site_calibration_path(detector.path, "rail", None)
    write_site_calibration(path, document(detector.sha256).model_copy(update=change))
    _, used, ignored = in_use(detector)
    assert used is None and len(ignored) == 1
    assert str(path) in ignored[0] and reason in ignored[0] and "run `edge-asd calibrate` again" in ignored[0]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: len(text) // 2], r":1:\d+: is damaged, no JSON"),
        (lambda text: "", ":1:1: is damaged"),
        (lambda text: "\0" * len(text), "is damaged"),
        (lambda text: "[" * 100_000, "is damaged"),
        (
            lambda text: text.replace('"schema":1', '"schema":2', 1),
            "has schema 2; this version of edge-asd reads schema 1",
        ),
        (lambda text: text.replace('"scale":', '"scale":-'), "is wrong at calibration.tail.scale"),
        (lambda text: text.replace('"stretches":[5,', '"stretches":[6,'), "is wrong at calibration: .*stretches of 21"),
        (lambda text: text.replace('"id":"id_00",', ""), "is wrong at id: Field required"),
        (lambda text: text.replace('"id":', '"surprise":1,"id":'), "is wrong at surprise"),
        (lambda text: text.replace('"level_dbfs":-30.0', '"level_dbfs":NaN'), "is wrong at|is damaged"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_place(
    detector: Detector, damage: Callable[[str], str], complaint: str
) -> None:
    path = site_calibration_path(detector.path, "rail", None)
    path.write_text(damage(document(detector.sha256).model_dump_json(by_alias=True)))
    with pytest.raises(ConfigurationError, match=complaint) as error:
        in_use(detector)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(detector: Detector) -> None:
    path = site_calibration_path(detector.path, "rail", None)
    path.symlink_to(path.with_name("gone"))
    with pytest.raises(ConfigurationError, match="No such file"):
        in_use(detector)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        in_use(detector)
    assert os.path.lexists(path)
