"""Verifies a detector file in a child process, once per content, before anything trusts it.

ONNX Runtime can crash, loop or take all memory on a hostile or damaged file. The child has limits on time and memory;
only its verdict comes back. A file that passed is remembered by its sha256 and by the runtime that verified it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from edge_asd.detector import Detector, one_line, read_detector_file
from edge_asd.errors import DetectorError

TIME_LIMIT_SECONDS = 30
MEMORY_LIMIT_BYTES = 3 * 2**30


def load_detector(path: Path, cache: Path | None = None, known: Mapping[str, Detector] | None = None) -> Detector:
    """Read, verify and load a detector.

    Args:
        path: the file.
        cache: folder that remembers which files passed; `default_cache` unless given.
        known: detectors that are loaded, by sha256: the same content is not loaded again.

    Raises:
        DetectorError: it cannot be trusted; the message says why.
    """
    content = read_detector_file(path)
    loaded = (known or {}).get(hashlib.sha256(content).hexdigest())
    if loaded is not None:
        return loaded
    verify(path, content, cache if cache is not None else default_cache())
    return Detector(path, content)


def verify(path: Path, content: bytes, cache: Path) -> None:
    """Verify the content of a detector file in a child process unless it is known to have passed.

    Raises:
        DetectorError: it did not pass, or took too much time or memory.
    """
    passed = cache / f"{hashlib.sha256(content).hexdigest()}.{_runtime()}.verified"
    if passed.exists():
        return
    with tempfile.NamedTemporaryFile(prefix="edge-asd-", suffix=".onnx") as copy:
        # The child reads what was hashed, even if the file is replaced meanwhile.
        copy.write(content)
        copy.flush()
        verdict = _verdict_of_child(path, Path(copy.name))
    if verdict:
        raise DetectorError(path, verdict)
    with contextlib.suppress(OSError):
        # Without a writable cache, each start verifies anew: slower, never less safe.
        cache.mkdir(parents=True, exist_ok=True)
        passed.touch()


def default_cache() -> Path:
    """systemd's cache folder, else the user's."""
    given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given) / "verified"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "edge-asd" / "verified"
    except RuntimeError:  # a user without a home has no cache: a folder that cannot be made stands for it
        return Path(os.devnull) / "verified"


def _runtime() -> str:
    """Another runtime, Python or processor may compute differently: what it verified does not count."""
    parts = version("onnxruntime"), version("edge-asd"), platform.machine(), platform.processor(), sys.version
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def _verdict_of_child(path: Path, copy: Path) -> str:
    """Empty if the file passed, else what is wrong with it."""
    # -P: whatever lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "edge_asd.verification", str(copy), str(path)]
    try:
        child = subprocess.run(
            command, capture_output=True, timeout=TIME_LIMIT_SECONDS, check=False, encoding="utf-8", errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"takes more than {TIME_LIMIT_SECONDS} s to load and check itself"
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        if "MemoryError" in child.stderr or "bad_alloc" in child.stderr:
            return f"needs more than {MEMORY_LIMIT_BYTES / 2**30:.0f} GB to load and check itself"
        return f"breaks the ONNX runtime (exit status {child.returncode} while verifying)"
    return str(answer["refused"])


def _main(copy: Path, path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT_SECONDS, TIME_LIMIT_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # onnxruntime prints on standard output at times; the verdict alone shall stand there.
    verdict = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    refused = ""
    try:
        detector = Detector(path, copy.read_bytes())
        detector.check_itself()
    except DetectorError as error:
        refused = error.reason
    except Exception as error:  # the verdict on a file is never a traceback
        refused = f"cannot be checked: {one_line(error)}"
    with verdict:
        json.dump({"refused": refused}, verdict)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
