"""A server on this machine that answers like Zenodo's API, and misbehaves when asked to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What is wrong with one answer."""

    status: int | None = None
    """Answered instead."""
    retry_after: str | None = None
    break_off_after: int | None = None
    """Bytes of the body; then the connection is closed."""
    no_ranges: bool = False
    """The whole file, whatever was asked for."""
    shift: int = 0
    """The range that is sent begins so many bytes late."""
    page: bytes | None = None
    """Sent with status 200 in place of the file, as a hotel's network does."""
    damage: bool = False
    """The last byte is another."""
    hang: threading.Event | None = None
    """Nothing more is sent until it is set, after ``break_off_after`` bytes."""


@dataclass
class Zenodo:
    """Records and files; start it with ``with``."""

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    faults: deque[Fault] = field(default_factory=deque)
    """Of the next answers that are files, first one first."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request."""

    def add_record(
        self, number: int, files: Mapping[str, bytes], licence: Any = "cc-by-nc-sa-4.0", **metadata: Any
    ) -> None:
        """Publish files in the form of today's API."""
        entries = []
        for name, content in files.items():
            path = f"/api/records/{number}/files/{name}/content"
            self.files[path] = content
            entries.append(
                {
                    "key": name,
                    "size": len(content),
                    "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                    "links": {"self": self.url + path},
                }
            )
        metadata = {"title": f"Record {number}", "license": {"id": licence}} | metadata
        self.records[number] = {"id": number, "metadata": metadata, "files": entries}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self) -> list[tuple[str, str | None]]:
        """Name and Range of every request for a file."""
        return [(path.split("/")[-2], asked) for path, asked in self.asked if "/files/" in path]

    def __enter__(self) -> Zenodo:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def zipped(files: Mapping[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    """A zip archive; ``change`` may alter what it says of a file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            change(info)
            archive.writestr(info, content)
    return made.getvalue()


def _handler(zenodo: Zenodo) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            zenodo.asked.append((path, self.headers.get("Range")))
            record = re.fullmatch(r"/api/records/(\d+)", path)
            if record and int(record[1]) in zenodo.records:
                self._send(200, json.dumps(zenodo.records[int(record[1])]).encode())
            elif path in zenodo.files:
                self._send_file(zenodo.files[path], zenodo.faults.popleft() if zenodo.faults else Fault())
            else:
                self._send(404, b"")

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in ({"Content_Length": str(len(body))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client that was killed
                self.wfile.write(body)

        def _send_file(self, content: bytes, fault: Fault) -> None:
            if fault.status:
                self._send(fault.status, b"", **({"Retry_After": fault.retry_after} if fault.retry_after else {}))
                return
            if fault.page is not None:
                self._send(200, fault.page)
                return
            if fault.damage:
                content = content[:-1] + bytes([content[-1] ^ 1])
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked is None or fault.no_ranges:
                status, start, headers = 200, 0, {}
            else:
                status, start = 206, int(asked[1]) + fault.shift
                if start >= len(content):
                    self._send(416, b"", Content_Range=f"bytes */{len(content)}")
                    return
                headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            body = content[start:]
            if fault.break_off_after is None:
                self._send(status, body, **headers)
                return
            self._send(status, body[: fault.break_off_after], **headers, Content_Length=str(len(body)))
            self.wfile.flush()
            if fault.hang:
                fault.hang.wait(20)

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    return Handler
