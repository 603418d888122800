"""Downloads from a server that breaks off, lies, and is slow: resumed, checked, given up with one clear line."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from edge_asd_train.download import FetchError, Patience, RemoteFile, check_space, download, read_json
from edge_asd_train.zenodo import read_record
from parts.waiting import free_port, until
from parts.zenodo import Fault, Zenodo

QUICK = Patience(attempts=3, first_wait_seconds=0.01, timeout_seconds=0.3)
CONTENT = os.urandom(3_000_000)


@pytest.fixture
def zenodo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zenodo]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Zenodo() as server:
        server.add_record(7, {"a.zip": CONTENT})
        yield server


@pytest.fixture
def remote(zenodo: Zenodo) -> RemoteFile:
    return read_record(7, zenodo.url, QUICK).file("a.zip")


def ranges(zenodo: Zenodo) -> list[str | None]:
    return [asked for _, asked in zenodo.downloads()]


def test_a_file_and_its_progress(
    zenodo: Zenodo, remote: RemoteFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert re.search(r"a\.zip: 100%.* 3\.00M/3\.00M \[", capsys.readouterr().err)
    assert ranges(zenodo) == [None] and not list(tmp_path.glob("*.part"))
    # It is there: nothing is asked for again. Damaged, it is fetched anew.
    download(remote, tmp_path / "a.zip", QUICK)
    assert len(ranges(zenodo)) == 1
    (tmp_path / "a.zip").write_bytes(CONTENT[:-1])
    download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_what_breaks_off_is_resumed(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path) -> None:
    # Four times, more than the attempts there are; each brought a good piece.
    zenodo.faults.extend(Fault(break_off_after=n) for n in (1_100_000, 1_100_000, 10))
    zenodo.faults.append(Fault(break_off_after=1_000, hang=threading.Event()))
    download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(zenodo) == [None, "bytes=1100000-", "bytes=2200000-", "bytes=2200010-", "bytes=2201010-"]


def test_a_server_without_ranges_sends_all_again(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    zenodo.faults.append(Fault(no_ranges=True))
    download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and ranges(zenodo) == ["bytes=1000-"]


def test_another_range_than_asked_for_is_not_taken(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    zenodo.faults.append(Fault(shift=5))
    download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and ranges(zenodo) == ["bytes=1000-", "bytes=1000-"]


def test_a_login_page_does_not_cost_what_is_there(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    zenodo.faults.extend(Fault(page=b"<html>log in</html>") for _ in range(3))
    with pytest.raises(FetchError, match="the server offers 19 bytes where the record says 3000000, 3 times in a row"):
        download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    ("part", "asked"),
    [
        (CONTENT, []),  # whole, only not renamed yet
        (CONTENT + b"more", [None]),
        (b"other" + CONTENT[5:2000], ["bytes=2000-", None]),  # of another version: the checksum tells
    ],
)
def test_parts_that_are_no_beginning(
    zenodo: Zenodo, remote: RemoteFile, tmp_path: Path, part: bytes, asked: list[str | None]
) -> None:
    (tmp_path / "a.zip.part").write_bytes(part)
    download(remote, tmp_path / "a.zip", QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and ranges(zenodo) == asked


def test_a_file_shorter_than_its_record_is_given_up(remote: RemoteFile, tmp_path: Path) -> None:
    longer = replace(remote, size=remote.size + 10)
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    with pytest.raises(FetchError, match=r"content: the server answers 416 .* 3 times in a row"):
        download(longer, tmp_path / "a.zip", QUICK)
    assert not (tmp_path / "a.zip").exists()


def test_a_wrong_checksum_is_deleted_and_tried_once_more(
    zenodo: Zenodo, remote: RemoteFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zenodo.faults.append(Fault(damage=True))
    download(remote, tmp_path / "a.zip", QUICK)
    assert "it is deleted, and downloaded from its start once more" in capsys.readouterr().err
    zenodo.faults.extend([Fault(damage=True), Fault(damage=True), Fault()])
    with pytest.raises(FetchError, match=rf"a\.zip/content: the md5 .* {remote.digest}.* for the second time"):
        download(remote, tmp_path / "b.zip", QUICK)
    assert not list(tmp_path.glob("b.zip*"))


def test_a_busy_server_is_asked_again(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path) -> None:
    zenodo.faults.extend([Fault(status=500), Fault(status=429, retry_after="0")])
    download(remote, tmp_path / "a.zip", QUICK)
    assert len(ranges(zenodo)) == 3
    zenodo.faults.extend(Fault(status=503) for _ in range(9))
    with pytest.raises(FetchError, match="the server answers 503 Service Unavailable, 3 times in a row"):
        download(remote, tmp_path / "b.zip", QUICK)
    assert len(zenodo.faults) == 6


def test_what_no_attempt_can_change_is_said_at_once(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path) -> None:
    gone = replace(remote, url=f"{zenodo.url}/nowhere")
    with pytest.raises(FetchError, match=r"/nowhere: the server answers 404 Not Found: is it still on"):
        download(gone, tmp_path / "a.zip", QUICK)
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    with pytest.raises(FetchError, match="is no http or https address"):
        download(replace(remote, url=secret.as_uri()), tmp_path / "a.zip", QUICK)


def test_no_network(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/x"
    with pytest.raises(FetchError, match=rf"{url}: cannot be reached \(Connection refused\), 3 times .*https_proxy"):
        read_json(url, QUICK)


@pytest.mark.parametrize("url", ["zenodo.org", "", "http://", "http://[::1", "http://:port/", "http://127.0.0.1/a b"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(FetchError, match="^" + re.escape(url[:10])):
        read_json(url, QUICK)


def test_a_full_disk_names_the_part(remote: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(FetchError, match=r"a\.zip\.part: No space left on device: make room"):
        download(remote, tmp_path / "a.zip", QUICK)
    with pytest.raises(FetchError, match=r"the set needs about 1000000000\.0 GB, and [\d.]+ GB are free: make room"):
        check_space(tmp_path, 10**18, "the set")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_download_goes_on(zenodo: Zenodo, remote: RemoteFile, tmp_path: Path, sent: signal.Signals) -> None:
    hang = threading.Event()
    zenodo.faults.append(Fault(break_off_after=1_234_567, hang=hang))
    program = (
        "import sys, pathlib; from edge_asd_train.download import *; "
        "download(RemoteFile('a.zip', sys.argv[1], int(sys.argv[2]), 'md5', sys.argv[3]), pathlib.Path('a.zip'), "
        "Patience())"
    )
    command = [sys.executable, "-c", program, remote.url, str(remote.size), remote.digest]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    part = tmp_path / "a.zip.part"
    until(lambda: part.exists() and part.stat().st_size == 1_234_567, "the part")
    process.send_signal(sent)
    process.wait()
    hang.set()
    download(remote, tmp_path / "a.zip", QUICK)
    assert hashlib.md5((tmp_path / "a.zip").read_bytes()).hexdigest() == remote.digest
    assert ranges(zenodo) == [None, "bytes=1234567-"]
