"""What ``edge-asd check`` says of clock, secrets, folders, calibrations and the broker: lines to act on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jsonschema import Draft202012Validator

from edge_asd.check_broker import check_broker
from edge_asd.check_clock import Clock, check_clock, kernel_clock
from edge_asd.check_files import check_folders, check_secrets
from edge_asd.check_metrics import check_metrics
from edge_asd.check_sound import check_recordings
from edge_asd.cli import main
from edge_asd.config import Config
from edge_asd.config_file import load_config
from edge_asd.errors import EXIT_CONFIGURATION, EXIT_DONE
from edge_asd.finding import Finding
from edge_asd.unit import Unit

SMALL = "site: plant\nnode: hall\nmachines:\n  - {name: m, recordings: r, detectors: [m.onnx], alarm: {threshold: 3}}\n"
NOBODY = 65534


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], Config]:
    def write(more: str) -> Config:
        (tmp_path / "hall.yaml").write_text(SMALL + more)
        return load_config(tmp_path / "hall.yaml")

    return write


def said(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(f.state, f.text) for f in findings]


def only(findings: Iterable[Finding]) -> tuple[str, str]:
    (one,) = said(findings)
    return one


def test_an_address_of_the_metrics_that_is_not_there_is_told(configured: Callable[[str], Config]) -> None:
    assert only(check_metrics(configured("metrics: {listen: '127.0.0.1:0'}\n")))[0] == "ok"
    state, text = only(check_metrics(configured("metrics: {listen: '192.0.2.1:9464'}\n")))
    assert state == "warning" and "hall.yaml:5:11: metrics.listen: " in text and "192.0.2.1 now" in text
    assert not said(check_metrics(configured("")))


def test_a_port_that_another_program_has_is_told_and_the_daemons_own_is_not(
    configured: Callable[[str], Config],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, subprocess.Popen(["sleep", "60"]) as daemon:
        port = other.getsockname()[1]
        config = configured(f"metrics: {{listen: '127.0.0.1:{port}'}}\n")
        taken = f"127.0.0.1:{port}: Address already in use; `sudo ss -ltnp` shows by what"
        for running in (None, daemon.pid):
            state, text = only(check_metrics(config, None, running))
            assert state == "failed" and text == f"{config.file}:5:11: metrics.listen: {taken}"
        own = f"/metrics on 127.0.0.1:{port}, by the daemon that runs as pid {os.getpid()}"
        assert only(check_metrics(config, None, os.getpid())) == ("ok", own)
        daemon.kill()


def test_a_name_that_nobody_can_listen_to_and_a_port_of_root_are_told(configured: Callable[[str], Config]) -> None:
    state, text = only(check_metrics(configured("metrics: {listen: 'no-such-host.invalid:0'}\n")))
    assert state == "failed" and "metrics.listen: no-such-host.invalid:0: " in text
    state, text = only(check_metrics(configured("metrics: {listen: '127.0.0.1:80'}\n"), Unit("edge-asd@hall", {})))
    assert state == "failed"
    assert text.endswith("127.0.0.1:80: Permission denied: edge-asd@hall may not: name a port from 1024")


def test_the_first_recording_is_opened_and_its_channel_is_there(
    configured: Callable[[str], Config], tmp_path: Path, write_recording: Callable[..., Path]
) -> None:
    config = configured("")
    write_recording("r/b.wav", [0.0] * 16_000)
    assert only(check_recordings(config)) == ("ok", f"m: 1 recording in {tmp_path / 'r'}")
    (tmp_path / "r/a.wav").write_text("nonsense")
    where = f"{config.file}:4:15: machines.1.recordings: "
    assert only(check_recordings(config)) == (
        "failed",
        f"{where}{tmp_path / 'r/a.wav'}: is not a WAV or FLAC recording",
    )
    (tmp_path / "r/a.wav").unlink()
    config.file.write_text(SMALL.replace("recordings: r", "recordings: r, recording_channel: 2"))
    state, text = only(check_recordings(load_config(config.file)))
    assert state == "failed" and text.endswith("r/b.wav: has 1 channel(s); there is no channel 2")


def test_what_only_a_start_would_find_is_found(
    tmp_path: Path, tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """All is well otherwise, and a daemon that ends with 78 would not be told of."""
    (tmp_path / "m.onnx").write_bytes(tiny())
    soundfile.write(tmp_path / "r.wav", np.zeros(16_000), 16_000)
    config = tmp_path / "hall.yaml"
    text = SMALL.replace("recordings: r", "recordings: r.wav")
    for more, status in (("", EXIT_DONE), ("evidence: {group: nobody-knows}\n", EXIT_CONFIGURATION)):
        config.write_text(text + more)
        assert main(["check", "-c", str(config), "--state", str(tmp_path)]) == status
    assert f"failed   configuration  {config}:5:12: evidence.group: " in capsys.readouterr().out


def test_the_clock_of_this_computer_is_asked() -> None:
    clock = kernel_clock()
    assert clock is not None and 0 <= clock.most_wrong_seconds < 1000
    assert only(check_clock(clock))[0] in ("ok", "warning")


@pytest.mark.parametrize(
    ("clock", "now", "state", "says"),
    [
        (Clock(True, 0.01), 1.8e9, "ok", "2027-01-15 08:00 UTC, synchronised, wrong by 0.010 s at most"),
        (Clock(True, 9.0), 1.8e9, "warning", "wrong by 9.000 s at most"),
        (Clock(False, 16.0), 1.8e9, "warning", "nothing keeps it right (not synchronised)"),
        (Clock(True, 0.01), 100.0, "failed", "it is 1970-01-01 00:01 UTC here, which cannot be"),
        (None, 1.8e9, "warning", "cannot be asked"),
    ],
)
def test_clocks(clock: Clock | None, now: float, state: str, says: str) -> None:
    found, text = only(check_clock(clock, now))
    assert found == state and says in text


def test_secrets(configured: Callable[[str], Config], tmp_path: Path) -> None:
    config = configured("mqtt: {host: h, username: edge, password_file: word, tls: {ca: ca.pem}}\n")
    file = tmp_path / "hall.yaml"
    assert said(check_secrets(config)) == [
        ("failed", f"{file}:5:33: mqtt.password_file: {tmp_path / 'word'} cannot be read: no such file"),
        ("failed", f"{file}:5:60: mqtt.tls.ca: {tmp_path / 'ca.pem'} cannot be read: No such file or directory"),
    ]
    word = tmp_path / "word"
    word.write_text("\n")
    (tmp_path / "ca.pem").mkdir()
    texts = [text for _, text in said(check_secrets(config))]
    assert texts[0].endswith("its first line is empty") and texts[1].endswith("is not a file")
    word.write_text("swordfish\n")
    (tmp_path / "ca.pem").rmdir()
    (tmp_path / "ca.pem").touch()
    word.chmod(0o644)
    state, text = said(check_secrets(config))[0]
    assert state == "warning" and text.endswith(f"can be read by everybody on this computer; chmod o-rwx {word}")
    word.chmod(0o640)
    assert [state for state, _ in said(check_secrets(config))] == ["ok", "ok"]
    assert not any("swordfish" in text for _, text in said(check_secrets(config)))


def test_secrets_of_systemd_come_first(
    configured: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured("metrics: {username: p, password_file: word}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "word").write_text("secret")
    (tmp_path / "credentials" / "word").chmod(0o400)
    state, text = only(check_secrets(config))
    assert state == "ok" and str(tmp_path / "credentials" / "word") in text


def test_folders(configured: Callable[[str], Config], tmp_path: Path) -> None:
    config, state = configured(""), tmp_path / "state"
    found = {f.check: f for f in check_folders(config, state)}
    assert (found["state"].state, found["state"].text) == ("ok", f"{state} can be made")
    assert found["disk"].figures["free_bytes"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    state.mkdir(mode=0o700)
    assert {f.check: f.text for f in check_folders(config, state)}["state"] == f"{state} can be written"
    state.chmod(0o777)
    text = {f.check: (f.state, f.text) for f in check_folders(config, state)}["state"]
    assert text == ("warning", f"{state} can be written by everybody on this computer; chmod o-w {state}")
    state.rmdir()
    state.touch()
    found = {f.check: f for f in check_folders(config, state)}
    assert found["state"].state == "failed" and found["state"].text.startswith(f"{state} is not a folder: the alarms'")


def test_a_folder_of_somebody_else(configured: Callable[[str], Config]) -> None:
    """As another user, where this is root."""
    config, folder = configured(""), Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            os.write(writing, json.dumps(said(check_folders(config, folder / "state"))).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        state, text = json.load(file)[0]
    folder.rmdir()
    assert state == "failed"
    assert text.startswith(f"{folder}, where state is to be made, cannot be written by this user (number ")


@pytest.fixture
def rude_port() -> Iterator[int]:
    """Somebody who takes connections and ends them at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=refuse, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_what_is_no_broker(configured: Callable[[str], Config], rude_port: int) -> None:
    def check(more: str) -> tuple[str, str]:
        return only(check_broker(configured(f"mqtt: {{host: 127.0.0.1, {more}}}\n"), "hall", publish=False))

    state, text = check(f"port: {rude_port}")
    assert state == "failed" and ":5:1: mqtt: 127.0.0.1:" in text and "does the port want TLS?" in text
    assert "closed by the broker without an answer" in text, "as the daemon says it"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "nothing listens there (connection refused)" in check(f"port: {port}")[1]
    assert check(f"port: {rude_port}, tls: {{}}")[0] == "failed"
    assert "no such file" in check(f"port: {port}, username: u, password_file: gone")[1]
    assert list(check_broker(configured(""), "hall", publish=False)) == []


