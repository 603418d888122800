"""``/metrics`` and ``/healthz`` over real connections: what is answered to whom."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts.metrics_server import Served
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from edge_asd.config_publish import MetricsSection
from edge_asd.errors import ConfigurationError
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.publish.log import Log
from edge_asd.publish.metrics_server import MetricsServer
from edge_asd.verification import load_detector


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    """Answers prometheus, whose password is s3:crêt."""
    password = tmp_path / "password"
    password.write_text("s3:crêt\r\nand a second line\n", encoding="utf-8")
    with Served(username="prometheus", password_file=password) as served:
        yield served


def unserved(port: int, host: str = "127.0.0.1") -> MetricsServer:
    """A server that is not started."""
    return MetricsServer(MetricsSection(listen=f"{host}:{port}"), CollectorRegistry(), lambda: None, Log(io.StringIO()))


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


# ------------------------------------------------------------------------------------------------------ what is there


def test_metrics(served: Served, tiny: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "site.onnx").write_bytes(tiny())
    site = load_detector(tmp_path / "site.onnx")
    pipeline = Pipeline([MachineDetector.of(site, None)], AlarmSettings(threshold=2.5), hop_seconds=10.0)
    served.metrics.introduce("rail-7", pipeline)
    status, headers, body = served.get("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert served.get("/metrics?x=1")[0] == 200
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    assert all(name.startswith(("edge_asd_", "process_")) for name in families)
    assert all(family.documentation for family in families.values())
    assert not [name for name in families if name.endswith("_created")]
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families.values() for s in f.samples}
    machine = ("machine", "rail-7")
    detector = ("detector", "site.onnx")
    # Every series exists before anything happened; what cannot be known yet is not a number.
    for result in ("scored", "gap", "idle", "late", "failed"):
        assert samples["edge_asd_windows_total", (machine, ("result", result))] == 0
    for name in ("incidents_total", "audio_frames_total", "audio_lost_frames_total", "last_score_timestamp_seconds"):
        assert samples[f"edge_asd_{name}", (machine,)] == 0
    for name in ("machine_rarity", "audio_level_dbfs"):
        assert samples[f"edge_asd_{name}", (machine,)] != samples[f"edge_asd_{name}", (machine,)]
    assert samples["edge_asd_detector_score", (detector, machine)] != 0
    for name in ("mqtt_acknowledged_total", "mqtt_refused_total", "mqtt_unheard_total"):
        assert samples[f"edge_asd_{name}", ()] == 0
    assert samples["edge_asd_machine_rarity_threshold", (machine,)] == 2.5
    conditions = {dict(k[1])["condition"]: v for k, v in samples.items() if k[0] == "edge_asd_condition"}
    assert conditions == {"starting": 1, "normal": 0, "anomalous": 0, "idle": 0, "maintenance": 0}
    info = [dict(k[1]) for k in samples if k[0] == "edge_asd_detector_info"]
    assert info == [{"machine": "rail-7", "detector": "site.onnx", "sha256": site.sha256, "kind": "tiny"}]
    assert samples["edge_asd_scoring_duration_seconds_count", (detector, machine)] == 0


def test_the_process_itself_is_measured(served: Served) -> None:
    text = served.get("/metrics")[2].decode()
    families = {f.name: f.samples[0].value for f in text_string_to_metric_families(text) if f.samples}
    assert 10e6 < families["process_resident_memory_bytes"] < 10e9
    assert families["process_cpu_seconds"] == pytest.approx(sum(os.times()[:2]), abs=5)
    assert time.time() - 3600 * 24 < families["process_start_time_seconds"] < time.time()
    assert "python_info" not in families


def test_open_metrics_where_asked_for(served: Served) -> None:
    asks = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    status, headers, body = served.get("/metrics", Accept=asks)
    assert status == 200 and headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    # A version that is none is no reason to fail, nor is it repeated in the answer.
    for nonsense in ("application/openmetrics-text; version=x", "text/plain; version=%00", "*/*", ";;,,="):
        status, headers, body = served.get("/metrics", Accept=nonsense)
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_packed_where_accepted(served: Served) -> None:
    status, headers, body = served.get("/metrics", Accept_Encoding="deflate, GZIP;q=0.5")
    assert (status, headers["Content-Encoding"]) == (200, "gzip") and "Accept-Encoding" in headers["Vary"]
    assert b"edge_asd_build_info" in gzip.decompress(body)
    for refusal in ("gzip;q=0", "gzip; q=0.00", "br", "", "xgzip"):
        _, headers, body = served.get("/metrics", Accept_Encoding=refusal)
        assert headers["Content-Encoding"] is None and b"edge_asd_build_info" in body
    assert served.get("/healthz", Accept_Encoding="gzip")[1]["Content-Encoding"] is None


def test_health(served: Served) -> None:
    status, headers, body = served.get("/healthz")
    assert (status, headers["Content-Type"], body) == (200, "text/plain; charset=utf-8", b"ok\n")
    served.complaint = "rail-7: deaf"
    status, _, body = served.get("/healthz")
    assert (status, body) == (503, b"rail-7: deaf\n")


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/healthz/x", "/../etc/passwd", "/%6detrics"])
def test_other_paths(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


def test_head_has_no_body(served: Served) -> None:
    connection = http.client.HTTPConnection(*served.address, timeout=3)
    for path in ("/metrics", "/healthz"):  # on one connection: a body would be taken for the next answer
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read() == b"" and int(answer.headers["Content-Length"]) > 0
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(served: Served, method: str) -> None:
    status, headers, _ = served.get("/metrics", method)
    assert (status, headers["Allow"], headers["Connection"]) == (405, "GET, HEAD", "close")


def test_a_metric_that_cannot_be_read_is_told(served: Served) -> None:
    class Broken(Collector):
        is_broken = True

        def collect(self) -> Iterator[GaugeMetricFamily]:
            if self.is_broken:
                raise RuntimeError("no such sensor")
            yield GaugeMetricFamily("edge_asd_sensor", "Whole again.", 1)

    Broken.is_broken = False
    broken = Broken()
    served.metrics.registry.register(broken)
    Broken.is_broken = True
    assert served.get("/metrics")[0] == 500 and served.get("/metrics")[0] == 500
    assert served.get("/healthz")[0] == 200
    (line,) = served.log  # told once a minute
    assert (line["event"], "no such sensor" in line["error"]) == ("metrics_error", True)
    Broken.is_broken = False
    assert b"edge_asd_sensor 1.0" in served.get("/metrics")[2]


def test_a_rendering_is_shared_for_as_long_as_it_is_expensive(served: Served) -> None:
    class Slow(Collector):
        rendered = 0

        def collect(self) -> Iterator[GaugeMetricFamily]:
            self.rendered += 1
            time.sleep(0.05)
            yield GaugeMetricFamily("edge_asd_slow", "Takes its time.", self.rendered)

    slow = Slow()
    served.metrics.registry.register(slow)
    slow.rendered = 0
    ends = time.monotonic() + 1.0
    scrapes = 0
    while time.monotonic() < ends:
        scrapes += 1
        assert served.get("/metrics", Accept=f"text/plain;version=1.0.{scrapes}")[0] == 200
    assert scrapes > 30 and 2 <= slow.rendered <= 5, (scrapes, slow.rendered)


# ------------------------------------------------------------------------------------------------------ who may read


def test_a_password_is_asked_for(guarded: Served) -> None:
    for path in ("/metrics", "/healthz", "/secret"):
        status, headers, body = guarded.get(path)
        assert status == 401 and headers["WWW-Authenticate"].startswith('Basic realm="edge_asd"')
        assert headers["Connection"] == "close" and b"edge_asd_" not in body
    assert guarded.log == []  # browsers and people try it so
    right = basic("prometheus:s3:crêt")
    assert guarded.get("/metrics", Authorization=right)[0] == 200
    assert guarded.get("/healthz", Authorization=right.replace("Basic", "basic "))[0] == 200
    assert guarded.get("/", Authorization=right)[0] == 404


@pytest.mark.parametrize(
    "given",
    [
        basic("prometheus:s3cret"),
        basic("prometheus:"),
        basic("prometheus"),
        basic(":"),
        basic("Prometheus:s3:crêt"),
        basic("prometheus:s3:crêt\n"),
        basic("prometheus:s3:crêt").replace("Basic", "Bearer"),
        basic("prometheus:s3:crêt") + "!",
        basic("prometheus:s3:crêt") + ", Basic x",
        "Basic",
        "Basic \xe4\xf6",
        "",
    ],
)
def test_a_wrong_password(guarded: Served, given: str) -> None:
    for _ in range(2):
        assert guarded.get("/metrics", Authorization=given)[0] == 401
    (line,) = guarded.log
    assert (line["event"], line["level"], line["peer"]) == ("metrics_login_refused", "warning", "127.0.0.1")


def test_a_password_that_is_not_there(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\nsecond\n")
    for file, words in [(tmp_path / "none", "no such file"), (empty, "first line is empty"), (tmp_path, "directory")]:
        with pytest.raises(ConfigurationError, match=rf"^metrics\.password_file: {file}: .*{words}"):
            Served(username="prometheus", password_file=file)


# ------------------------------------------------------------------------------------------------------ where it is


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_port_of_roots_says_what_to_do() -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(
            ConfigurationError, match=r"^metrics.listen: 127.0.0.1:80: Permission denied: ports below 1024"
        ):
            unserved(80)
    finally:
        os.seteuid(0)


def test_ipv6() -> None:
    try:
        served = Served("::1")
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    with served:
        assert served.get("/healthz")[0] == 200
        assert served.log == []


def test_a_port_that_is_open_to_everybody_is_warned_of(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret")
    for login, hint in [({}, "give username"), ({"username": "a", "password_file": password}, "unencrypted; give tls")]:
        with Served("0.0.0.0", **login) as served:
            (line,) = served.log
            assert (line["event"], line["level"], line["listen"]) == ("metrics_open", "warning", "0.0.0.0:0")
            assert hint in line["hint"]
    with Served("127.0.0.2") as served:
        assert served.log == []


def test_stop_closes_the_port_at_once_whoever_is_connected() -> None:
    served = Served()
    assert served.get("/healthz")[0] == 200
    peers = [served.connect() for _ in range(50)]
    peers[0].sendall(b"GET /metrics HT")
    began = time.monotonic()
    served.server.stop()
    assert time.monotonic() - began < 0.5
    with pytest.raises(ConnectionRefusedError):
        served.get("/healthz")
    for peer in peers:
        with peer, contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""


def test_one_that_never_served_can_be_stopped() -> None:
    unused = unserved(0)
    unused.stop()
    unserved(unused.port).stop()
