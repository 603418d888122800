"""The Debian package on a fresh Debian, under its real systemd: `make test-package` builds it and runs this."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from parts.container import Container, make_image
from parts.packaged import RAIL, RATE, configure, install, outcomes, ready, replace, start
from parts.waiting import until

REPOSITORY = Path(__file__).parents[2]
DEAF = "edge-asd@deaf.service"
STUCK = "edge-asd@stuck.service"

pytestmark = [
    pytest.mark.package,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="needs systemd-container"),
]


@pytest.fixture(scope="module")
def package() -> Path:
    """The newest one of `make deb`."""
    found = sorted((REPOSITORY / "build").glob("edge-asd_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.fail("there is no package: make deb")
    return found[-1]


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same content under a higher version, with a changed example."""
    folder = tmp_path_factory.mktemp("newer")
    root = folder / "root"
    subprocess.run(["dpkg-deb", "-R", str(package), str(root)], check=True)
    control = root / "DEBIAN/control"
    old = next(line for line in control.read_text().splitlines() if line.startswith("Version: "))
    control.write_text(control.read_text().replace(old, f"{old}+newer"))
    deb = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(root), str(deb)], check=True)
    shutil.rmtree(root)
    return deb


@pytest.fixture(scope="module")
def pc(package: Path, tiny: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A PC with the package installed by apt, three configurations, and none of them started."""
    image = make_image(REPOSITORY / "build/package/base.tar")
    container = Container(image, tmp_path_factory.mktemp("pc"))
    try:
        install(container, package)
        configure(container.root / "etc/edge-asd", tiny)
        yield container
    finally:
        container.close()
        shutil.rmtree(container.root, ignore_errors=True)


def test_the_package_is_small_and_complete(pc: Container, package: Path) -> None:
    assert package.stat().st_size < 60e6
    size = int(pc.run("du", "-sm", "/opt/edge-asd").stdout.split()[0])
    assert size < 250
    names = pc.run("sh", "-c", "ls /opt/edge-asd/lib/python3*/site-packages").stdout.split()
    assert not {"torch", "librosa", "onnx", "edge_asd_train", "numba", "pip"} & set(names)
    owners = pc.run("find", "/opt/edge-asd", "-not", "-user", "root", "-or", "-perm", "/022", "-not", "-type", "l")
    assert owners.stdout == ""
    assert pc.run("edge-asd", "--version").stdout.startswith("edge-asd ")
    assert "ALERT RAISED" in pc.run("edge-asd", "demo").stdout
    assert "hears from the sound" in pc.run("man", "-P", "cat", "edge-asd").stdout
    missing = pc.run(
        "sh", "-c", "find /opt/edge-asd -name '*.so*' -type f | xargs ldd 2>&1 | grep 'not found'", check=False
    )
    assert missing.stdout == ""


def test_starts_without_microphone_and_broker_and_stays(pc: Container) -> None:
    line = start(pc, DEAF)
    print(f"ready after {line['start_seconds']} s")
    time.sleep(12)  # twice what the watchdog waits, and longer than the device is looked for
    assert pc.show(DEAF, "NRestarts") == "0"
    assert pc.show(DEAF, "ActiveState") == "active"
    events = {e["event"] for e in pc.log(DEAF)}
    assert {"device_not_heard", "mqtt_unreachable"} <= events
    warnings = [e["event"] for e in pc.log(DEAF, "--priority=warning")]
    assert {"device_not_heard", "mqtt_unreachable"} <= set(warnings) and "ready" not in warnings
    assert [e["priority"] for e in pc.log(DEAF, "--priority=notice") if e["event"] == "ready"] == [5]
    pc.run("systemctl", "reload", DEAF)
    time.sleep(1)
    assert "reloaded" in {e["event"] for e in pc.log(DEAF)}, "the daemon sees its password, what asks before does not"
    assert (pc.show(DEAF, "ActiveState"), pc.show(DEAF, "NRestarts")) == ("active", "0")


def test_two_instances_have_their_own_user_state_and_cache(pc: Container) -> None:
    start(pc, DEAF)
    start(pc, RAIL)
    pids = [pc.show(unit, "MainPID") for unit in (DEAF, RAIL)]
    uids = {pc.run("stat", "-c", "%u", f"/proc/{pid}").stdout.strip() for pid in pids}
    assert len(uids) == 2 and "0" not in uids
    for kind in ("lib", "cache"):
        assert {"deaf", "rail"} <= set(pc.run("ls", f"/var/{kind}/edge-asd").stdout.split())
    pc.run("systemctl", "stop", RAIL)
    assert pc.show(DEAF, "ActiveState") == "active"
    assert pc.show(RAIL, "Result") == "success"


def test_what_is_muted_and_calibrated_before_the_first_start_counts_from_there(pc: Container) -> None:
    unit, config = "edge-asd@first.service", "/etc/edge-asd/first.yaml"
    folder = pc.root / "etc/edge-asd"
    (folder / "first.yaml").write_text((folder / "rail.yaml").read_text())
    rng = np.random.default_rng(2)
    (pc.root / "srv/normal").mkdir()
    for number in range(12):
        soundfile.write(pc.root / f"srv/normal/{number:02}.wav", 0.01 * rng.standard_normal(10 * RATE), RATE)
    muted = pc.run("sh", "-c", f"umask 077; edge-asd mute rail --hours 1 -c {config}")
    assert "it counts from its next start" in muted.stderr
    calibrated = pc.run("sh", "-c", f"umask 077; edge-asd calibrate -c {config} --machine rail --from /srv/normal")
    assert "written: /var/lib/edge-asd/first/good.rail.calibration.json" in calibrated.stdout
    start(pc, unit)
    try:
        log = pc.log(unit)
        assert [e["machine"] for e in log if e["event"] == "muted"] == ["rail"]
        assert [e["windows"] for e in log if e["event"] == "calibration"] == [12]
        pc.run("edge-asd", "mute", "rail", "--off", "-c", config)
        until(lambda: any(e["event"] == "unmuted" for e in pc.log(unit)), "the end of it")
    finally:
        pc.run("systemctl", "stop", unit, check=False)


def test_a_reload_takes_up_what_is_new_and_fails_visibly_where_it_cannot(
    pc: Container, tiny: Callable[..., bytes]
) -> None:
    start(pc, RAIL)
    pid, folder = pc.show(RAIL, "MainPID"), pc.root / "etc/edge-asd"
    config = folder / "rail.yaml"
    good, content = config.read_text(), (folder / "good.onnx").read_bytes()
    try:
        config.write_text(good.replace("threshold: 11", "threshold: 10"))
        replace(folder / "good.onnx", tiny(document=lambda document: document.update(kind="other")))
        pc.run("systemctl", "reload", RAIL)
        told = until(lambda: outcomes(pc), "the reload")
        assert [t["event"] for t in told] == ["reloaded"]
        assert told[0]["changed"] == {"rail": ["detectors", "alarm"]} and told[0]["restart_needed"] == []
        until(lambda: pc.show(RAIL, "StatusText").endswith("reloaded, changed: rail"), "systemd's word of it")
        # What is wrong fails in the face of whoever asked, and is told by the daemon.
        config.write_text(good.replace("hop_seconds", "hop_second"))
        assert pc.run("systemctl", "reload", RAIL, check=False).returncode != 0
        journal = pc.run("journalctl", "--output=cat", "--unit", RAIL).stdout
        assert "/etc/edge-asd/rail.yaml:4:" in journal and "did you mean hop_seconds?" in journal
        wrong = pc.run("journalctl", "--output=cat", "--priority=warning", "--unit", RAIL).stdout
        assert "failed   configuration" in wrong and "ok       configuration" not in wrong
        config.write_text(good + "mqtt: {host: 127.0.0.1, port: 9, tls: {ca: lost.pem}}\n")  # as the next start would
        assert pc.run("systemctl", "reload", RAIL, check=False).returncode != 0
        assert "/etc/edge-asd/lost.pem: no such file" in pc.run("journalctl", "--output=cat", "--unit", RAIL).stdout
        until(lambda: [t["event"] for t in outcomes(pc)] == ["reloaded", "reload_failed", "reload_failed"], "refusals")
        until(lambda: "reload failed, nothing changed: " in pc.show(RAIL, "StatusText"), "systemd's word of it")
    finally:
        config.write_text(good)
        replace(folder / "good.onnx", content)
    pc.run("systemctl", "reload", RAIL)
    until(lambda: len(outcomes(pc)) == 4, "the last one")
    assert [pc.show(RAIL, name) for name in ("ActiveState", "NRestarts", "MainPID")] == ["active", "0", pid]
    pc.run("systemctl", "stop", RAIL)


def test_a_killed_daemon_is_back_at_once(pc: Container) -> None:
    start(pc, RAIL)
    before = len(ready(pc, RAIL))
    pid = pc.show(RAIL, "MainPID")
    began = time.monotonic()
    pc.run("kill", "-9", pid)
    until(lambda: len(ready(pc, RAIL)) > before, "the daemon after kill -9", 15)
    print(f"ready {time.monotonic() - began:.1f} s after kill -9")
    assert pc.show(RAIL, "MainPID") not in ("0", pid)
    pc.run("systemctl", "stop", RAIL)


def test_a_scorer_that_hangs_is_told_and_started_anew(pc: Container) -> None:
    start(pc, RAIL)
    start(pc, STUCK)
    until(lambda: pc.show(STUCK, "NRestarts") != "0", "the watchdog", 60)
    hangs = [e for e in pc.log(STUCK) if e["event"] == "hangs"]
    assert hangs and "scoring stuck" in hangs[0]["error"]
    assert "Watchdog timeout" in pc.run("journalctl", "--output=cat", "--unit", STUCK).stdout
    until(lambda: len(ready(pc, STUCK)) > 1, "the daemon after the watchdog", 15)
    assert pc.show(RAIL, "NRestarts") == "0", "another instance took part"
    pc.run("systemctl", "stop", STUCK, RAIL)


def test_a_wrong_configuration_is_not_tried_again(pc: Container) -> None:
    unit = "edge-asd@broken.service"
    assert pc.run("systemctl", "start", unit, check=False).returncode != 0
    assert pc.show(unit, "ExecMainStatus") == "78"
    time.sleep(2)
    assert (pc.show(unit, "ActiveState"), pc.show(unit, "NRestarts")) == ("failed", "0")
    assert (
        "/etc/edge-asd/broken.yaml:3:" in pc.run("journalctl", "--output=cat", "--priority=err", "--unit", unit).stdout
    )


def test_a_credential_that_is_missing_is_not_tried_again(pc: Container) -> None:
    """Without the drop-in the daemon itself says what it misses."""
    unit = "edge-asd@keyless.service"
    assert pc.run("systemctl", "start", unit, check=False).returncode != 0
    time.sleep(2)
    assert (pc.show(unit, "ExecMainStatus"), pc.show(unit, "NRestarts")) == ("243", "0")
    said = pc.run("edge-asd", "check", "-c", "/etc/edge-asd/keyless.yaml", check=False).stdout
    assert "mqtt.password_file: /etc/edge-asd/secrets/none cannot be read: no such file" in said
    shutil.rmtree(pc.root / "etc/systemd/system/edge-asd@keyless.service.d")
    pc.run("systemctl", "daemon-reload")
    assert pc.run("systemctl", "start", unit, check=False).returncode != 0
    assert (pc.show(unit, "ExecMainStatus"), pc.show(unit, "NRestarts")) == ("78", "0")
    said = pc.run("journalctl", "--output=cat", "--priority=err", "--unit", unit).stdout
    assert "mqtt.password_file: /etc/edge-asd/mqtt-password: no such file" in said


def test_check_as_root_reads_the_secrets_that_the_unit_is_handed(pc: Container) -> None:
    said = pc.run("edge-asd", "check", "-c", "/etc/edge-asd/deaf.yaml", check=False).stdout
    assert "mqtt.password_file: /etc/edge-asd/secrets/mqtt-password can be read" in said
    assert "nothing listens there" in said, "the login is tried"
    assert "edge-asd@deaf may read what /etc/edge-asd/deaf.yaml names" in said


def test_check_as_root_names_what_the_daemon_may_not_read(pc: Container) -> None:
    (pc.root / "etc/edge-asd/good.onnx").chmod(0o600)
    said = pc.run("edge-asd", "check", "-c", "/etc/edge-asd/deaf.yaml", check=False).stdout
    (pc.root / "etc/edge-asd/good.onnx").chmod(0o644)
    assert "good.onnx cannot be read by edge-asd@deaf, whose user has no rights: sudo chmod a+r /etc/edge-asd/" in said


def test_what_belongs_to_the_audio_group_can_be_opened_by_the_unit_and_nothing_else(pc: Container) -> None:
    """As sound cards do (root:audio, 660), in the namespace of users that PrivateUsers= makes; no card is here."""
    for name, group in (("card", "audio"), ("other", "root")):
        (pc.root / f"srv/{name}").write_text("heard")
        pc.run("chown", f"root:{group}", f"/srv/{name}")
        pc.run("chmod", "660", f"/srv/{name}")
    drop_in = pc.root / "etc/systemd/system/edge-asd@card.service.d"
    drop_in.mkdir(parents=True)
    (drop_in / "try.conf").write_text(
        "[Service]\nExecStartPre=/bin/grep heard /srv/card\nExecStartPre=/bin/sh -c '! /bin/grep heard /srv/other'\n"
    )
    shutil.copy(pc.root / "etc/edge-asd/rail.yaml", pc.root / "etc/edge-asd/card.yaml")
    pc.run("systemctl", "daemon-reload")
    try:
        pc.run("systemctl", "start", "edge-asd@card")
        assert pc.show("edge-asd@card", "ActiveState") == "active"
    finally:
        pc.run("systemctl", "stop", "edge-asd@card", check=False)


def test_evidence_for_a_group_as_the_readme_has_it(pc: Container) -> None:
    lines = (REPOSITORY / "systemd/README.md").read_text().split("groupadd quality")[1].split("```")
    drop_in = pc.root / "etc/systemd/system/edge-asd@shown.service.d"
    drop_in.mkdir(parents=True)
    (drop_in / "group.conf").write_text(lines[2].removeprefix("ini\n"))
    pc.run("groupadd", "quality")
    pc.run("install", "-d", "-g", "quality", "-m", "2770", "/srv/evidence")
    text = (pc.root / "etc/edge-asd/rail.yaml").read_text()
    alarm = "{threshold: 0.001, raise_after: 1 of 1}"
    (pc.root / "etc/edge-asd/shown.yaml").write_text(
        text.replace("{threshold: 11}", alarm) + "evidence: {folder: /srv/evidence, group: quality, clips: true}\n"
    )
    pc.run("systemctl", "daemon-reload")
    try:
        pc.run("edge-asd", "check", "-c", "/etc/edge-asd/shown.yaml")
        pc.run("systemctl", "start", "edge-asd@shown")
        shown = until(lambda: pc.run("find", "/srv/evidence", "-name", "*.png").stdout.split(), "a picture", 40)
        owner = pc.run("stat", "--format=%G %a", shown[0], str(Path(shown[0]).parent)).stdout.splitlines()
        assert owner == ["quality 640", "quality 750"]
        assert not [line for line in pc.log("edge-asd@shown") if line["event"] == "evidence_skipped"]
    finally:
        pc.run("systemctl", "stop", "edge-asd@shown", check=False)


def test_the_unit_is_sound_and_locked_in(pc: Container) -> None:
    done = pc.run("systemd-analyze", "verify", "edge-asd@rail.service")
    assert (done.stdout, done.stderr) == ("", "")
    pc.run("systemd-analyze", "security", "--threshold=15", "edge-asd@rail.service")


def test_an_upgrade_keeps_everything_and_runs_the_new_version(pc: Container, newer: Path) -> None:
    start(pc, RAIL)
    pid = pc.show(RAIL, "MainPID")
    example = pc.root / "etc/edge-asd/example.yaml"
    example.write_text("# changed here\n" + example.read_text())
    (pc.root / "var/lib/private/edge-asd/rail/kept").write_text("state")
    install(pc, newer)
    until(
        lambda: pc.show(RAIL, "MainPID") not in ("0", pid) and pc.show(RAIL, "ActiveState") == "active", "the new one"
    )
    assert example.read_text().startswith("# changed here\n")
    assert (pc.root / "etc/edge-asd/rail.yaml").exists()
    assert (pc.root / "var/lib/private/edge-asd/rail/kept").exists()
    assert pc.show("edge-asd@broken.service", "ActiveState") != "active", "what did not run was started"


def test_removal_keeps_configuration_and_state_and_purge_forgets_them(pc: Container) -> None:
    start(pc, RAIL)
    pc.run("systemctl", "enable", RAIL)
    pc.run("apt-get", "remove", "-y", "edge-asd")
    assert not (pc.root / "opt/edge-asd").exists()
    assert pc.run("pgrep", "-f", "edge-asd", check=False).stdout == ""
    assert (pc.root / "etc/edge-asd/rail.yaml").exists()
    assert (pc.root / "etc/edge-asd/example.yaml").exists()
    assert (pc.root / "var/lib/private/edge-asd/rail/kept").exists()
    pc.run("apt-get", "purge", "-y", "edge-asd")
    folders = " ".join(["/etc", "/var/lib", "/var/cache", "/opt", "/usr"])
    left = pc.run(
        "sh", "-c", f"find {folders} -name '*edge-asd*' -not -path '/var/lib/dpkg/*' 2>/dev/null", check=False
    )
    assert left.stdout == ""
