"""One file over HTTP: what is there already is kept, what breaks off is resumed, and a checksum decides in the end."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tqdm import tqdm

from edge_asd import __version__
from edge_asd.errors import EdgeAsdError

_CHUNK = 1 << 16
_PROGRESS = 1 << 20
"""An attempt that brought so many bytes does not count as failed: a link that drops each minute still gets there."""
_LONGEST_WAIT_SECONDS = 60.0
_LARGEST_DOCUMENT = 10_000_000
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_GO_ON = "What is downloaded is kept, and the same command goes on from there"


class FetchError(EdgeAsdError):
    """Something cannot be downloaded, or what came cannot be used."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    attempts: int = 6
    """In a row that brought next to nothing; then it is given up."""
    first_wait_seconds: float = 1.0
    """After the first failure; doubled after each further one, to a minute at most."""
    timeout_seconds: float = 30.0
    """For connecting, and for the next bytes."""


@dataclass(frozen=True)
class RemoteFile:
    """A file, and what it must be."""

    name: str
    url: str
    size: int
    """Bytes."""
    algorithm: str
    """A name that hashlib knows, for example md5."""
    digest: str
    """Hexadecimal, lower case."""


class _TransientError(Exception):
    """This attempt failed in a way that the next may not."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def read_json(url: str, patience: Patience) -> Any:
    """The JSON document at an address.

    Raises:
        FetchError: it cannot be reached, is not there, or is no JSON.
    """
    for failures in range(1, patience.attempts + 1):
        try:
            with _opened(url, patience) as response:
                text = response.read(_LARGEST_DOCUMENT)
            break
        except _TransientError as why:
            _wait(url, why, failures, patience)
    try:
        return json.loads(text)
    except ValueError:
        raise FetchError(f"{url}: does not answer with JSON: is it Zenodo, or a login page before it?") from None


def download(remote: RemoteFile, target: Path, patience: Patience) -> None:
    """Download a file, going on with ``TARGET.part`` where there is one; prints a bar.

    ``target`` appears only when it is whole and its checksum is right; one that is there already and right is kept.

    Raises:
        FetchError: it cannot be had, or its checksum was wrong twice.
    """
    part = part_of(target)
    if target.exists():
        if _digest(target, remote.algorithm) == remote.digest:
            return
        _say(f"{target}: its {remote.algorithm} is not the record's; it is downloaded anew")
        target.unlink()
    for last in (False, True):
        _fill(remote, part, patience)
        if _digest(part, remote.algorithm) == remote.digest:
            part.replace(target)
            return
        part.unlink()
        wrong = f"{remote.url}: the {remote.algorithm} of what came is not the record's {remote.digest}; it is deleted"
        if not last:
            _say(f"{wrong}, and downloaded from its start once more")
    raise FetchError(f"{wrong}, for the second time: the copy there is damaged, or something on the way changes it")


def part_of(target: Path) -> Path:
    """What is there of a file until it is whole."""
    return target.with_name(target.name + ".part")


def bytes_there(target: Path) -> int:
    """How much of a file has been downloaded."""
    for path in (target, part_of(target)):
        if path.is_file():
            return path.stat().st_size
    return 0


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what will not fit on the disk.

    Raises:
        FetchError: less than ``needed`` bytes are free where ``folder`` lies.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder}: {what} needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: make room, or take "
            "another disk"
        )


def _fill(remote: RemoteFile, part: Path, patience: Patience) -> None:
    """Make the part as long as the file."""
    part.touch()
    failures = 0
    with tqdm(
        desc=remote.name,
        total=remote.size,
        initial=min(part.stat().st_size, remote.size),
        unit="B",
        unit_scale=True,
        # In a log, a line each half a minute.
        mininterval=0.1 if sys.stderr.isatty() else 30.0,
    ) as bar:
        while (before := part.stat().st_size) != remote.size:
            if before > remote.size:  # of some other file
                part.unlink()
                before = 0
            try:
                _append(remote, part, before, patience, bar)
            except _TransientError as why:
                came = part.stat().st_size - before if part.exists() else 0
                part.touch()
                failures = 0 if came >= _PROGRESS else failures + 1
                _wait(remote.url, why, failures, patience)


def _append(remote: RemoteFile, part: Path, start: int, patience: Patience, bar: tqdm[Any]) -> None:
    with _opened(remote.url, patience, start) as response:
        first, whole = _what_comes(response)
        if whole not in (None, remote.size):  # a login page, say: what is there of the file must survive it
            raise _TransientError(f"the server offers {whole} bytes where the record says {remote.size}")
        if first is None or first not in (0, start):
            raise _TransientError("the server sent another part than was asked for")
        start = first  # 0 where the server knows no ranges and sends all of it
        bar.update(start - bar.n)
        with _open(part, "ab" if start else "wb") as file:
            there = start
            while there < remote.size:
                # What has come, be it less: of a slow link nothing is lost when it breaks off.
                piece = response.read1(min(_CHUNK, remote.size - there))
                if not piece:
                    raise _TransientError("the server broke off")
                _write(file, piece, part)
                there += len(piece)
                bar.update(len(piece))


def _what_comes(response: http.client.HTTPResponse) -> tuple[int | None, int | None]:
    """Where in the file an answer's body begins, and how long the whole file is; None for what it does not say."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _open(part: Path, mode: str) -> BinaryIO:
    try:
        # Unbuffered: what was received is there, however this process ends.
        return cast(BinaryIO, part.open(mode, buffering=0))
    except OSError as error:
        raise _cannot_write(part, error) from None


