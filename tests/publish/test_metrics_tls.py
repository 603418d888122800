"""The metrics server over TLS: handshakes that never end, peers that speak something else, renewed certificates."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts.certificates import Authority
from parts.metrics_server import Served, read_all
from parts.waiting import until

from edge_asd.errors import ConfigurationError
from edge_asd.publish import http_connection, server_certificate
from edge_asd.publish.metrics_server import MOST_CONNECTIONS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("hall")


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
def served(issued: tuple[Path, Path]) -> Iterator[Served]:
    with serve(*issued) as served:
        yield served


def serve(certificate: Path, key: Path) -> Served:
    return Served(tls={"certificate": certificate, "key": key})


def shown(served: Served, authority: Authority) -> str:
    """Who the server says it is."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    with served.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
        certificate = peer.getpeercert()
    assert certificate
    return dict(pair[0] for pair in certificate["subject"])["commonName"]


def test_a_scrape(served: Served, trusting: ssl.SSLContext) -> None:
    status, headers, body = served.get("/metrics", tls=trusting)
    assert status == 200 and len(body) == int(headers["Content-Length"]) > 3000
    assert served.get("/healthz", tls=trusting)[2] == b"ok\n"


def test_a_long_answer_comes_whole(served: Served, trusting: ssl.SSLContext) -> None:
    for number in range(20_000):
        served.metrics.windows.labels(f"machine-{number}", "scored")
    with served.connect() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
            peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            time.sleep(0.3)  # the server has to stop and go on
            head, _, body = read_all(peer).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head and len(body) > 1_000_000
    assert b'machine="machine-19999"' in body


def test_500_handshakes_that_never_end(served: Served, trusting: ssl.SSLContext) -> None:
    def scrape_seconds() -> list[float]:
        took = []
        for _ in range(50):
            began = time.perf_counter()
            assert served.get("/metrics", tls=trusting)[0] == 200
            took.append(time.perf_counter() - began)
        return sorted(took)

    alone = scrape_seconds()
    with contextlib.ExitStack() as crowd:
        hello = client_hello(trusting)
        for number in range(500):
            peer = crowd.enter_context(served.connect())
            with contextlib.suppress(OSError):
                peer.sendall([b"", hello, hello[:50]][number % 3])  # silent; the server has answered; half a hello
        took = scrape_seconds()
        assert took[-2] < max(0.1, 5 * alone[-2]), took[-5:]
        assert len(served.server._crowd) <= MOST_CONNECTIONS


def test_a_handshake_has_an_end(
    monkeypatch: pytest.MonkeyPatch, issued: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    monkeypatch.setattr(http_connection, "REQUEST_SECONDS", 0.5)
    with serve(*issued) as served, served.connect() as silent, served.connect() as half:
        began = time.monotonic()
        half.sendall(client_hello(trusting))
        assert silent.recv(1) == b""
        with contextlib.suppress(ConnectionResetError):
            read_all(half)
        assert 0.4 < time.monotonic() - began < 2


def test_who_does_not_trust_the_certificate(served: Served, trusting: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        served.get("/metrics", tls=ssl.create_default_context())
    with served.connect() as plain, pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        trusting.wrap_socket(plain, server_hostname="another.plant-3")
    assert served.get("/healthz", tls=trusting)[0] == 200
    assert served.log == []


def test_old_versions_of_tls_are_refused(served: Served) -> None:
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        served.get("/healthz", tls=old)


def test_who_speaks_without_tls_is_told_so(served: Served, trusting: ssl.SSLContext) -> None:
    status, _, body = served.get("/metrics")
    assert (status, body) == (400, b"TLS is spoken here: https\n")
    for nonsense in (b"\x00" * 100, b"\xff" * 5000, b"\x16\x03\x01\xff\xff" + b"a" * 5000, b"SSH-2.0-x\r\n"):
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/1.1 2" not in served.say(nonsense)
    assert served.get("/healthz", tls=trusting)[0] == 200
    assert served.log == []


def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_certificate, "_LOOK_SECONDS", 0.0)
    certificate, key = tmp_path / "hall.pem", tmp_path / "hall.key"

    def put(name: str, *, with_key: bool = True) -> None:
        issued = authority.issue(name)
        for source, target in zip(issued, (certificate, key), strict=True):
            if with_key or target is certificate:
                shutil.copy(source, target.with_suffix(".new"))
                target.with_suffix(".new").replace(target)

    put("first")
    with serve(certificate, key) as served:
        assert shown(served, authority) == "first"
        put("second")
        assert shown(served, authority) == "second"
        put("third", with_key=False)  # not the whole of it: the former goes on, and it is told once
        assert shown(served, authority) == shown(served, authority) == "second"
        key.unlink()
        assert shown(served, authority) == shown(served, authority) == "second"
        put("fourth")
        assert shown(served, authority) == "fourth"
        events = [(line["event"], line.get("error")) for line in served.log]
        assert [event for event, _ in events] == [
            "metrics_certificate_renewed",
            "metrics_certificate_not_used",
            "metrics_certificate_not_used",
            "metrics_certificate_renewed",
        ]
        assert events[1][1] == "key values mismatch" and events[2][1] == f"{key}: No such file or directory"


def test_a_certificate_that_cannot_be_used(authority: Authority, issued: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = issued
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    locked = authority.issue("locked", passphrase="s3cret")  # must not be asked for at the terminal
    for pair, words in [
        ((tmp_path / "none.pem", key), "none.pem: No such file"),
        ((certificate, tmp_path), "Is a directory"),
        ((nonsense, key), "not a certificate and its key"),
        ((certificate, locked[1]), "or the key has a passphrase"),
        ((certificate, authority.issue("other")[1]), "key values mismatch"),
    ]:
        with pytest.raises(ConfigurationError, match=f"^metrics.tls: {pair[0]}, {pair[1]}: .*{words}"):
            serve(*pair)


def test_the_key_may_be_a_credential_of_systemd(
    monkeypatch: pytest.MonkeyPatch, issued: tuple[Path, Path], trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    shutil.copy(issued[1], tmp_path / "metrics.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with serve(issued[0], Path("/nowhere/metrics.key")) as served:
        assert served.get("/healthz", tls=trusting)[0] == 200


def test_stop_with_handshakes_under_way(issued: tuple[Path, Path], trusting: ssl.SSLContext) -> None:
    with serve(*issued) as served, served.connect() as peer:
        peer.sendall(client_hello(trusting))
        until(lambda: len(served.server._crowd) == 1, "the connection")
        began = time.monotonic()
        served.server.stop()
        assert time.monotonic() - began < 0.5


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()
