"""The Debian package on a PC: how it is installed and configured, and what its daemons say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper

from parts.container import Container

RAIL = "edge-asd@rail.service"
RATE = 16_000


def loops_on_loud_sound(tiny: Callable[..., bytes]) -> bytes:
    """A detector that passes its verification, and never comes back from sound whose log-Mel is above -45 dB."""

    def model(made: onnx.ModelProto) -> None:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go_on"], ["goes_on"]),
                helper.make_node("Identity", ["value"], ["same"]),
            ],
            "for_ever",
            [
                helper.make_tensor_value_info("round", TensorProto.INT64, []),
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("value", TensorProto.FLOAT, ["window"]),
            ],
            [
                helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("same", TensorProto.FLOAT, ["window"]),
            ],
        )
        graph = made.graph
        graph.node[0].output[0] = "mean_db"
        graph.initializer.append(helper.make_tensor("limit", TensorProto.FLOAT, [], [-45.0]))
        graph.node.append(helper.make_node("ReduceMax", ["mean_db"], ["loudest"], keepdims=0))
        graph.node.append(helper.make_node("Greater", ["loudest", "limit"], ["is_loud"]))
        graph.node.append(helper.make_node("Loop", ["", "is_loud", "mean_db"], ["score"], body=body))

    return tiny(model=model)


def install(pc: Container, package: Path) -> str:
    """With apt, as a technician would."""
    shutil.copy(package, pc.root / "root/edge-asd.deb")
    done = pc.run("apt-get", "install", "-y", "--no-install-recommends", "/root/edge-asd.deb")
    return done.stdout + done.stderr


def configure(folder: Path, tiny: Callable[..., bytes]) -> None:
    """An instance without its microphone and broker, one that plays a recording, one whose detector will hang."""
    (folder / "good.onnx").write_bytes(tiny())
    (folder / "stuck.onnx").write_bytes(loops_on_loud_sound(tiny))
    sound = 0.3 * np.random.default_rng(1).standard_normal(15 * RATE)
    soundfile.write(folder / "loud.wav", np.clip(sound, -0.9, 0.9), RATE)
    head = "site: plant-3\nnode: hall\n"
    machine = "detectors: [{0}], hop_seconds: 1, alarm: {{threshold: 11}}"
    (folder / "deaf.yaml").write_text(
        head + "device: {name: no such microphone}\nmqtt: {host: 127.0.0.1, port: 9, username: edge, "
        "password_file: mqtt-password}\nmachines:\n"
        f"  - {{name: press, channel: 1, {machine.format('good.onnx')}}}\n"
    )
    for name, detector in (("rail", "good.onnx"), ("stuck", "stuck.onnx")):
        (folder / f"{name}.yaml").write_text(
            head + f"machines:\n  - {{name: {name}, recordings: loud.wav, repeat: true, {machine.format(detector)}}}\n"
        )
    (folder / "broken.yaml").write_text(head + "machines: [{name: press, chanel: 1}]\n")
    (folder / "keyless.yaml").write_text((folder / "deaf.yaml").read_text())
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / "secrets").mkdir(mode=0o700)
    (folder / "secrets/mqtt-password").write_text("s3cret\n")
    drop_in = folder.parent / "systemd/system/edge-asd@deaf.service.d"
    drop_in.mkdir(parents=True)
    credential = "LoadCredential=mqtt-password:/etc/edge-asd/secrets/mqtt-password"
    (drop_in / "password.conf").write_text(f"[Service]\n{credential}\n")
    keyless = folder.parent / "systemd/system/edge-asd@keyless.service.d"
    keyless.mkdir()
    (keyless / "password.conf").write_text("[Service]\nLoadCredential=mqtt-password:/etc/edge-asd/secrets/none\n")
    # So that nobody waits for half a minute.
    quick = folder.parent / "systemd/system/edge-asd@.service.d"
    quick.mkdir()
    (quick / "quick.conf").write_text("[Service]\nWatchdogSec=5\n")


def start(pc: Container, unit: str) -> dict[str, Any]:
    """Start it, and give the line that says that it is ready."""
    pc.run("systemctl", "daemon-reload")
    pc.run("systemctl", "start", unit)  # comes back when it is ready
    assert pc.show(unit, "ActiveState") == "active"
    return ready(pc, unit)[-1]


def ready(pc: Container, unit: str) -> list[dict[str, Any]]:
    return [line for line in pc.log(unit) if line["event"] == "ready"]


def outcomes(pc: Container) -> list[dict[str, Any]]:
    return [line for line in pc.log(RAIL) if line["event"] in ("reloaded", "reload_failed")]


def replace(path: Path, content: bytes) -> None:
    """Whole, as a technician's copy had better be, and readable."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)