def _write(file: BinaryIO, piece: bytes, part: Path) -> None:
    left = memoryview(piece)
    try:
        while left:  # a disk that is almost full takes a part of it
            left = left[file.write(left) :]
    except OSError as error:
        raise _cannot_write(part, error) from None


def _cannot_write(part: Path, error: OSError) -> FetchError:
    return FetchError(f"{part}: {error.strerror}: make room or choose another folder. {_GO_ON}")


@contextmanager
def _opened(url: str, patience: Patience, start: int = 0) -> Iterator[http.client.HTTPResponse]:
    """An answer of the server, from a byte on; whatever fails while it is read is told apart here too."""
    if not re.match("https?://", url):  # a record must not make us read files of this machine
        raise FetchError(f"{url}: is no http or https address")
    headers = {"User-Agent": f"edge-asd/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=patience.timeout_seconds) as response:
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in _TRANSIENT or (error.code == 416 and start):
            asked = error.headers.get("Retry-After", "")
            raise _TransientError(answer, float(asked) if asked.isdecimal() else 0.0) from None
        hint = "is it still on the record's page?" if error.code in (404, 410) else "try it in a browser"
        raise FetchError(f"{url}: {answer}: {hint}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise FetchError(
                f"{url}: its certificate is not trusted ({error.reason.verify_message}): is the clock right, and are "
                "this machine's certificates up to date?"
            ) from None
        if isinstance(error.reason, OSError):
            raise _TransientError(f"cannot be reached ({error.reason.strerror or error.reason})") from None
        raise FetchError(f"{url}: {error.reason}") from None
    except (OSError, http.client.IncompleteRead) as error:  # time-outs, resets
        raise _TransientError(f"the connection broke off ({error})") from None
    except (http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{url}: no answer that can be read ({error})") from None


def _wait(url: str, why: _TransientError, failures: int, patience: Patience) -> None:
    """Wait before the next attempt.

    Raises:
        FetchError: there have been enough.
    """
    if failures >= patience.attempts:
        raise FetchError(
            f"{url}: {why}, {failures} times in a row: is there a network, and does it need a proxy "
            f"(https_proxy)? {_GO_ON}"
        ) from None
    seconds = min(max(patience.first_wait_seconds * 2 ** max(failures - 1, 0), why.wait_seconds), _LONGEST_WAIT_SECONDS)
    _say(f"{url}: {why}; again in {seconds:g} s")
    time.sleep(seconds)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
