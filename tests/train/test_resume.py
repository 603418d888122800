"""A training that was killed goes on where it was, and gives the detector that it would have given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edge_asd_train import anogan, anogan_detector, cae, work_folder
from edge_asd_train.anogan import train_anogan
from edge_asd_train.anogan_detector import residuals_of
from edge_asd_train.anogan_networks import AnoGanSettings
from edge_asd_train.cae_network import CaeSettings
from edge_asd_train.cli import main
from edge_asd_train.collapse import CollapseError
from edge_asd_train.training import TrainingSet, read_training_set
from edge_asd_train.work_folder import NetworkWork, WorkError, WorkFolder

from edge_asd.metadata import KEY

SETTINGS = CaeSettings(iterations=12, batch=4, channels=(2, 2, 2, 2))
"""With all that has random numbers or a state of its own: dropout, batch norm, a schedule."""
ANOGAN = AnoGanSettings(
    latent=4,
    generator_channels=2,
    discriminator_channels=2,
    encoder_channels=2,
    iterations=6,
    batch_crops=4,
    batch_draws=4,
    search_steps=1,
)
"""An average, z, spectral norm, three optimisers."""
KillAt = Callable[[ModuleType, str, int], None]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> KillAt:
    """The process ends at the n-th call of a module's function; 0: never. Checkpoints are written at every batch."""
    monkeypatch.setattr(work_folder, "SECONDS", 0.0)

    def kill_at(module: ModuleType, name: str, number: int) -> None:
        real = getattr(module, name)
        real, count = getattr(real, "real", real), 0

        def function(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return real(*arguments)

        function.real = real  # type: ignore[attr-defined]
        monkeypatch.setattr(module, name, function)

    return kill_at


@pytest.fixture
def training(dataset: Path) -> TrainingSet:
    return read_training_set(dataset, "slider", ids=["id_00"], folds=2)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 128, 313)).astype(np.float32)


