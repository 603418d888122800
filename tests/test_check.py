"""``edge-asd check``: figures that add up, verdicts, exit statuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from test_overload import slow

from edge_asd.check_time import more_that_fit, ratio_of
from edge_asd.cli import main
from edge_asd.cores import allowed_cores
from edge_asd.cost import MachineCost
from edge_asd.errors import EXIT_CONFIGURATION, EXIT_DONE
from edge_asd.instances import Instance


@pytest.fixture
def hall(tmp_path: Path, tiny: Callable[..., bytes], write_recording: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a configuration of machines with one detector."""

    def write(name: str, detector: bytes, *hops: float, more: str = "") -> Path:
        (tmp_path / f"{name}.onnx").write_bytes(detector)
        write_recording("r/a.wav", [0.0] * 16_000)
        lines = ["site: plant", "node: hall", more, "machines:"]
        for number, hop in enumerate(hops):
            lines.append(
                f"  - {{name: {name}-{number}, recordings: r, detectors: [{name}.onnx], hop_seconds: {hop}, "
                "alarm: {threshold: 3}}"
            )
        path = tmp_path / f"{name}.yaml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> list[Instance]:
    """No daemon counts but those put in this list: others may run on this computer, tests' among them."""
    listed: list[Instance] = []
    monkeypatch.setattr("edge_asd.check.running_instances", lambda: listed)
    return listed


def check(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, list[dict[str, Any]]]:
    status = main(["check", "--json", *(a for path in paths for a in ("-c", str(path)))])
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] == (status == EXIT_DONE)
    return status, document["findings"]


def about(findings: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [f for f in findings if f["check"] == name]


def test_what_fits(hall: Callable[..., Path], tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str]) -> None:
    path = hall("small", tiny(), 10, 5)
    status, findings = check(capsys, path)
    assert status == EXIT_DONE
    assert len(about(findings, "detector")) == 1, "a shared detector is measured once"
    ten, five = (f["figures"] for f in about(findings, "machine"))
    assert five["scoring_seconds"] == pytest.approx(2 * ten["scoring_seconds"])
    assert five["hearing_seconds"] == ten["hearing_seconds"] > 0
    verdict = about(findings, "time")[0]["figures"]
    total = sum(m["scoring_seconds"] + m["hearing_seconds"] for m in (ten, five))
    assert verdict["seconds_of_work"] == pytest.approx(total)
    assert verdict["ratio"] == pytest.approx(total / 10 / allowed_cores(), rel=1e-6)
    assert verdict["more_machines"] > 3


def test_what_does_not_fit(
    hall: Callable[..., Path], tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    small, big = hall("small", tiny(), 10), hall("big", slow(tiny, 100), *[1] * 40, more="scoring: {cores: 1}")
    status = main(["check", "-c", str(small), "-c", str(big)])
    lines = capsys.readouterr().out.splitlines()
    assert status == EXIT_CONFIGURATION
    assert any(line.startswith("ok") and "small.yaml: " in line and "fits" in line for line in lines)
    assert any(line.startswith("failed") and "big.yaml: " in line and "cores of 1" in line for line in lines)
    assert any("and 20 more, see their sum" in line for line in lines)
    assert "daemons of this computer together" in lines[-1]


def test_a_wrong_configuration_is_named_and_the_other_is_measured(
    hall: Callable[..., Path],
    tiny: Callable[..., bytes],
    capsys: pytest.CaptureFixture[str],
    schema: Callable[[str], Draft202012Validator],
) -> None:
    good, bad = hall("good", tiny(), 10), hall("bad", b"nonsense", 10)
    status = main(["check", "--json", "-c", str(good), "-c", str(bad)])
    document = json.loads(capsys.readouterr().out)
    schema("check").validate(document)
    assert status == EXIT_CONFIGURATION and document["passed"] is False
    (failed,) = [f for f in document["findings"] if f["state"] == "failed"]
    assert "bad.yaml:5:" in failed["text"] and "is not an ONNX model" in failed["text"]
    assert about(document["findings"], "detector")


def test_daemons_that_run_are_counted_or_named(
    hall: Callable[..., Path], tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str], alone: list[Instance]
) -> None:
    detector = tiny()
    asked, runs, broken = (hall(name, detector, 10) for name in ("asked", "runs", "broken"))
    broken.with_suffix(".onnx").unlink()
    alone += [
        Instance(1001, asked, None),
        Instance(1002, runs, None),
        Instance(1003, broken, None),
        Instance(1004, None, None, "its command line names no configuration"),
    ]
    status, findings = check(capsys, asked)
    assert status == EXIT_DONE
    texts = [f["text"] for f in about(findings, "daemons")]
    assert texts[0] == f"the daemon that runs as pid 1002 ({runs}) is counted"
    assert "1003" in texts[1] and "is not counted" in texts[1] and "broken.onnx" in texts[1]
    assert texts[2].endswith("pid 1004 is not counted: its command line names no configuration")
    own, _, together = (f["figures"] for f in about(findings, "time"))
    assert together["seconds_of_work"] == pytest.approx(2 * own["seconds_of_work"])  # the same work, measured once
    assert "pid 1003" in about(findings, "time")[2]["text"]


def test_links_that_go_round_in_a_circle(
    hall: Callable[..., Path], tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str], alone: list[Instance]
) -> None:
    """Of the file itself, and of a daemon's that runs meanwhile."""
    good, circle = hall("good", tiny(), 10), hall("circle", tiny(), 10)
    circle.unlink()
    circle.symlink_to(circle.name)
    alone.append(Instance(1001, circle, None))
    status, findings = check(capsys, good)
    assert status == EXIT_DONE
    assert "Too many levels of symbolic links" in about(findings, "daemons")[0]["text"]
    status, findings = check(capsys, circle)
    assert status == EXIT_CONFIGURATION
    assert f"{circle}: Too many levels of symbolic links" in about(findings, "configuration")[0]["text"]


def test_a_daemon_that_publishes_under_the_same_topics_is_told(
    hall: Callable[..., Path], tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str], alone: list[Instance]
) -> None:
    broker = "mqtt: {host: 127.0.0.1, port: 9}"
    one = hall("one", tiny(), 10, more=broker)
    (one.parent / "yard").mkdir()
    copy = one.rename(one.parent / "yard/one.yaml")
    alone += [Instance(1001, hall("one", tiny(), 10, more=broker), None)]
    copy.write_text(copy.read_text().replace("recordings: r", "recordings: ../r").replace("[one", "[../one"))
    _, findings = check(capsys, copy)
    machine, instance = (f["text"] for f in about(findings, "name"))
    assert f"{one} has the same site, node and one-0: both would publish under" in machine
    assert "is one to the broker as well" in instance


def test_too_many_cores(
    hall: Callable[..., Path], tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path = hall("many", tiny(), 10, more="scoring: {cores: 1024}")
    status, findings = check(capsys, path)
    assert status == EXIT_CONFIGURATION
    assert (
        f"many.yaml:3:11: scoring.cores: 1024 cores, but this process may run on {allowed_cores()}"
        in findings[0]["text"]
    )


def test_a_machine_is_scored_by_one_core_at_a_time() -> None:
    assert ratio_of([MachineCost(1.2, 0.0)], 4) == 1.2
    assert ratio_of([MachineCost(0.4, 0.1)] * 4, 4) == pytest.approx(0.5)


def test_how_many_more_fit() -> None:
    costs = [MachineCost(0.09, 0.01)] * 2
    assert more_that_fit(costs, 1, costs) == 6
    assert more_that_fit([MachineCost(0.9, 0.0)], 1, costs) == 0
