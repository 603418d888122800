"""The metrics of the real daemon: with a crowd at the door, and scraped by a real Prometheus with TLS and password."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from parts.certificates import Authority
from parts.daemon import Daemon, write_config
from parts.waiting import free_port, until

import edge_asd.demo
from edge_asd.demo.clips import write_dataset
from edge_asd.pipeline import Result

pytestmark = pytest.mark.system

RATE = 16_000
DETECTOR = Path(edge_asd.demo.__file__).parent / "slide-rail.cae.onnx"
ALONE_SECONDS = 6.0
HOLD_SECONDS = 10.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_dataset(folder, seed=3, ids=("id_00",), train_clips=4, test_normal=1, test_per_fault=1)
    return folder / "slider" / "train"


@pytest.fixture
def start(tmp_path: Path, sound: Path) -> Iterator[Callable[[str], Daemon]]:
    """Starts a daemon of two machines whose section ``metrics`` is given, in YAML; ends it after the test."""
    started: list[Daemon] = []

    def start(metrics: str) -> Daemon:
        machines = [
            f"name: {name}, recordings: {sound}, repeat: true, detectors: [{DETECTOR}], hop_seconds: 1"
            for name in ("rail-7", "rail-8")
        ]
        config = write_config(tmp_path / "press.yaml", *machines, mqtt=None)
        config.write_text(config.read_text().replace('{listen: "127.0.0.1:0"}', f"{{{metrics}}}"))
        started.append(Daemon(config))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


@pytest.mark.parametrize("kind", ["idle", "half-open", "coming again"])
def test_500_connections_neither_slow_a_scrape_nor_touch_the_sound(
    start: Callable[[str], Daemon], tmp_path: Path, kind: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2000)), hard))
    authority = Authority(tmp_path / "plant")
    certificate, key = authority.issue("hall")
    daemon = start(f'listen: "127.0.0.1:0", tls: {{certificate: {certificate}, key: {key}}}')
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    port = daemon.wait_for("ready")["metrics"]
    began = time.monotonic()

    def scrape() -> str:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", timeout=5, context=trusting) as answer:
            text: str = answer.read().decode()
            return text

    def scrapes(seconds: float) -> list[float]:
        """How long each took, in rising order."""
        end, took = time.monotonic() + seconds, []
        while time.monotonic() < end:
            asked = time.perf_counter()
            scrape()
            took.append(time.perf_counter() - asked)
            time.sleep(0.05)
        return sorted(took)

    def p99(took: list[float]) -> float:
        return took[int(len(took) * 0.99) - 1]

    def value(text: str, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])

    alone = scrapes(ALONE_SECONDS)
    with contextlib.ExitStack() as crowd:
        leaving = threading.Event()
        for _ in range(500):
            peer = crowd.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            if kind == "half-open":
                with contextlib.suppress(OSError):
                    peer.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        if kind == "coming again":  # a hundred new ones a second, each of which pushes out another

            def come() -> None:
                while not leaving.wait(0.01):
                    crowd.enter_context(socket.create_connection(("127.0.0.1", port), 5))

            comer = threading.Thread(target=come)
            comer.start()
            crowd.callback(comer.join)
            crowd.callback(leaving.set)
        beside = scrapes(HOLD_SECONDS)
        print(f"{kind}: {len(beside)} scrapes, p99 {p99(beside):.4f} s; alone {p99(alone):.4f} s")
        # A computer that has other things to do is slow to everybody.
        assert p99(beside) < max(0.1, 5 * p99(alone)), beside[-5:]
        text = scrape()
        for machine in ("rail-7", "rail-8"):
            labels = f'{{machine="{machine}"}}'
            heard = value(text, f"edge_asd_audio_frames_total{labels}")
            assert value(text, f"edge_asd_audio_lost_frames_total{labels}") == 0
            assert heard == pytest.approx((time.monotonic() - began) * RATE, abs=1.0 * RATE)
            for result in ("late", "gap", "failed"):
                assert value(text, f'edge_asd_windows_total{{machine="{machine}",result="{result}"}}') == 0
            assert value(text, f'edge_asd_windows_total{{machine="{machine}",result="scored"}}') >= 3
    assert daemon.terminate() == 0


def test_prometheus_scrapes_over_tls_with_a_password(start: Callable[[str], Daemon], tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    assert program is not None, "prometheus is not installed: make apt"
    authority = Authority(tmp_path / "plant")
    certificate, key = authority.issue("hall")
    password = tmp_path / "metrics-password"
    password.write_text("s3cret\n")
    tls = f"tls: {{certificate: {certificate}, key: {key}}}"
    daemon = start(f'listen: "127.0.0.1:0", {tls}, username: prometheus, password_file: {password}')
    port, own = daemon.wait_for("ready")["metrics"], free_port()
    (tmp_path / "wrong").write_text("s3crat")

    def job(name: str, password_file: Path, scheme: str = "https") -> dict[str, Any]:
        return {
            "job_name": name,
            "scheme": scheme,
            "basic_auth": {"username": "prometheus", "password_file": str(password_file)},
            "tls_config": {"ca_file": str(authority.certificate)},
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }

    jobs = [job("right", password), job("wrong", tmp_path / "wrong"), job("plain", password, "http")]
    jobs[2].pop("tls_config")
    config = tmp_path / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    with (tmp_path / "prometheus.log").open("wb") as log:
        prometheus = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            stdout=log,
            stderr=log,
        )

    def ask(path: str) -> Any:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{own}{path}", timeout=5) as answer:
            return json.load(answer)["data"]

    def targets() -> dict[str, tuple[str, str]] | None:
        found = {
            t["labels"]["job"]: (t["health"], t["lastError"])
            for t in (ask("/api/v1/targets") or {"activeTargets": []})["activeTargets"]
        }
        return found if len(found) == 3 and all(health != "unknown" for health, _ in found.values()) else None

    def query(expression: str) -> list[float]:
        results = (ask(f"/api/v1/query?query={urllib.request.quote(expression)}") or {"result": []})["result"]
        return [float(r["value"][1]) for r in results]

    try:
        health = until(targets, "three scrapes")
        assert health["right"] == ("up", "")
        assert health["wrong"][0] == "down" and "401" in health["wrong"][1]
        assert health["plain"][0] == "down" and "400" in health["plain"][1]
        until(lambda: query('rate(edge_asd_audio_frames_total{job="right"}[10s]) > 8000'), "a rate of samples")
        assert len(query("edge_asd_windows_total")) == 2 * len(get_args(Result))
        assert query('process_resident_memory_bytes{job="right"}')[0] > 20e6
    finally:
        prometheus.terminate()
        prometheus.wait(10)
    refused = daemon.events("metrics_login_refused")
    assert [line["peer"] for line in refused] == ["127.0.0.1"]  # once a minute
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    login = base64.b64encode(b"prometheus:s3cret").decode()
    request = urllib.request.Request(f"https://127.0.0.1:{port}/healthz", headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=5, context=trusting) as answer:
        assert answer.read() == b"ok\n"
    assert "s3cret" not in json.dumps(daemon.log)
    assert daemon.terminate() == 0
