"""``edge-asd check`` against a real broker and a real sound server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from parts.broker import Broker, Subscriber
from parts.certificates import Authority
from parts.sound_server import SoundServer, VirtualMicrophone

pytestmark = pytest.mark.system


@pytest.fixture
def check(tmp_path: Path, tiny: Callable[..., bytes]) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    (tmp_path / "a.onnx").write_bytes(tiny())
    soundfile.write(tmp_path / "r.wav", np.zeros(16_000), 16_000)

    def run(
        more: str, *options: str, machine: str = "recordings: r.wav", environment: dict[str, str] | None = None
    ) -> Any:
        config = tmp_path / "hall.yaml"
        config.write_text(
            f"site: plant-3\nnode: hall\nmachines: [{{name: m, {machine}, detectors: [a.onnx]}}]\n{more}\n"
        )
        command = [sys.executable, "-m", "edge_asd.cli", "check", "--json", "-c", str(config), *options]
        done = subprocess.run(
            command, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == "" and done.returncode in (0, 78), done.stderr
        found: dict[str, list[dict[str, Any]]] = {"status": done.returncode}  # type: ignore[dict-item]
        for finding in json.loads(done.stdout)["findings"]:
            found.setdefault(finding["check"], []).append(finding)
        return found

    return run


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """With TLS and a password."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("broker")
    (tmp_path / "users").touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "users"), "edge", "swordfish"], check=True)
    options = [
        f"certfile {certificate}",
        f"keyfile {key}",
        "allow_anonymous false",
        f"password_file {tmp_path / 'users'}",
    ]
    broker = Broker(tmp_path / "broker", *options).start()
    yield broker
    broker.stop()


def test_a_broker_that_answers(check: Any, tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker").start()
    try:
        found = check(f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}")
        assert found["status"] == 0
        (finding,) = found["broker"]
        assert finding["state"] == "ok" and "connected and logged in" in finding["text"]
        if importlib.util.find_spec("edge_asd.publish.probe") is not None:
            assert (
                check(f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}", "--publish")["broker"][-1]["state"]
                == "warning"
            )
            heard = Subscriber(broker.port)
            found = check(f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}", "--publish")
            assert {f["state"] for f in found["broker"]} == {"ok"}
            assert any(message.topic.endswith("/test") for message in heard.messages)
        assert "TLS" in check(f"mqtt: {{host: 127.0.0.1, port: {broker.port}, tls: {{}}}}")["broker"][0]["text"]
    finally:
        broker.stop()


def test_a_broker_with_tls_and_a_password(check: Any, tmp_path: Path, guarded: Broker) -> None:
    (tmp_path / "word").write_text("swordfish\n")
    (tmp_path / "wrong").write_text("salmon\n")
    for file in ("word", "wrong"):
        (tmp_path / file).chmod(0o600)

    def broker(tls: str, word: str) -> dict[str, Any]:
        more = f"mqtt: {{host: localhost, port: {guarded.port}, {tls} username: edge, password_file: {word}}}"
        found: dict[str, Any] = check(more)["broker"][0]
        assert "swordfish" not in str(found)
        return found

    assert broker("tls: {ca: ca/ca.pem},", "word")["state"] == "ok"
    assert "the broker refuses the connection: Not auth" in broker("tls: {ca: ca/ca.pem},", "wrong")["text"]
    assert "the broker's certificate is not accepted" in broker("tls: {},", "word")["text"]
    assert "does the port want TLS?" in broker("", "word")["text"]


def test_a_broker_that_wants_a_certificate_is_told_as_the_daemon_tells_it(check: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("broker")
    authority.issue("expired", is_expired=True)
    options = [f"cafile {authority.certificate}", f"certfile {certificate}", f"keyfile {key}"]
    broker = Broker(tmp_path / "broker", *options, "require_certificate true", "allow_anonymous true").start()
    try:
        for own, says in (
            ("", "does the broker want a client certificate? then mqtt.tls.certificate is missing"),
            (", certificate: ca/expired.pem, key: ca/expired.key", "expired.pem, and has it not expired?"),
        ):
            more = f"mqtt: {{host: localhost, port: {broker.port}, tls: {{ca: ca/ca.pem{own}}}}}"
            assert check(more)["broker"][0]["text"].endswith(says)
    finally:
        broker.stop()


def test_a_microphone(check: Any, tmp_path: Path) -> None:
    server = SoundServer(tmp_path / "sound", VirtualMicrophone("vmic")).start()
    try:
        rng = np.random.default_rng(1)
        soundfile.write(tmp_path / "noise.wav", 0.1 * rng.standard_normal(30 * 16_000).clip(-3, 3), 16_000)
        player = server.play(tmp_path / "noise.wav", "vmic")
        found = check("device: {name: vmic}", machine="channel: 1", environment=server.environment)
        assert found["status"] == 0
        assert found["device"][0]["figures"]["source"] == "vmic"
        assert found["level"][0]["figures"]["level_dbfs"] == pytest.approx(-20, abs=1.5)
        player.kill()
        player.wait()
        found = check("device: {name: other}", machine="channel: 1", environment=server.environment)
        assert found["status"] == 78 and "no input 'other' is there" in found["device"][0]["text"]
    finally:
        server.kill()
