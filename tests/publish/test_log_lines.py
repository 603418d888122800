"""One event is one line in every form, whatever its fields hold; the journal is told the priority."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.publish.journal import Level, error_line, is_journal
from edge_asd.publish.log import Log
from edge_asd.publish.log_line import Form, line_format, plain

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
HOSTILE = [
    "two\nlines", "a\r\nb", "\x1b[31mred\x1b]0;title\x07", "nul\x00", "\x7f", "\x85", "\x9b2J", "a\u2028b\u2029c",
    "\udcff.wav", "\ud800", "\u202eevil", "\ufeff", "\U000e0001", '"', "\\", "a=b", "", " ", "<3>", "x" * 100_000,
]  # fmt: skip


class Odd:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def written(form: Form, fields: Mapping[str, Any], level: Level = "warning", event: str = "heard") -> str:
    stream = io.StringIO()
    log = Log(stream, form=form)
    log(event, level, **fields)
    log.close()
    return stream.getvalue()


def is_one_line(text: str) -> bool:
    return text.endswith("\n") and text[:-1].isprintable() and len(text.encode()) <= 40_000


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_breaks_a_line(form: Form, value: str) -> None:
    for fields in ({"name": value}, {"alert": {value: [value]}}, {"error": str(OSError(2, value, value))}):
        line = written(form, fields)
        assert is_one_line(line), ascii(line[:500])
        if form == "json" and len(value) < 1000:
            assert {k: v for k, v in json.loads(line).items() if k in fields} == fields, "and nothing is lost"


@settings(max_examples=40, deadline=None)
@given(value=st.recursive(st.text() | st.floats() | st.integers() | st.binary(), lambda s: st.lists(s)), name=st.text())
def test_nothing_breaks_a_line(value: Any, name: str) -> None:
    for form in ("text", "json"):
        for journal in (True, False):
            line = line_format(form, is_journal=journal)("heard", "info", plain({name: value, "machine": name}))
            assert is_one_line(line), ascii(line)
            assert form == "text" or json.loads(line.removeprefix("<6>"), parse_constant=pytest.fail)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "value",
    [
        Odd(),
        [Odd()],
        10**6000,
        float("nan"),
        (endless := [1], endless.append(endless))[0],  # type: ignore[func-returns-value,arg-type]
        {f"key {n}": "long " * 700 for n in range(200)},
        {"k" * 50_000: 1},
        {(1, 2): {3}, None: b"\xff"},
    ],
    ids=range(8),
)
def test_what_json_cannot_hold_is_a_line_all_the_same(form: Form, value: Any) -> None:
    line = written(form, {"machine": "rail-7", "odd": value})
    assert is_one_line(line), ascii(line[:500])
    assert "rail-7" in line


def test_json_is_an_object_with_numbers_as_numbers() -> None:
    fields = {"whole": 3, "part": 0.25, "numpy": np.float32(0.5), "count": np.int64(7), "none": None, "yes": True}
    line = written("json", fields)
    found = json.loads(line)
    assert list(found) == ["time", "level", "event", *fields]
    assert re.fullmatch(TIME, found["time"]) and (found["level"], found["event"]) == ("warning", "heard")
    assert [found[k] for k in fields] == [3, 0.25, 0.5, 7, None, True]
    assert [type(found[k]) for k in ("numpy", "count", "yes")] == [float, int, bool]


def test_text_is_to_be_read() -> None:
    line = written("text", {"machine": "rail-7", "seconds": 1.5, "reason": "no sound yet", "books": {"a": [1]}})
    assert re.fullmatch(TIME + r' warning heard machine=rail-7 seconds=1\.5 reason="no sound yet" '
                        r'books=\{"a":\[1\]\}\n', line), line  # fmt: skip


@pytest.mark.parametrize(("level", "number"), [("error", 3), ("warning", 4), ("notice", 5), ("info", 6)])
def test_the_journal_gets_the_priority_and_no_time(level: Level, number: int) -> None:
    assert line_format("text", is_journal=True)("heard", level, {"machine": "a"}) == f"<{number}>heard machine=a\n"
    head, brace, rest = line_format("json", is_journal=True)("heard", level, {}).partition("{")
    assert head == f"<{number}>" and json.loads(brace + rest)["level"] == level


SPEAKS = """
import os, sys
from edge_asd.publish.journal import error_line
from edge_asd.publish.log import Log
def name(stream):
    found = os.fstat(stream.fileno())
    return f"{found.st_dev}:{found.st_ino}"
