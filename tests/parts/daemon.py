"""``edge-asd run`` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from parts.waiting import START_SECONDS, until


class Daemon:
    """``edge-asd run`` as a process; its log lines as they come."""

    def __init__(self, config: Path, *options: str, **environment: str) -> None:
        self.log: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self.errors = config.with_suffix(".err")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_asd.cli", "run", "-c", str(config), "--log", "json", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Each test has a state of its own: an incident must not live on in the next test's daemon.
                env=os.environ | {"XDG_STATE_HOME": str(config.parent / "state")} | environment,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.other_lines.append(line)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def wait_for(self, name: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        def there() -> list[dict[str, Any]]:
            assert self.process.poll() is None, f"the daemon has ended: {self.errors.read_text()}"
            return self.events(name)

        found: dict[str, Any] = until(there, f"the daemon's {name}", seconds)[0]
        return found

    def get(self, path: str) -> tuple[int, str]:
        port = self.wait_for("ready")["metrics"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Value of a sample, labels and all as they are written."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, f"{name} is not among the metrics"
        return float(found[1])

    def terminate(self) -> int:
        """Exit status after SIGTERM; what was written to standard error must be nothing."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        self._reader.join(5)
        assert (self.errors.read_text(), self.other_lines) == ("", [])
        return status

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def write_config(path: Path, *machines: str, mqtt: str | None, device: str | None = None) -> Path:
    """Machines as YAML mappings; ``mqtt`` and ``device`` likewise."""
    lines = ["site: plant-3", "node: hall", 'metrics: {listen: "127.0.0.1:0"}']
    lines += [f"device: {{{device}}}"] if device is not None else []
    lines += [f"mqtt: {{{mqtt}}}"] if mqtt is not None else []
    path.write_text("\n".join([*lines, "machines:", *(f"  - {{{m}}}" for m in machines)]) + "\n")
    return path