def test_a_name_that_is_not_known(configured: Callable[[str], Config]) -> None:
    state, text = only(check_broker(configured("mqtt: {host: broker.invalid}\n"), "hall", publish=False))
    assert state == "failed" and "broker.invalid cannot be resolved" in text


def test_the_command_tells_it_all(
    tmp_path: Path,
    tiny: Callable[..., bytes],
    write_recording: Callable[..., Path],
    schema: Callable[[str], Draft202012Validator],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_asd.check.running_instances", list)
    config, state = tmp_path / "hall.yaml", tmp_path / "state"
    config.write_text(SMALL)
    (tmp_path / "m.onnx").write_bytes(tiny())
    (tmp_path / "m.m.calibration.json").write_text("{")

    def check() -> tuple[int, dict[str, tuple[str, str]]]:
        status = main(["check", "--json", "-c", str(config), "--state", str(state)])
        document = json.loads(capsys.readouterr().out)
        schema("check").validate(document)
        return status, {f["check"]: (f["state"], f["text"]) for f in document["findings"]}

    status, found = check()
    assert status == EXIT_CONFIGURATION
    assert found["configuration"][0] == "failed" and "m.m.calibration.json:1:2: is damaged" in found["configuration"][1]
    assert found["recordings"] == ("failed", f"{config}:4:15: machines.1.recordings: {tmp_path / 'r'}: does not exist")
    write_recording("r/a.wav", [0.0] * 16_000)
    (tmp_path / "m.m.calibration.json").unlink()
    status, found = check()
    assert status == EXIT_DONE
    assert found["recordings"] == ("ok", f"m: 1 recording in {tmp_path / 'r'}")
    assert {"clock", "state", "disk", "cache", "time"} <= set(found)


def test_every_detector_that_fails_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_asd.check.running_instances", list)
    config = tmp_path / "hall.yaml"
    config.write_text("site: a\nnode: b\nmachines: [{name: m, recordings: r, detectors: [x.onnx, y.onnx]}]\n")
    (tmp_path / "y.onnx").write_bytes(b"nonsense")
    assert main(["check", "-c", str(config)]) == EXIT_CONFIGURATION
    lines = [line for line in capsys.readouterr().out.splitlines() if " configuration " in line]
    assert len(lines) == 2
    assert f"{config}:3:49: machines.1.detectors.1: {tmp_path / 'x.onnx'}: No such file" in lines[0]
    assert f"{config}:3:57: machines.1.detectors.2: {tmp_path / 'y.onnx'}: is not an ONNX model" in lines[1]


def test_a_calibration_that_does_not_count_is_named(
    tmp_path: Path,
    tiny: Callable[..., bytes],
    write_recording: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_asd.check.running_instances", list)
    (tmp_path / "hall.yaml").write_text(SMALL)
    write_recording("r/a.wav", [0.0] * 16_000)
    from edge_asd.detector import Detector
    from edge_asd.site_calibration import SiteCalibration, site_calibration_path, write_site_calibration

    (tmp_path / "m.onnx").write_bytes(tiny())
    detector = Detector(tmp_path / "m.onnx", tiny())
    document = SiteCalibration(
        sha256="0" * 64, machine="m", id="id_00", calibration=detector.metadata.calibration["id_00"]
    )
    write_site_calibration(site_calibration_path(tmp_path / "m.onnx", "m", None), document)
    assert main(["check", "-c", str(tmp_path / "hall.yaml")]) == EXIT_DONE
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " calibration " in line]
    assert line.startswith("warning") and "is for another detector file" in line
