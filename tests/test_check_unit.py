"""What ``check`` says of files that root may read and the daemon's user may not; in a folder that is nobody's home."""

from __future__ import annotations

import dataclasses
import grp
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_asd.check_unit import check_unit
from edge_asd.config_file import load_config
from edge_asd.unit import Unit

MACHINES = "machines:\n  - {name: m, recordings: r, detectors: [m.onnx]}\n"
SECRET = "mqtt: {host: h, username: e, password_file: word, tls: {ca: ca.pem}}\n"
NAME = "edge-asd@hall"
Say = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def etc() -> Iterator[Path]:
    """Not in /tmp, which the unit does not see; readable by everybody."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def say(etc: Path) -> Say:
    """What there is to say but that all is well, of a configuration with all its files."""
    umask = os.umask(0o022)
    for name in ("m.onnx", "word", "ca.pem", "r/day/a.wav"):
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).touch()
    os.umask(umask)

    def write(more: str = "", **unit: object) -> list[tuple[str, str]]:
        (etc / "hall.yaml").write_text(f"site: plant\nnode: hall\n{more}{MACHINES}")
        known = dataclasses.replace(Unit(NAME, {}, state=etc / "state"), **unit)  # type: ignore[arg-type]
        findings = check_unit(load_config(etc / "hall.yaml"), known)
        return [(f.state, f.text) for f in findings if f.state != "ok"]

    return write


@pytest.mark.parametrize(
    ("changed", "mode", "place", "says"),
    [
        ("hall.yaml", 0o600, "", "sudo chmod a+r {0}/hall.yaml"),
        ("m.onnx", 0o640, ":5:42: machines.1.detectors.1", "sudo chmod a+r {0}/m.onnx"),
        ("ca.pem", 0o600, ":3:57: mqtt.tls.ca", "sudo chmod a+r {0}/ca.pem"),
        ("r", 0o711, ":5:15: machines.1.recordings", "sudo chmod a+rx {0}/r"),
        ("r", 0o744, ":5:15: machines.1.recordings", "sudo chmod a+rx {0}/r"),
        ("r/day", 0o700, ":5:15: machines.1.recordings", "sudo chmod a+rx {0}/r/day"),
        ("r/day/a.wav", 0o600, ":5:15: machines.1.recordings", "sudo chmod a+r {0}/r/day/a.wav"),
    ],
)
def test_what_is_not_for_everybody_to_read_is_named_with_what_to_type(
    etc: Path, say: Say, changed: str, mode: int, place: str, says: str
) -> None:
    assert say(SECRET) == []
    (etc / changed).chmod(mode)
    ((state, text),) = say(SECRET)
    assert state == "failed" and text.startswith(f"{etc / 'hall.yaml'}{place}: {etc}")
    assert text.endswith(f"cannot be read by {NAME}, whose user has no rights: {says.format(etc)}")


def test_a_folder_above_must_be_open_and_a_group_of_the_daemon_counts(etc: Path, say: Say) -> None:
    etc.chmod(0o700)
    texts = [text for _, text in say(SECRET)]
    assert len(texts) == 5 and all(t.endswith(f"sudo chmod a+x {etc}") or "LoadCredential=" in t for t in texts)
    etc.chmod(0o710)
    (etc / "m.onnx").chmod(0o640)
    assert len(say(SECRET)) == 5
    assert say(SECRET, groups=frozenset({os.getegid()})) == []


def test_what_lies_in_a_home_or_behind_a_link_to_one_is_not_seen(etc: Path, say: Say, tmp_path: Path) -> None:
    (etc / "m.onnx").unlink()
    (tmp_path / "m.onnx").touch(mode=0o644)
    (etc / "m.onnx").symlink_to(tmp_path / "m.onnx")
    ((state, text),) = say()
    assert state == "failed" and f"{etc / 'm.onnx'} is where {NAME} sees nothing (homes, /tmp); move it" in text


def test_a_secret_needs_no_rights_where_systemd_hands_it_over(etc: Path, say: Say) -> None:
    word = etc / "word"
    word.chmod(0o600)
    hint = f"`sudo systemctl edit {NAME}`, and there [Service] and LoadCredential=word:{word}"
    place = f"{etc / 'hall.yaml'}:3:30: mqtt.password_file: "
    assert say(SECRET) == [("failed", f"{place}{word} is kept from {NAME}: {hint}")]
    assert say(SECRET, credentials={"word": word}) == []
    ((state, text),) = say(SECRET, credentials=None)
    assert state == "warning" and f"unless its LoadCredential=word:{word}; systemd cannot be asked here" in text


def test_evidence_can_be_kept_only_where_the_unit_may_write(etc: Path, say: Say) -> None:
    assert say(f"evidence: {{folder: {etc / 'state/pictures'}}}\n") == []
    ((state, text),) = say(f"evidence: {{folder: {etc / 'kept'}}}\n")
    assert state == "failed" and f"evidence.folder: {etc / 'kept'} is read-only for {NAME}" in text
    assert say(f"evidence: {{folder: {etc / 'kept'}}}\n", writable=(etc / "kept",)) == []
    assert "is not what edge-asd@hall has there" in say("evidence: {folder: /tmp/kept}\n")[0][1]
    assert say(f"evidence: {{folder: {etc / 'kept'}, pictures: false}}\n") == []


def test_evidence_in_a_folder_that_the_units_user_may_not_write(etc: Path, say: Say) -> None:
    kept = etc / "kept"
    kept.mkdir(mode=0o755)
    ((state, text),) = say(f"evidence: {{folder: {kept}}}\n", writable=(kept,))
    assert state == "failed" and f"{kept} cannot be written by {NAME}, for {kept} is not for it" in text
    kept.chmod(0o770)
    assert say(f"evidence: {{folder: {kept}}}\n", writable=(kept,), groups=frozenset({os.getegid()})) == []


def test_a_group_must_be_the_units_and_known_to_it(say: Say) -> None:
    number = grp.getgrnam("audio").gr_gid
    for unit in ({}, {"groups": frozenset({number})}, {"knows_groups": True}):
        ((state, text),) = say("evidence: {group: audio}\n", **unit)
        assert state == "failed" and "evidence.group: edge-asd@hall cannot give files to audio" in text
        assert "SupplementaryGroups=audio, PrivateUsers=no and SystemCallFilter=@chown" in text
    assert say("evidence: {group: audio}\n", groups=frozenset({number}), knows_groups=True) == []


def test_a_calibration_beside_its_detector_must_be_readable_too(etc: Path, say: Say) -> None:
    calibration = etc / "m.m.calibration.json"
    calibration.touch()
    calibration.chmod(0o600)
    ((state, text),) = say()
    assert state == "failed" and text.endswith(f"whose user has no rights: sudo chmod a+r {calibration}")
