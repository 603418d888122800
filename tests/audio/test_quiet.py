"""Standard error without PortAudio's debugging aids, and with everything else: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

FIRST = "import os, sys, time\nfrom edge_asd.audio.quiet import filter_standard_error\nfilter_standard_error()\n"


def standard_error(script: str) -> tuple[int, list[str]]:
    ended = subprocess.run([sys.executable, "-c", FIRST + script], capture_output=True, text=True, timeout=30)
    assert not ended.stdout
    return ended.returncode, ended.stderr.splitlines()


def test_complaints_of_the_sound_system_are_dropped_and_others_pass():
    status, lines = standard_error(
        "os.write(2, b\"Expression 'r' failed in 'x.c', line: 1\\nmalloc(): corrupted\\n\")\n"
        "os.write(2, b'ALSA lib pcm.c:1: no such thing\\nan Expression of another kind\\n')\n"
        "time.sleep(0.5)\n"
    )
    assert (status, lines) == (0, ["malloc(): corrupted", "an Expression of another kind"])


def test_a_complaint_in_pieces_is_dropped_whole():
    _, lines = standard_error(
        "for piece in (b'Expre', b\"ssion 'r' fail\", b'ed\\nsome', b'thing\\n'):\n"
        "    os.write(2, piece); time.sleep(0.05)\n"
        "time.sleep(0.3)\n"
    )
    assert lines == ["something"]


def test_a_thousand_complaints_hold_up_nobody():
    status, lines = standard_error(
        "for _ in range(20_000): os.write(2, b\"Expression 'r' failed in 'x.c', line: 1\\n\")\n"
        "os.write(2, b'done\\n'); time.sleep(0.5)\n"
    )
    assert (status, lines) == (0, ["done"])


def test_what_python_writes_arrives_even_at_the_end():
    status, lines = standard_error("print('last words', file=sys.stderr, end='')\nos._exit(3)")
    assert (status, lines) == (3, [])  # not flushed, as ever
    status, lines = standard_error("print('Expression \\'of mine', file=sys.stderr)\nos._exit(3)")
    assert (status, lines) == (3, ["Expression 'of mine"])
    status, lines = standard_error("print('no newline', file=sys.stderr, end='')")
    assert (status, lines) == (0, ["no newline"])


def test_a_traceback_arrives_and_so_does_that_of_a_thread():
    status, lines = standard_error("raise ValueError('what went wrong')")
    assert status == 1 and lines[0].startswith("Traceback") and lines[-1] == "ValueError: what went wrong"
    status, lines = standard_error("import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()")
    assert status == 0 and lines[-1] == "ZeroDivisionError: division by zero"


def test_the_last_words_of_a_library_arrive():
    assert standard_error("os.write(2, b'last words\\n')") == (0, ["last words"])
    assert standard_error("os.write(2, b'no newline')") == (0, ["no newline"])
    status, lines = standard_error("os.abort()")
    assert status == -6 and lines[0] == "Fatal Python error: Aborted"


def test_a_reader_that_is_gone_holds_up_nobody():
    script = FIRST + (
        "for _ in range(5000): os.write(2, b'a line that nobody reads any more, and that is long enough\\n')\n"
        "print('done')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stderr.close()
        assert process.stdout.read() == b"done\n"
        process.wait(20)
