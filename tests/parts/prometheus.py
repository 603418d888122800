"""Prometheus and Alertmanager as processes, and somebody who is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from parts.waiting import free_port, until


class Process:
    """A server with a health page, that writes its log into a file."""

    def __init__(self, command: list[str], log: Path, port: int, ready: str = "/-/ready") -> None:
        program = shutil.which(command[0])
        assert program is not None, f"{command[0]} is not installed: make apt"
        self.port, self.log = port, log
        with log.open("ab") as out:
            self.process = subprocess.Popen([program, *command[1:]], stdout=out, stderr=out, cwd=log.parent)
        until(lambda: self._answers(ready), f"{command[0]} on {port}", 30)

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(15)


class Prometheus(Process):
    """One that runs a configuration's file; data lie beside it."""

    def __init__(self, config: Path, *options: str) -> None:
        port = free_port()
        super().__init__(
            [
                "prometheus",
                f"--config.file={config}",
                f"--web.listen-address=127.0.0.1:{port}",
                *(options or (f"--storage.tsdb.path={config.parent / 'data'}",)),
            ],
            config.parent / f"{config.stem}.log",
            port,
        )

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now; an error of Prometheus' is one here."""
        text = urllib.parse.urlencode({"query": expr})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{text}", timeout=10) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expr}: {error.read().decode()}") from None
        assert document["status"] == "success", document
        result: list[dict[str, Any]] = document["data"]["result"]
        return result


class Alertmanager(Process):
    def __init__(self, config: Path) -> None:
        port = free_port()
        super().__init__(
            [
                "prometheus-alertmanager" if shutil.which("alertmanager") is None else "alertmanager",
                f"--config.file={config}",
                f"--storage.path={config.parent / 'alertmanager-data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            config.parent / "alertmanager.log",
            port,
        )


class Told:
    """A webhook: every alert that Alertmanager sends."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.alerts += document["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, name: str, status: str = "firing", **labels: str) -> list[dict[str, Any]]:
        return [
            a
            for a in self.alerts
            if a["labels"]["alertname"] == name and a["status"] == status and labels.items() <= a["labels"].items()
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