def content(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The graph with its weights, and the metadata but for when it was made."""
    model = onnx.load(path)
    metadata = json.loads({p.key: p.value for p in model.metadata_props}[KEY])
    del metadata["made"], model.metadata_props[:]
    for calibration in metadata["calibration"].values():
        del calibration["made"]
    return model.SerializeToString(), metadata


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------------------------------------------- end to end


@pytest.mark.system  # half a minute: three trainings with their exports
def test_killed_again_and_again(
    dataset: Path, tmp_path: Path, kill_at: KillAt, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the midst of the first network and of the last; the detector is the same to the bit."""
    given = ["cae", "--data", str(dataset), "--machine", "slider", "--id", "id_00", "--folds", "2", "--allow-collapse"]
    given += ["--iterations", "12", "--batch", "4", "--channels", "2", "2", "2", "2", "--out"]
    assert main([*given, str(tmp_path / "plain.onnx")]) == 0
    assert names(tmp_path) == ["plain.onnx"], "nothing is left"

    out, folder = str(tmp_path / "killed.onnx"), tmp_path / ".killed.onnx.work"
    kill_at(cae, "random_crops", 5)
    with pytest.raises(Killed):
        main([*given, out])
    assert names(folder) == ["checkpoint-0.pt", "lock", "training.json"]
    kill_at(cae, "random_crops", 8 + 12 + 10)
    capsys.readouterr()
    with pytest.raises(Killed):
        main([*given, out])
    assert f"going on from {folder}: one begun\n" in capsys.readouterr().err
    assert names(folder) == ["checkpoint-2.pt", "lock", "network-0.pt", "network-1.pt", "training.json"]
    kill_at(cae, "random_crops", 4)
    assert main([*given, out]) == 0, "three batches were left"
    said = capsys.readouterr().err
    assert f"going on from {folder}: 2 networks finished, one begun\n" in said
    assert "36/36" in said, "the bar goes on too"
    assert content(tmp_path / "killed.onnx") == content(tmp_path / "plain.onnx")
    assert names(tmp_path) == ["killed.onnx", "plain.onnx"]


def test_interrupted_by_hand(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cae, "random_crops", interrupted)
    given = ["cae", "--data", str(dataset), "--machine", "slider", "--id", "id_00", "--folds", "2"]
    assert main([*given, "--out", str(tmp_path / "x.onnx")]) == 130
    assert "edge-asd-train: interrupted; the same command goes on where it was" in capsys.readouterr().err
    assert names(tmp_path / ".x.onnx.work") == ["lock", "training.json"]


# -------------------------------------------------------------------------------------------------------------- AnoGAN


def test_a_killed_anogan_gives_the_same_networks(images: np.ndarray, tmp_path: Path, kill_at: KillAt) -> None:
    plain = train_anogan(images, ANOGAN, progress=False)
    kept = NetworkWork(tmp_path)
    for at in (3, 3, 15):  # the last of them while batch norms are counted anew
        kill_at(anogan, "random_crops", at)
        with pytest.raises(Killed):
            train_anogan(images, ANOGAN, progress=False, work=kept)
        assert names(tmp_path) == ["checkpoint-0.pt"]
    kill_at(anogan, "random_crops", 0)
    resumed = train_anogan(images, ANOGAN, progress=False, work=kept)
    assert names(tmp_path) == ["network-0.pt"]
    kill_at(anogan, "random_crops", 1)
    found = train_anogan(images, ANOGAN, progress=False, work=kept)
    for model in (resumed, found):
        assert model.settings == plain.settings and not model.training
        for key, value in plain.state_dict().items():
            assert torch.equal(value, model.state_dict()[key]), key


def test_a_killed_search_goes_on_at_its_batch(images: np.ndarray, tmp_path: Path, kill_at: KillAt) -> None:
    networks, rows, log = train_anogan(images, ANOGAN, progress=False), np.arange(1, 40), tmp_path / "search.f32"
    plain = residuals_of(networks, images, rows=rows)
    kill_at(anogan_detector, "search", 3)
    with pytest.raises(Killed):
        residuals_of(networks, images, rows=rows, log=log)
    with log.open("ab") as file:
        file.write(b"half a record")
    kill_at(anogan_detector, "search", 2)
    resumed = residuals_of(networks, images, rows=rows, log=log)
    kill_at(anogan_detector, "search", 1)
    found = residuals_of(networks, images, rows=rows, log=log)
    for residuals, losses in (resumed, found):
        assert np.array_equal(residuals, plain[0]) and np.array_equal(losses, plain[1], equal_nan=True)

    size = log.stat().st_size // 39
    with log.open("r+b") as file:
        file.seek(20 * size + 100)
        file.write(b"\xff\xff")
    kill_at(anogan_detector, "search", 3)
    residuals, _ = residuals_of(networks, images, rows=rows, log=log)
    assert np.array_equal(residuals, plain[0]), "windows 16 and on are searched again"


def test_a_search_that_diverged_is_not_kept(images: np.ndarray, tmp_path: Path) -> None:
    networks = train_anogan(images, ANOGAN, progress=False)
    with torch.no_grad():
        networks.generator[-1].weight.fill_(torch.nan)
    for _ in range(2):
        with pytest.raises(CollapseError, match="diverged"):
            residuals_of(networks, images, log=tmp_path / "search.f32")
    assert (tmp_path / "search.f32").stat().st_size == 0


# --------------------------------------------------------------------------------------------------------- work folder


def begun(training: TrainingSet, out: Path, settings: CaeSettings = SETTINGS) -> Path:
    """A work folder in which a network is finished."""
    with WorkFolder(out, "cae", training, settings) as work:
        work.network(0).finish({"weight": torch.ones(2)})
        return work.folder


def test_another_training_begins_anew(
    training: TrainingSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.onnx"
    others: list[tuple[str, TrainingSet, CaeSettings]] = [
        ("settings", training, replace(SETTINGS, dropout=0.2)),
        ("seed", replace(training, seed=1), SETTINGS),
        ("data", replace(training, clips=training.clips[1:]), SETTINGS),
        ("split", replace(training, split=training.fine_split), SETTINGS),
    ]
    for what, other, settings in others:
        folder = begun(training, out)
        capsys.readouterr()
        with WorkFolder(out, "cae", other, settings) as work:
            assert work.network(0).finished() is None
        assert f"{folder}: is of a training with other {what}; begun anew" in capsys.readouterr().err
    folder = begun(training, out)
    with WorkFolder(out, "cae", training, SETTINGS) as work:
        assert torch.equal(work.network(0).finished()["weight"], torch.ones(2))  # type: ignore[index]
        assert work.network(1).finished() is None
        work.remove()
    assert not folder.exists()


def test_one_process_at_a_time(training: TrainingSet, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    with (
        WorkFolder(out, "cae", training, SETTINGS),
        pytest.raises(WorkError, match=r"x\.onnx: another process is training"),
    ):
        WorkFolder(out, "cae", training, SETTINGS)


def test_what_is_damaged_is_not_taken(
    training: TrainingSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.onnx"
    folder = begun(training, out)
    file = folder / "network-0.pt"
    for damaged in (b"", b"what is this", file.read_bytes()[:-200]):
        file.write_bytes(damaged)
        with WorkFolder(out, "cae", training, SETTINGS) as work:
            assert work.network(0).finished() is None
        assert f"{file}: is damaged, and not taken" in capsys.readouterr().err
    (folder / "training.json").write_bytes(b"{")
    with WorkFolder(out, "cae", training, SETTINGS):
        assert names(folder) == ["lock", "training.json"]


def test_a_file_that_would_run_code_is_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    torch.save({"weight": Harmful()}, tmp_path / "network-0.pt")
    assert NetworkWork(tmp_path).finished() is None and not (tmp_path / "harm").exists()
    assert "is damaged, and not taken" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(
    images: np.ndarray, tmp_path: Path, kill_at: KillAt, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_at(anogan, "random_crops", 0)
    gone = NetworkWork(tmp_path / "gone")
    resumed = train_anogan(images, replace(ANOGAN, iterations=2), progress=False, work=gone)
    plain = train_anogan(images, replace(ANOGAN, iterations=2), progress=False)
    assert torch.equal(resumed.generator[1].weight, plain.generator[1].weight)  # type: ignore[arg-type]
    assert "cannot be kept, the training goes on" in capsys.readouterr().err
