"""Those who hold connections: idle, half-open, slow, garrulous; many of them. A scrape beside them is quick."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts.metrics_server import Served, read_all
from parts.waiting import until
from prometheus_client import Gauge

from edge_asd.publish import http_connection
from edge_asd.publish.metrics_server import MOST_CONNECTIONS

CROWD = 500
SCRAPE_SECONDS = 0.1
"""For the 99th percentile; or five times what it takes without a crowd, where the computer has other things to do."""


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture(autouse=True)
def descriptors_for_a_crowd() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * CROWD + 200:
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CROWD + 200, hard))


def scrape_seconds(served: Served, scrapes: int = 100) -> list[float]:
    """How long scrapes took, each on a connection of its own, in rising order."""
    took = []
    for _ in range(scrapes):
        began = time.perf_counter()
        status, _, body = served.get("/metrics")
        took.append(time.perf_counter() - began)
        assert status == 200 and b"edge_asd_build_info" in body
    return sorted(took)


def assert_quick(took: list[float], alone: list[float]) -> None:
    p99, p99_alone = (seconds[int(len(seconds) * 0.99) - 1] for seconds in (took, alone))
    assert p99 < max(SCRAPE_SECONDS, 5 * p99_alone), (took[-5:], alone[-5:])


def test_500_idle_connections(served: Served) -> None:
    alone = scrape_seconds(served)
    with contextlib.ExitStack() as crowd:
        peers = [crowd.enter_context(served.connect()) for _ in range(CROWD)]
        for number, peer in enumerate(peers):
            with contextlib.suppress(OSError):  # the first ones were closed already
                peer.sendall([b"", b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"][number % 3])
        assert_quick(scrape_seconds(served), alone)
        assert len(served.server._crowd) <= MOST_CONNECTIONS


def test_500_connections_that_come_again_and_again(served: Served) -> None:
    """Each that is closed is opened anew at once, by another process: a scrape has to queue, and gets in."""
    program = (
        "import select, socket, sys\n"
        "address = (sys.argv[1], int(sys.argv[2]))\n"
        f"peers = [socket.create_connection(address) for _ in range({CROWD})]\n"
        "print('there', flush=True)\n"
        "poll = select.poll()\n"
        "of = {}\n"
        "for p in peers: poll.register(p, select.POLLIN); of[p.fileno()] = p\n"
        "while True:\n"
        "    for number, _ in poll.poll():\n"
        "        poll.unregister(number); of.pop(number).close()\n"
        "        p = socket.create_connection(address)\n"
        "        poll.register(p, select.POLLIN); of[p.fileno()] = p\n"
    )
    command = [sys.executable, "-c", program, served.host, str(served.server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as crowd:
        try:
            assert crowd.stdout is not None and crowd.stdout.readline() == b"there\n"
            assert scrape_seconds(served, 10)[-1] < 5
        finally:
            crowd.kill()


def test_who_has_begun_a_request_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "REQUEST_SECONDS", 0.5)
    with Served() as served, served.connect() as silent, served.connect() as slow:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"GET /metrics HTTP/1.1\r\nHost: " + 100 * b"x":  # a byte now and then: slow loris
                slow.sendall(bytes([byte]))
                time.sleep(0.05)
        assert 0.4 < time.monotonic() - began < 2
        assert silent.recv(1) == b""
        assert served.get("/healthz")[0] == 200


def test_a_connection_serves_several_scrapes_and_is_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", 0.8)
    with Served() as served:
        connection = http.client.HTTPConnection(*served.address, timeout=5)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        first = connection.sock
        time.sleep(0.4)  # longer than a request may take, shorter than between two
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n" and connection.sock is first
        began = time.monotonic()
        first.sendall(b"GET /heal")  # what is begun must end as soon as if it were the first
        assert first.recv(1) == b"" and time.monotonic() - began < 0.7
        connection.close()


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    one = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = served.say(20 * (one % b"healthz" + one % b"metrics") + one % b"nothing" + one % b"healthz")
    kinds = [part.split(b" ", 1)[0] for part in answers.split(b"HTTP/1.1 ")[1:]]
    # After the 404 nothing is answered any more.
    assert kinds == 40 * [b"200"] + [b"404"]
    assert answers.count(b"\r\n\r\nok\n") == 20 and answers.count(b"edge_asd_build_info{") == 20


def test_an_endless_pipeline_leaves_others_their_turn(served: Served) -> None:
    alone = scrape_seconds(served, 50)
    program = (
        "import socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def read():\n"
        "    while s.recv(1 << 20): pass\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "print('there', flush=True)\n"
        "while True: s.sendall(200 * b'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
    )
    command = [sys.executable, "-c", program, served.host, str(served.server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hog:
        try:
            assert hog.stdout is not None and hog.stdout.readline() == b"there\n"
            assert_quick(scrape_seconds(served, 50), alone)
        finally:
            hog.kill()


def test_slow_readers_wait_alone_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "ANSWER_SECONDS", 1.0)
    with Served() as served, contextlib.ExitStack() as crowd:
        big = Gauge("edge_asd_big", "Many lines.", ["number"], registry=served.metrics.registry)
        for number in range(20_000):
            big.labels(str(number))
        assert len(served.get("/metrics")[2]) > 600_000
        readers = []
        for _ in range(MOST_CONNECTIONS + 10):  # they fill all places, and are all being answered
            reader = crowd.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(10)
            reader.connect(served.address)
            reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            readers.append(reader)
        assert served.get("/healthz")[0] == 200
        # One that hurries gets everything, the others are closed when their time is over.
        assert len(served.get("/metrics")[2]) > 600_000
        until(lambda: not served.server._crowd, "the end of the slow ones", 5)
        with contextlib.suppress(ConnectionResetError):
            assert len(read_all(readers[-1])) < 600_000


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"GET /" + 5000 * b"a" + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + 100_000 * b"a: b\r\n", b"431"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + 1_000_000 * b"x", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00 this is TLS", b"400"),
        (os.urandom(3) + b"\xff\r\n" + bytes(range(256)), b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n", b"505"),
    ],
)
def test_nonsense_is_answered_and_the_connection_closed(served: Served, words: bytes, status: bytes) -> None:
    answer = served.say(words)
    assert answer.startswith(b"HTTP/1.1 " + status + b" ") and b"\r\nConnection: close\r\n" in answer
    assert served.get("/healthz")[0] == 200
    assert served.log == []


def test_one_who_only_closes_its_own_half_is_answered(served: Served) -> None:
    with served.connect() as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer).endswith(b"\r\n\r\nok\n")


def test_peers_that_vanish_leave_nothing_behind(served: Served) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(300):
        peer = served.connect()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closed with a reset
        if number % 3:
            peer.sendall([b"", b"GET /metrics", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3])
        peer.close()
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) == before, "the end of all connections")
    assert served.get("/healthz")[0] == 200


def test_the_host_with_most_connections_makes_room(served: Served) -> None:
    with contextlib.ExitStack() as crowd:
        patient = crowd.enter_context(socket.create_connection(served.address, 5, ("127.0.0.3", 0)))
        until(lambda: served.server._crowd, "the first one")
        for _ in range(MOST_CONNECTIONS + 50):
            crowd.enter_context(served.connect())
        until(lambda: len(served.server._crowd) == MOST_CONNECTIONS, "all places taken")
        time.sleep(0.1)
        patient.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")  # the oldest of all, and still there
        assert read_all(patient).endswith(b"ok\n")


LOW_ON_DESCRIPTORS = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from parts.metrics_server import Served
served = Served()
here = max(int(name) for name in os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (here + 6, here + 6))
print(served.server.port, flush=True)
held = []
for line in sys.stdin:
    if line == "take\\n":
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
    elif line == "free\\n":
        for number in held:
            os.close(number)
        held.clear()
    seconds = sum(os.times()[:2])
    print(seconds, [l["event"] for l in served.log], flush=True)
"""


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    """With connections to close, they make room; with none, the thread waits for better times and does not spin."""
    tests = str(Path(__file__).parents[1])
    with (
        contextlib.ExitStack() as crowd,
        subprocess.Popen(
            [sys.executable, "-c", LOW_ON_DESCRIPTORS, tests], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        reads = process.stdout.readline

        def tell(word: str) -> tuple[float, str]:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            seconds, _, events = reads().partition(" ")
            return float(seconds), events

        address = ("127.0.0.1", int(reads()))

        def ask(peer: socket.socket) -> bytes:
            peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return read_all(peer)

        assert tell("go on")[1] == "[]\n"
        for _ in range(30):
            crowd.enter_context(socket.create_connection(address, 5))
        with socket.create_connection(address, 5) as peer:
            assert ask(peer).endswith(b"ok\n")
        assert tell("go on")[1] == "['metrics_no_descriptors']\n"

        crowd.close()
        time.sleep(0.1)
        before, _ = tell("take")
        with socket.create_connection(address, 5) as peer:
            peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            time.sleep(1)
            after, events = tell("go on")
            assert after - before < 0.3, f"{after - before} s of a second, to no avail"
            assert events == "['metrics_no_descriptors']\n"  # not again within the minute
            tell("free")
            assert read_all(peer).endswith(b"ok\n")
        process.stdin.close()
        assert process.wait(10) == 0
