"""A metrics server on a free port, and those who ask it, well and badly."""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import time
from types import TracebackType
from typing import Any

from edge_asd.config_publish import MetricsSection
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.metrics_server import MetricsServer


class Served:
    """The server, the health it tells and what it logs."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        self.metrics = Metrics()
        self.complaint: str | None = None
        self.host = host
        self._written = io.StringIO()
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        section = MetricsSection(listen=listen, **settings)
        self.server = MetricsServer(section, self.metrics.registry, lambda: self.complaint, Log(self._written))
        self.server.start()

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()

    @property
    def address(self) -> tuple[str, int]:
        assert self.server.port is not None
        return self.host, self.server.port

    @property
    def log(self) -> list[dict[str, Any]]:
        """What was logged so far; its thread is given a moment."""
        time.sleep(0.05)
        return [json.loads(line) for line in self._written.getvalue().splitlines()]

    def connect(self) -> socket.socket:
        """A plain connection."""
        return socket.create_connection(self.address, timeout=10)

    def get(
        self, path: str, method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body, on a connection of its own; underscores in headers' names stand for hyphens."""
        connection = (
            http.client.HTTPConnection(*self.address, timeout=10)
            if tls is None
            else http.client.HTTPSConnection(*self.address, timeout=10, context=tls)
        )
        try:
            connection.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def say(self, words: bytes) -> bytes:
        """Send bytes as they are, and read until the server closes."""
        with self.connect() as peer:
            peer.sendall(words)
            return read_all(peer)


def read_all(peer: socket.socket) -> bytes:
    """Until the other side closes."""
    parts = []
    while part := peer.recv(65_536):
        parts.append(part)
    return b"".join(parts)
