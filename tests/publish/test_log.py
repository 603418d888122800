"""The log: whole lines, in order, and a reader that stalls stops nobody."""

from __future__ import annotations

import io
import json
import threading
import time

from edge_asd.publish.log import _MOST_WAITING, Log


class StalledPipe(io.StringIO):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def write(self, text: str) -> int:
        self.opened.wait(30)
        return super().write(text)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_in_order() -> None:
    stream = io.StringIO()
    log = Log(stream)
    for number in range(50):
        log("heard", "warning", number=number, odd="a\nb")
    log.close()
    assert [line["number"] for line in lines(stream)] == list(range(50))
    assert {(line["event"], line["level"], line["odd"]) for line in lines(stream)} == {("heard", "warning", "a\nb")}


def test_a_reader_that_stalls_stops_nobody_and_what_was_lost_is_counted() -> None:
    stream = StalledPipe()
    log = Log(stream)
    began = time.monotonic()
    extra = 500
    for number in range(_MOST_WAITING + extra):
        log("heard", number=number)
    assert time.monotonic() - began < 10
    stream.opened.set()
    deadline = time.monotonic() + 10
    while len(stream.getvalue().splitlines()) < _MOST_WAITING and time.monotonic() < deadline:
        time.sleep(0.01)
    log("after")
    log.close()
    told = lines(stream)
    lost = [line["lines"] for line in told if line["event"] == "lines_lost"]
    kept = sum(line["event"] == "heard" for line in told)
    assert len(lost) == 1 and kept + int(str(lost[0])) == _MOST_WAITING + extra
    assert told[-1]["event"] == "after"
