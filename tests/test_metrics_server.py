"""``/metrics`` and ``/healthz`` over real connections."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_asd.detector import Detector
from edge_asd.errors import EXIT_CONFIGURATION, ConfigurationError
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.publish.metrics import Metrics, MetricsServer


class Served:
    """A server on a free port, and the health it tells."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.metrics = Metrics()
        self.complaint: str | None = None
        self.host = host
        self.server = MetricsServer((host, 0), self.metrics.registry, lambda: self.complaint)
        self.server.start()

    def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, content type and text."""
        connection = http.client.HTTPConnection(self.host, self.server.port, timeout=3)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.stop()


def test_metrics(served: Served, site: Detector) -> None:
    pipeline = Pipeline([MachineDetector.of(site, None)], AlarmSettings(threshold=2.5), hop_seconds=10.0)
    served.metrics.introduce("rail-7", pipeline)
    status, content_type, text = served.get("/metrics")
    assert status == 200 and content_type.startswith("text/plain")
    assert served.get("/metrics?x=1")[0] == 200
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert all(name.startswith("edge_asd_") and family.documentation for name, family in families.items())
    assert not [name for name in families if name.endswith("_created")]
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families.values() for s in f.samples}
    machine = ("machine", "rail-7")
    # Every series exists before anything happened.
    for result in ("scored", "gap", "idle", "late", "failed"):
        assert samples["edge_asd_windows_total", (machine, ("result", result))] == 0
    for name in ("incidents_total", "audio_frames_total", "audio_lost_frames_total"):
        assert samples[f"edge_asd_{name}", (machine,)] == 0
    for name in ("mqtt_connected", "mqtt_acknowledged_total", "mqtt_refused_total", "mqtt_unheard_total"):
        assert samples[f"edge_asd_{name}", ()] == 0
    assert samples["edge_asd_machine_rarity_threshold", (machine,)] == 2.5
    conditions = {dict(k[1])["condition"]: v for k, v in samples.items() if k[0] == "edge_asd_condition"}
    assert conditions == {"starting": 1, "normal": 0, "anomalous": 0, "idle": 0, "maintenance": 0}
    info = [dict(k[1]) for k in samples if k[0] == "edge_asd_detector_info"]
    assert info == [{"machine": "rail-7", "detector": "site.onnx", "sha256": site.sha256, "kind": "statistics"}]
    assert samples["edge_asd_scoring_duration_seconds_count", (("detector", "site.onnx"), machine)] == 0


def test_open_metrics_where_asked_for(served: Served) -> None:
    status, content_type, text = served.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200 and content_type.startswith("application/openmetrics-text") and text.endswith("# EOF\n")


def test_health(served: Served) -> None:
    assert served.get("/healthz") == (200, "text/plain", "ok\n")
    served.complaint = "rail-7: deaf"
    assert served.get("/healthz") == (503, "text/plain", "rail-7: deaf\n")


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/healthz/x", "/../etc/passwd"])
def test_other_paths(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


def test_other_methods_and_nonsense(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=3)
    connection.request("POST", "/metrics", body=b"x")
    assert connection.getresponse().status == 501
    connection.close()
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=3) as nonsense:
        nonsense.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert nonsense.recv(1000)
    assert served.get("/healthz")[0] == 200


def test_a_port_in_use_is_named(served: Served) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MetricsServer(("127.0.0.1", served.server.port), served.metrics.registry, lambda: None)
    assert str(caught.value) == f"metrics.listen: 127.0.0.1:{served.server.port}: Address already in use"
    assert caught.value.exit_status == EXIT_CONFIGURATION


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"metrics.listen: {host}:9464: "):
        MetricsServer((host, 9464), Metrics().registry, lambda: None)


def test_idle_connections_do_not_block_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_asd.publish.metrics._REQUEST_TIMEOUT_SECONDS", 2)
    served = Served()
    address = ("127.0.0.1", served.server.port)
    began = time.monotonic()
    idle = [socket.create_connection(address, timeout=10) for _ in range(20)]
    idle[0].sendall(b"GET /metrics HTT")  # half a request
    idle[1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    assert served.get("/metrics")[0] == 200
    assert time.monotonic() - began < 1
    # And they are not kept for ever.
    assert idle[0].recv(1) == b"" and idle[2].recv(1) == b""
    assert 1 < time.monotonic() - began < 5
    for one in idle:
        one.close()
    served.server.stop()


def test_ipv6() -> None:
    try:
        served = Served("::1")
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    assert served.get("/healthz")[0] == 200
    served.server.stop()


def test_stop_closes_the_port() -> None:
    served = Served()
    assert served.get("/healthz")[0] == 200
    served.server.stop()
    with pytest.raises(ConnectionRefusedError):
        served.get("/healthz")
