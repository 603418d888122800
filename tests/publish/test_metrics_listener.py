"""An address that this computer gets later, a port that another program has: the metrics are served once it can be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time

import pytest
from parts.metrics_server import Served
from parts.waiting import until

from edge_asd.publish import metrics_listener, metrics_server
from edge_asd.publish.metrics_listener import is_there


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_is_not_there_yet_is_told_and_waited_for(host: str) -> None:
    """A network that comes up late must not end the daemon for good."""
    with Served(host) as served:
        (line,) = [line for line in served.log if line["event"] == "metrics_address_missing"]
        assert line["level"] == "warning" and f"does not have the address {host} now" in line["hint"]
        assert not is_there(host) and is_there("127.0.0.1") and is_there("0.0.0.0")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip")
def test_it_is_served_once_the_address_is_there() -> None:
    address = ["192.0.2.77/32", "dev", "lo"]
    with Served("192.0.2.77") as served:
        if subprocess.run(["ip", "address", "add", *address], capture_output=True, check=False).returncode:
            pytest.skip("no address can be added here")
        try:
            assert served.get("/healthz")[0] == 200
        finally:
            subprocess.run(["ip", "address", "del", *address], check=True)


def test_a_port_in_use_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the daemon before, or by anybody: the machines are heard all the same."""
    monkeypatch.setattr(metrics_server, "_RETRY_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        second = Served(port=port)
        assert second.server.port is None
        (line,) = second.log
        assert (line["event"], line["level"]) == ("metrics_not_served", "warning")
        assert line["error"] == f"metrics.listen: 127.0.0.1:{port}: Address already in use"
    try:
        until(lambda: second.server.port == port, "the port")
        assert second.get("/healthz")[0] == 200
        assert second.log[1]["event"] == "metrics_served"
    finally:
        second.server.stop()


def test_a_name_that_nobody_knows_yet_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer may start before its network knows names."""
    monkeypatch.setattr(metrics_server, "_RETRY_SECONDS", 0.1)
    bound, names = metrics_listener.bound, {"press-pc.invalid": "127.0.0.1"}
    with Served("press-pc.invalid") as served:
        assert served.server.port is None
        assert [line["event"] for line in served.log] == ["metrics_not_served"]
        monkeypatch.setattr(metrics_listener, "bound", lambda host, port: bound(names[host], port))  # now it is known
        until(lambda: served.server.port, "the port")
        served.host = "127.0.0.1"
        assert served.get("/healthz")[0] == 200


def test_who_waits_for_a_port_stops_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with Served(port=taken.getsockname()[1]) as served:
            began = time.monotonic()
            served.server.stop()
        assert time.monotonic() - began < 1
