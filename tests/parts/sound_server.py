"""PulseAudio with virtual microphones: what is played into one is captured through PortAudio, in real time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from parts.waiting import until


@dataclass(frozen=True)
class VirtualMicrophone:
    """A null sink whose monitor is a source."""

    name: str
    rate: int = 16_000
    channels: int = 1


class SoundServer:
    """One PulseAudio with a socket and a configuration of its own."""

    def __init__(self, folder: Path, *microphones: VirtualMicrophone) -> None:
        assert shutil.which("pulseaudio") is not None, "pulseaudio is not installed: make apt"
        self.folder = folder
        self.microphones = microphones or (VirtualMicrophone("vmic"), VirtualMicrophone("other"))
        self.socket = folder / "run" / "pulse.sock"
        self.socket.parent.mkdir(parents=True, mode=0o700)
        self.environment = {
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PULSE_SERVER": f"unix:{self.socket}",
            "HOME": str(folder),
        }
        lines = [f"load-module module-native-protocol-unix auth-anonymous=1 socket={self.socket}"]
        for mic in self.microphones:
            lines.append(
                f"load-module module-null-sink sink_name={mic.name}_sink rate={mic.rate} channels={mic.channels} "
                "format=s16le norewinds=1"  # else the first block can come 2 s late
            )
            lines.append(f"load-module {self._source(mic.name)}")
        lines += [f"set-default-sink {self.microphones[-1].name}_sink"]
        lines += [f"set-default-source {self.microphones[-1].name}"]
        (folder / "pulse.pa").write_text("\n".join(lines) + "\n")
        (folder / ".asoundrc").write_text(
            "".join(
                f'pcm.{m.name} {{ type pulse  device {m.name}  hint {{ show on description "{m.name}" }} }}\n'
                for m in self.microphones
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> SoundServer:
        self.socket.unlink(missing_ok=True)
        with (self.folder / "pulse.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["pulseaudio", "-n", "-F", "pulse.pa", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"],
                cwd=self.folder,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._control("info", check=False) == 0, "the sound server")
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def unload(self, name: str) -> None:
        """Take a source away; its streams are moved to another."""
        listed = self._output("list", "short", "modules")
        (module,) = [line.split("\t")[0] for line in listed.splitlines() if f"source_name={name}" in line]
        self._control("unload-module", module)

    def load(self, name: str) -> None:
        """And bring it back."""
        self._control("load-module", *self._source(name).split())

    def suspend(self, name: str, is_suspended: bool) -> None:
        self._control("suspend-source", name, "1" if is_suspended else "0")

    def play(self, recording: Path, name: str = "vmic") -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["paplay", f"--device={name}_sink", str(recording)],
            env=os.environ | self.environment,
            stderr=subprocess.DEVNULL,
        )

    @staticmethod
    def _source(name: str) -> str:
        return f"module-remap-source source_name={name} master={name}_sink.monitor"

    def _control(self, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            ["pactl", *arguments], env=os.environ | self.environment, capture_output=True, timeout=10, check=check
        )
        return done.returncode

    def _output(self, *arguments: str) -> str:
        done = subprocess.run(
            ["pactl", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout
