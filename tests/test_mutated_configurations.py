"""Whatever is written into a configuration: it is read, or refused in lines that name the place; never a traceback."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mutations import as_yaml, mutated_bytes, mutated_document, mutated_text, without_comments

from edge_asd import strict_yaml
from edge_asd.config import Config
from edge_asd.config_file import load_config
from edge_asd.errors import EXIT_CONFIGURATION, ConfigurationError

EXAMPLE = Path(__file__).parents[1] / "deploy" / "edge-asd.example.yaml"
MOST_SECONDS = 5.0
WHOLE_FILE = re.compile(r": (is not a file|is larger than|No such)")


def mutation(seed: int) -> bytes:
    """One of them; its number is all that is needed to see it again."""
    rng = random.Random(seed)
    full = EXAMPLE.read_text(encoding="utf-8")
    text = full if seed % 50 == 0 else without_comments(full)
    match seed % 10:
        case 0 | 1 | 2 | 3:
            return mutated_text(text, rng).encode("utf-8", "surrogatepass")
        case 4:
            return mutated_bytes(text.encode(), rng)
        case _:
            document: Any = mutated_document(strict_yaml.load(text).value, rng)
            written = as_yaml(document, rng) + "\n"
            return (mutated_text(written, rng) if seed % 30 == 9 else written).encode("utf-8", "surrogatepass")


def outcome(path: Path, content: bytes) -> bool:
    """Whether it is read; fails the test for anything but that and an error with a place."""
    path.write_bytes(content)
    began = time.process_time()
    try:
        assert isinstance(load_config(path), Config)
        return True
    except ConfigurationError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 21
        for line in lines:
            assert re.match(re.escape(str(path)) + r":\d+:\d+: \S", line) or WHOLE_FILE.search(line), ascii(line)
            assert len(line) < 1000 and line.isprintable(), ascii(line)[:500]
        return False
    finally:
        assert time.process_time() - began < MOST_SECONDS


def read_all(path: Path, seeds: range) -> int:
    """How many of the mutations with these numbers are read."""
    read = 0
    for seed in seeds:
        content = mutation(seed)
        try:
            read += outcome(path, content)
        except Exception as error:
            raise AssertionError(f"mutation {seed}: {error!r}; it is kept as {path}") from error
    return read


def test_hundreds_of_mutations_are_read_or_refused_with_a_place(tmp_path: Path) -> None:
    read = read_all(tmp_path / "hall.yaml", range(300))
    assert 10 < read < 200, "the mutations are either too mild or too wild to say anything"


@pytest.mark.system
def test_ten_thousand_mutations_are_read_or_refused_with_a_place(tmp_path: Path) -> None:
    assert read_all(tmp_path / "hall.yaml", range(1000, 11_000)) > 300


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 10_000,
        b"\xff\xfe" + "site: a\n".encode("utf-16-le"),
        os.urandom(1000),
        b"a: " * 100_000,
        b"site: " + b"[" * 100_000,
        b"\n" * 400_000 + b"site",
        b"site: \x80",
        b"a" * 499_999,
        b"#" * 10_000_000,
        b'"' + b"\\x41" * 100_000,
        b"site: {" + b"a: {" * 19 + b"}" * 20,
        b"\n".join(b"k%d: 1" % n for n in range(14_000)),
        b"site: a\nnode: b\nmachines:\n" + b"  - {name: m, recordings: r, hop: 1}\n" * 3000,
    ],
    ids=range(13),
)
def test_hostile_files_are_refused_in_time(tmp_path: Path, content: bytes) -> None:
    assert outcome(tmp_path / "hall.yaml", content) is False


def command(name: str, path: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "edge_asd.cli", name, "-c", str(path)]
    return subprocess.run(arguments, capture_output=True, encoding="utf-8", timeout=60, check=False)


def refused_by_the_command(path: Path, seed: int, name: str) -> None:
    """No mutation can run: the detectors that the example names are not there."""
    path.write_bytes(mutation(seed))
    done = command(name, path)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, f"mutation {seed}: {said}"
    assert done.returncode == EXIT_CONFIGURATION, f"mutation {seed}: {said}"
    assert str(path) in said


@pytest.mark.parametrize("seed", range(3))
def test_the_command_refuses_with_its_status(tmp_path: Path, seed: int) -> None:
    refused_by_the_command(tmp_path / "hall.yaml", seed, "run")


@pytest.mark.system
@pytest.mark.parametrize(("name", "count"), [("run", 150), ("check", 10)])
def test_the_command_refuses_many_with_its_status(tmp_path: Path, name: str, count: int) -> None:
    for seed in range(20_000, 20_000 + count):
        refused_by_the_command(tmp_path / "hall.yaml", seed, name)
