"""What systemd/security.md says of the network: what a daemon listens on, and whom it talks to."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts.broker import Broker
from parts.daemon import Daemon, write_config
from parts.waiting import until

pytestmark = pytest.mark.system

LISTENS, IS_CONNECTED = "0A", "01"
Socket = tuple[str, str, str]
"""State, own address, the other one."""


def sockets_of(process: int) -> dict[str, list[Socket]]:
    """By protocol: all internet sockets of a process, as the kernel has them."""
    links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    numbers = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = {}
    for protocol in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        lines = Path(f"/proc/{process}/net/{protocol}").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        found[protocol] = [(r[3], address(r[1]), address(r[2])) for r in rows if r[9] in numbers]
    return {protocol: sockets for protocol, sockets in found.items() if sockets}


def address(text: str) -> str:
    host, port = text.split(":")
    words = [struct.pack("<I", int(host[i : i + 8], 16)) for i in range(0, len(host), 8)]
    return f"{ipaddress.ip_address(b''.join(words))}:{int(port, 16)}"


@pytest.fixture
def daemon(tmp_path: Path, site_file: Path, dataset: Path) -> Iterator[tuple[Daemon, Broker]]:
    broker = Broker(tmp_path / "broker").start()
    clip = next((dataset / "slider" / "test").glob("normal_id_00_*"))
    machine = f"name: rail-7, recordings: {clip}, detectors: [{site_file}], repeat: true, hop_seconds: 1"
    config = write_config(tmp_path / "press.yaml", machine, mqtt=f"host: 127.0.0.1, port: {broker.port}")
    daemon = Daemon(config, "--state", str(tmp_path))
    try:
        daemon.wait_for("mqtt_connected")
        yield daemon, broker
    finally:
        daemon.kill()
        broker.stop()


def test_one_port_on_the_loopback_and_one_connection_to_the_broker(daemon: tuple[Daemon, Broker]) -> None:
    process, broker = daemon
    port = process.wait_for("ready")["metrics"]
    until(lambda: "edge_asd_windows_total" in process.get("/metrics")[1], "metrics")
    sockets = sockets_of(process.process.pid)
    assert set(sockets) == {"tcp"}, sockets
    assert [own for state, own, _ in sockets["tcp"] if state == LISTENS] == [f"127.0.0.1:{port}"]
    others = [other for state, own, other in sockets["tcp"] if state == IS_CONNECTED and own != f"127.0.0.1:{port}"]
    assert others == [f"127.0.0.1:{broker.port}"]