os.environ["JOURNAL_STREAM"] = {"out": name(sys.stdout), "other": "1:2", "none": ""}[sys.argv[1]]
log = Log(form="text")
log("heard", "error", machine="a")
log.close()
print(error_line("it is broken", sys.stderr), file=sys.stderr)
"""


@pytest.mark.parametrize("journal", ["out", "other", "none"])
def test_the_journal_is_known_by_its_stream(journal: str) -> None:
    """`systemd-run -p StandardOutput=file:...` leaves $JOURNAL_STREAM as it is: only the stream itself tells."""
    done = subprocess.run([sys.executable, "-c", SPEAKS, journal], capture_output=True, text=True, check=True)
    assert re.fullmatch("<3>heard machine=a\n" if journal == "out" else TIME + " error heard machine=a\n", done.stdout)
    assert done.stderr == "edge-asd: it is broken\n", "standard error is another stream"


def test_people_get_text_and_programs_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(stream: TextIO, form: Form | None = None) -> None:
        monkeypatch.setenv("JOURNAL_STREAM", journal)
        log = Log(stream, form=form)
        log("heard", machine="a")
        log.close()

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, (tmp_path / "file").open("w+") as file:
        found = os.fstat(file.fileno())
        journal = "0:0"
        write(terminal)
        assert os.read(ours, 1000).decode().endswith(" info heard machine=a\r\n")
        write(file)
        journal = f"{found.st_dev}:{found.st_ino}"
        write(file)
        write(file, "json")
        file.seek(0)
        in_file, in_journal, asked_for = file.readlines()
    os.close(ours)
    assert json.loads(in_file)["event"] == "heard" and in_journal == "<6>heard machine=a\n"
    assert json.loads(asked_for.removeprefix("<6>"))["machine"] == "a"


def test_an_error_in_the_journal_is_an_error_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journal(stream) and not is_journal(io.StringIO()) and not is_journal(None)
        assert error_line("bad\x1b[2J\u2028name", stream) == "<3>edge-asd: bad\\u001b[2J\\u2028name"
    assert not is_journal(stream), "it is closed"


ENDS = """
import sys
from edge_asd.publish import log as log_module
from edge_asd.publish.log import Log
log = Log(form="json")
sys.stdin.read(1)
for number in range(3000):
    log("heard", number=number, text="x" * 100)
log.close()
"""


def test_a_reader_that_has_gone_costs_neither_words_nor_the_exit_status() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait(20)) == (b"", 0)


def test_a_reader_that_stalls_for_ever_costs_neither_words_nor_the_exit_status() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDS.replace("log.close", "log_module._FAREWELL_SECONDS = 0.2\nlog.close")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.close()
        assert (process.stderr.read(), process.wait(20)) == (b"", 0)
        assert process.stdout.readline().startswith(b'{"time"')


def test_no_standard_output_at_all_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, ENDS],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_error_and_is_told_of_when_there_is_room(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full, (tmp_path / "log").open("w") as room:
        log = Log(full)
        for number in range(50):
            log("heard", number=number)
        deadline = 200
        while log._dropped < 50 and (deadline := deadline - 1):
            log._writer.join(0.01)
        os.dup2(room.fileno(), full.fileno())
        log("after")
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["event"], line.get("lines")) for line in lines] == [("lines_lost", 50), ("after", None)]


def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    """Another process at its end may have made it so, for both."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as read:
        log = Log(stream)
        for number in range(2000):
            log("heard", number=number, text="x" * 100)
        found = [json.loads(read.readline())["number"] for _ in range(2000)]
        log.close()
    assert found == list(range(2000))


TEARS = """
import resource, sys
from edge_asd.publish.log import Log
log = Log()
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (130, limits[1]))
log("first")
log("second", text="x" * 100)
while not log._dropped:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
log("third")
log.close()
"""


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        subprocess.run([sys.executable, "-c", TEARS], stdout=stream, check=True, timeout=20)
    first, torn, lost, third = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in (first, lost, third)] == ["first", "lines_lost", "third"]
    assert torn.startswith('{"time"') and len(first) + 1 + len(torn) == 130
