"""The daemon with a microphone: a real sound server that comes, goes, moves, hangs; a real broker that is told."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from parts.broker import TOPIC, Broker, Subscriber
from parts.daemon import Daemon, write_config
from parts.sound_server import SoundServer, VirtualMicrophone
from parts.waiting import until

from edge_asd.clock import boot_time
from edge_asd.demo.clips import simulate
from edge_asd.errors import EXIT_SOUND_SYSTEM_HUNG

pytestmark = pytest.mark.system

RATE = 16_000
BLOCK_SECONDS = 0.1
NOTICED_SECONDS = 3.0
HEARD_AGAIN_SECONDS = 10.0
WINDOW_SECONDS = 10.0

Validate = Callable[[str], Any]


class Plant:
    """A sound server, a broker, a daemon with one machine, and a subscriber."""

    def __init__(self, folder: Path, detector: Path, *, has_sound: bool) -> None:
        self.server = SoundServer(folder / "sound")
        if has_sound:
            self.server.start()
        self.broker = Broker(folder / "broker").start()
        self.subscriber = Subscriber(self.broker.port)
        self.sound = folder / "rail.wav"
        soundfile.write(self.sound, simulate("id_00", 120, seed=70), RATE, subtype="PCM_16")
        config = write_config(
            folder / "press.yaml",
            f"name: rail-7, channel: 1, detectors: [{detector}], alarm: {{threshold: 11}}",
            mqtt=f"host: 127.0.0.1, port: {self.broker.port}",
            device="name: vmic",
        )
        self.daemon = Daemon(config, **self.server.environment)
        self.players: list[subprocess.Popen[bytes]] = []

    def play(self) -> None:
        self.players.append(self.server.play(self.sound))

    def state(self) -> dict[str, Any]:
        """The last one that the broker was told."""
        states = self.subscriber.of("machine/rail-7/state")
        return states[-1].document if states else {}

    def wait_for_signal(self, wanted: str, seconds: float) -> dict[str, Any]:
        until(lambda: self.state().get("signal") == wanted, f"signal {wanted}; it is {self.state()}", seconds)
        return self.state()

    def scored(self) -> float:
        return self.daemon.metric('edge_asd_windows_total{machine="rail-7",result="scored"}')

    def books(self) -> tuple[float, float]:
        """Seconds accounted for, heard or lost, and when they were asked."""
        before, text, after = boot_time(), self.daemon.get("/metrics")[1], boot_time()
        names = ("edge_asd_audio_frames_total", "edge_asd_audio_lost_frames_total")
        found = [re.search(rf'^{name}{{machine="rail-7"}} (\S+)$', text, re.MULTILINE) for name in names]
        return sum(float(f[1]) for f in found if f) / RATE, (before + after) / 2

    def close(self) -> None:
        for player in self.players:
            player.kill()
            player.wait()
        self.daemon.kill()
        self.subscriber.close()
        self.broker.stop()
        self.server.kill()


@pytest.fixture
def plant(tmp_path: Path, site_file: Path) -> Iterator[Callable[..., Plant]]:
    made: list[Plant] = []

    def make(*, has_sound: bool = True) -> Plant:
        made.append(Plant(tmp_path, site_file, has_sound=has_sound))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_device_that_comes_and_goes(plant: Callable[..., Plant], schema: Callable[[str], Any]) -> None:
    """Started without it, killed, moved, suspended: a state that is told, and windows again after each."""
    hall = plant(has_sound=False)
    hall.daemon.wait_for("ready")
    state = hall.wait_for_signal("none", 5)
    assert state["signal_reason"] == "no input 'vmic' is there; inputs are: none" and state["condition"] == "starting"
    assert hall.daemon.metric('edge_asd_signal{machine="rail-7",signal="none"}') == 1
    assert hall.daemon.metric("edge_asd_audio_device_up") == 0

    def back(what: str) -> None:
        """Heard within 10 s, and a window is scored within 10 s more than its own length."""
        began, before = time.monotonic(), hall.scored()
        hall.play()
        hall.wait_for_signal("ok", HEARD_AGAIN_SECONDS)
        until(lambda: hall.scored() > before, f"a window after {what}", HEARD_AGAIN_SECONDS + WINDOW_SECONDS)
        assert time.monotonic() - began <= HEARD_AGAIN_SECONDS + WINDOW_SECONDS
        assert hall.daemon.metric("edge_asd_audio_device_up") == 1

    hall.server.start()
    back("the start of the sound server")
    first = hall.books()
    for number, (what, lose, regain, reason) in enumerate(
        [
            ("killed", hall.server.kill, hall.server.start, "the sound system has ended the stream of 'vmic'"),
            (
                "unloaded",
                lambda: hall.server.unload("vmic"),
                lambda: hall.server.load("vmic"),
                "the sound server has moved the stream to 'other'",
            ),
            (
                "suspended",
                lambda: hall.server.suspend("vmic", True),
                lambda: hall.server.suspend("vmic", False),
                "'vmic' has given no samples for 2.5 s",
            ),
        ],
        1,
    ):
        time.sleep(2)  # into the next window
        lose()
        state = hall.wait_for_signal("none", NOTICED_SECONDS)
        assert state["signal_reason"] == reason, what
        assert hall.daemon.metric('edge_asd_audio_disturbances_total{kind="loss"}') == number
        scored = hall.scored()
        time.sleep(5)
        assert hall.scored() == scored, "nothing is scored meanwhile"
        regain()
        back(what)
    last = hall.books()
    # A block is under way at either end.
    assert abs((last[0] - first[0]) - (last[1] - first[1])) <= 2 * BLOCK_SECONDS
    for message in hall.subscriber.of("machine/rail-7/state"):
        schema("state").validate(message.document)
    scores = [m.document for m in hall.subscriber.of("machine/rail-7/score")]
    for document in scores:
        schema("score").validate(document)
    assert {s["result"] for s in scores} == {"scored", "gap"}
    assert all(s["level_dbfs"] is None or s["level_dbfs"] < -20 for s in scores), "silence is never full scale"
    assert hall.daemon.terminate() == 0
    closed = hall.daemon.events("device_closed")[0]
    assert closed["captured"] > 0 and closed["lost"] > 15 * RATE


def test_a_sound_server_that_hangs_ends_the_daemon(plant: Callable[..., Plant]) -> None:
    hall = plant()
    hall.daemon.wait_for("ready")
    hall.wait_for_signal("ok", 5)
    hall.server.pause()
    hall.wait_for_signal("none", NOTICED_SECONDS)
    assert hall.daemon.process.wait(20) == EXIT_SOUND_SYSTEM_HUNG
    said = until(lambda: hall.daemon.events("sound_system_hangs"), "the last word")[0]
    assert said["error"] == "the sound system hangs: closing 'vmic' has not returned for 10 s"
    status = f"{TOPIC}/daemon/press/status"
    until(lambda: [m for m in hall.subscriber.messages if m.topic == status and m.text == "offline"], "the last will")
    # As systemd would: anew. While the server still hangs it ends again, once it goes on all is well.
    again = Daemon(hall.daemon.errors.with_suffix(".yaml"), **hall.server.environment)
    try:
        assert again.process.wait(20) == EXIT_SOUND_SYSTEM_HUNG
    finally:
        again.kill()
    # Who stops it while it hangs is not told of a failure.
    stopped = Daemon(hall.daemon.errors.with_suffix(".yaml"), **hall.server.environment)
    try:
        time.sleep(4)  # it has begun to open the device
        stopped.process.send_signal(signal.SIGTERM)
        assert stopped.process.wait(20) == 0
    finally:
        stopped.kill()
    hall.server.resume()
    last = Daemon(hall.daemon.errors.with_suffix(".yaml"), **hall.server.environment)
    try:
        last.wait_for("device_heard")
        assert last.terminate() == 0
    finally:
        last.kill()


def test_a_muted_input_is_suspect_and_not_an_anomaly(plant: Callable[..., Plant]) -> None:
    hall = plant()
    hall.daemon.wait_for("ready")
    state = hall.wait_for_signal("suspect", 20)
    assert state["suspect"] == "silence" and state["signal_reason"].startswith("digital silence for ")
    assert state["condition"] == "starting" and state["incident"] is None
    assert hall.daemon.metric('edge_asd_signal_suspect{machine="rail-7",reason="silence"}') == 1
    assert hall.daemon.metric('edge_asd_audio_level_dbfs{machine="rail-7"}') == -120
    assert hall.daemon.metric('edge_asd_windows_total{machine="rail-7",result="suspect"}') >= 1
    hall.play()
    hall.wait_for_signal("ok", 2 * WINDOW_SECONDS + 2)
    assert hall.daemon.metric('edge_asd_signal_suspect{machine="rail-7",reason="silence"}') == 0


def test_a_rate_that_misses_half_of_the_sound_is_told(tmp_path: Path, site_file: Path) -> None:
    server = SoundServer(tmp_path / "sound", VirtualMicrophone("vmic", 48_000)).start()
    machine = f"name: rail-7, channel: 1, detectors: [{site_file}], alarm: {{threshold: 11}}"
    config = write_config(
        tmp_path / "press.yaml", machine, mqtt="host: 127.0.0.1, port: 9", device="name: vmic, rate: 8000"
    )
    daemon = Daemon(config, **server.environment)
    try:
        told = daemon.wait_for("device_rate_low")
        assert (told["level"], told["rate"], told["wanted"]) == ("warning", 8_000, RATE)
        assert "they miss what is above 4 kHz" in told["hint"]
    finally:
        daemon.kill()
        server.kill()


def test_two_machines_on_two_channels(tmp_path: Path, site_file: Path) -> None:
    """One of them becomes louder, then the gain of both changes: only the second is the microphone's."""
    server = SoundServer(tmp_path / "sound", VirtualMicrophone("stereo", 48_000, 2)).start()
    noise = np.random.default_rng(5).standard_normal((50 * 48_000, 2)) * 0.01
    noise[12 * 48_000 :, 0] *= 4
    noise[27 * 48_000 :] *= 4
    soundfile.write(tmp_path / "noise.wav", noise, 48_000, subtype="PCM_16")
    machines = [
        f"name: {name}, channel: {n}, detectors: [{site_file}], alarm: {{threshold: 11}}, hop_seconds: 1"
        for n, name in enumerate(("left", "right"), 1)
    ]
    broker = Broker(tmp_path / "broker").start()
    subscriber = Subscriber(broker.port)
    mqtt = f"host: 127.0.0.1, port: {broker.port}"
    daemon = Daemon(
        write_config(tmp_path / "two.yaml", *machines, mqtt=mqtt, device="name: stereo"), **server.environment
    )
    player = None
    try:
        opened = daemon.wait_for("device_heard")
        assert (opened["device_rate"], opened["channels"], opened["source"]) == (48_000, 2, "stereo")
        assert opened["buffer_seconds"] >= 1.9, "2 s are asked for"
        player = server.play(tmp_path / "noise.wav", "stereo")
        assert player.wait(80) == 0
        until(lambda: daemon.events("state")[-1]["signal"] == "suspect", "silence at the end", 15)
        for name in ("left", "right"):
            scores = [m.document for m in subscriber.of(f"machine/{name}/score")]
            levels = [s["level_dbfs"] for s in scores if s["suspect"] != "silence"]
            assert max(levels) > -25.0 if name == "left" else max(levels) < -25.0, "each its own channel"
            jumps = [s for s in scores if s["suspect"] == "jump"]
            assert 8 <= len(jumps) <= 13 and all(s["result"] == "suspect" for s in jumps)
            # As it became louder by itself, 15 s before, it was scored on.
            first = scores.index(jumps[0])
            assert [s["result"] for s in scores[first - 10 : first]] == ["scored"] * 10
    finally:
        if player is not None:
            player.kill()
            player.wait()
        daemon.kill()
        subscriber.close()
        broker.stop()
        server.kill()
