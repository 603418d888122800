"""A fresh Debian with a real systemd, booted in a container (root; mmdebstrap and systemd-container)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from parts.waiting import until

_PACKAGES = "systemd,systemd-sysv,dbus,python3,procps,man-db,libportaudio2"
"""What a fresh PC has, and what our package depends on: so the tests need a mirror once, when the image is made."""
_BOOT_SECONDS = 60.0


def make_image(image: Path) -> Path:
    """A tar file of the root; made once, half a minute."""
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        fresh = image.with_suffix(".part.tar")
        sources = "/etc/apt/sources.list.d/debian.sources"
        no_more = 'APT::Install-Recommends "false"'
        command = ["mmdebstrap", "--variant=apt", f"--include={_PACKAGES}", f"--aptopt={no_more}"]
        codename = _codename()
        mirror = [sources] if Path(sources).exists() else []
        subprocess.run([*command, codename, str(fresh), *mirror], check=True, capture_output=True)
        fresh.rename(image)
    return image


class Container:
    """Boots at once; `close` powers it off."""

    def __init__(self, image: Path, folder: Path) -> None:
        """
        Args:
            image: as `make_image` gives it.
            folder: for the root and the console's output; must not exist.
        """
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        subprocess.run(["tar", "-xf", str(image), "-C", str(self.root)], check=True)
        (self.root / "etc/hostname").write_text("factory-pc\n")
        (self.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")  # no first boot
        self._console = folder / "console.log"
        program = shutil.which("systemd-nspawn")
        assert program is not None, "systemd-nspawn is not installed: make test-package"
        options = ["--boot", "--register=no", "--keep-unit", "--link-journal=no", "--console=pipe"]
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                [program, "-D", str(self.root), *options], stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        self._leader = 0
        try:
            until(self._has_booted, "the container's systemd", _BOOT_SECONDS)
        except BaseException:
            self.close()
            raise

    def run(self, *command: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """A command in the container."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "250",
        }
        done = subprocess.run(
            [*enter, *command], capture_output=True, text=True, check=False, env=environment, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as ``systemctl show`` gives it."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def log(self, unit: str, *options: str) -> list[dict[str, Any]]:
        """The daemon's lines in the journal: ``event`` and ``priority``, and the fields.

        Args:
            unit: whose.
            options: of journalctl.
        """
        said = self.run("journalctl", "--output=json", "--unit", unit, *options, check=False).stdout
        entries = [json.loads(line) for line in said.splitlines()]
        lines = [(str(e["MESSAGE"]), int(e["PRIORITY"])) for e in entries if e.get("_TRANSPORT") == "stdout"]
        return [{"event": text.split()[0], "priority": priority, **_fields(text)} for text, priority in lines if text]

    def close(self) -> None:
        """Power off."""
        if self._nspawn.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if self._leader:
                    os.kill(self._leader, signal.SIGRTMIN + 4)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(40)
                return
            self._nspawn.terminate()
            self._nspawn.wait(20)

    def _find_leader(self) -> int:
        assert self._nspawn.poll() is None, self._console.read_text(errors="replace")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        return int(next(iter(children.read_text().split()), 0))

    def _has_booted(self) -> bool:
        # Looked for each time: nspawn's first child is not yet the one that stays.
        self._leader = self._find_leader()
        if not self._leader:
            return False
        time.sleep(0.3)  # asked without a pause, systemd gets to nothing else
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")


def _fields(text: str) -> dict[str, Any]:
    found = re.findall(r'(?<= )(\w+)=("(?:[^"\\]|\\.)*"|[{[].*?[]}](?= \w+=|$)|\S+)', text)
    values: dict[str, Any] = {}
    for key, value in found:
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def _codename() -> str:
    lines = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return lines["VERSION_CODENAME"].strip('"')
