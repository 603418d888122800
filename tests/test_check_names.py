"""Two daemons that the broker would take for one, or that want one port, are told before they start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_asd.check_names import check_names
from edge_asd.config import Config
from edge_asd.config_file import load_config

Write = Callable[..., tuple[Path, Config]]
BROKER = "mqtt: {host: broker.plant}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, *machines: str, more: str = BROKER, node: str = "hall") -> tuple[Path, Config]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        lines = "".join(f"  - {{name: {machine}, recordings: r, detectors: [m.onnx]}}\n" for machine in machines)
        path.write_text(f"site: plant\nnode: {node}\n{more}machines:\n{lines}")
        return path, load_config(path)

    return write


def say(given: list[tuple[Path, Config]], *running: tuple[Path, Config]) -> list[tuple[str, str]]:
    return [(f.state, f.text) for f in check_names(given, running)]


def test_a_machine_of_two_daemons(write: Write, tmp_path: Path) -> None:
    one, copy = write("one.yaml", "press", "rail-7"), write("copy.yaml", "rail-7", "saw")
    ((state, text),) = found = say([one, copy])
    assert state == "failed" and text.startswith(
        f"{one[0]}:6:6: machines.2.name: {copy[0]} has the same site, node and"
    )
    assert "rail-7: both would publish under edge_asd/plant/hall/machine/…" in text
    assert say([one], copy) == found, "one that runs counts like one that was asked for"
    assert say([one], write("saw.yaml", "saw"), write("silent.yaml", "press", more="")) == []
    assert say([one], write("two.yaml", "press", node="yard")) == []
    assert say([one], write("three.yaml", "press", more="mqtt: {host: other.plant}\n")) == []
    assert len(say([one, write("tls.yaml", "press", more="mqtt: {host: Broker.plant, port: 8883}\n")])) == 1


def test_many_machines_are_one_line(write: Write) -> None:
    names = [f"m{n}" for n in range(9)]
    ((_, text),) = say([write("one.yaml", *names), write("copy.yaml", *names)])
    assert "node and m0, m1, m2, m3, m4, ...: both" in text


def test_names_that_are_one_at_the_broker(write: Write) -> None:
    one = write("press-hall.yaml", "press")
    for name in ("Press-Hall.yaml", "folder/press-hall.yaml", "press hall.yaml"):
        other = write(name, "saw")
        ((state, text),) = say([one], other)
        assert state == "failed" and text.startswith(f"{one[0]}: {other[0]} has the same site and node, and a name ")
        assert "is press-hall to the broker as well: each would end the other's connection" in text
    assert say([one], write("folder/press-hall.yaml", "saw", node="yard")) == []


def test_one_port_for_the_metrics_of_two(write: Write) -> None:
    ports = [f"metrics: {{listen: '127.0.0.1:{port}'}}\n" for port in (9464, 9464, 0, 0)]
    one, two, three, four = (write(f"{n}.yaml", f"m{n}", more=more) for n, more in enumerate(ports))
    ((state, text),) = say([one, two, three, four])
    assert state == "failed"
    assert text == f"{one[0]}:3:11: metrics.listen: 127.0.0.1:9464 is that of {two[0]} too; name another port"


def test_a_port_on_all_addresses_is_that_of_each(write: Write) -> None:
    one, two, three = (
        write(f"{n}.yaml", f"m{n}", more=f"metrics: {{listen: '{listen}'}}\n")
        for n, listen in enumerate(["0.0.0.0:9464", "127.0.0.1:9464", "127.0.0.1:9465"])
    )
    ((state, text),) = say([one, two, three])
    assert state == "failed" and text.endswith(f"0.0.0.0:9464 is that of {two[0]} too; name another port")
