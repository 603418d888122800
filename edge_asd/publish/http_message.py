"""As much of HTTP/1.1 as a scrape needs: one request from bytes, one answer to bytes; nothing here waits for a peer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

LONGEST_TARGET = 2048
"""Bytes of path and query; longer is 414."""
LONGEST_HEAD = 8192
"""Bytes of request line and headers; longer is 431."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.(\d)")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class BadRequestError(Exception):
    """What a peer sent can only be answered with an error, and nothing that follows it can be understood."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Request:
    """One request, its body aside."""

    method: str
    path: str
    """Without the query, not decoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in small letters; repeated ones joined with commas."""
    keeps_open: bool = True
    """Whether another one may follow on the same connection."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and body."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beyond those that every answer has."""

    def head(self, *, keeps_open: bool) -> bytes:
        """Status line and headers, to stand before the body."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            f"Connection: {'keep-alive' if keeps_open else 'close'}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def take_request(received: bytearray) -> Request | None:
    """Take the first request off what was received.

    Args:
        received: what came and was not taken yet; loses what is taken.

    Returns:
        None while the head is not complete.

    Raises:
        BadRequestError: it is none, or too long. The connection is of no more use.
    """
    del received[: len(received) - len(received.lstrip(b"\r\n"))]  # RFC 9112, 2.2: empty lines before a request
    if received and not _TOKEN.match(chr(received[0])):
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "this is not HTTP")
    end = _END_OF_HEAD.search(received, 0, LONGEST_HEAD)
    if end is None:
        line_end = received.find(b"\n")
        if (len(received) if line_end < 0 else line_end) > LONGEST_TARGET + 64:
            raise BadRequestError(HTTPStatus.REQUEST_URI_TOO_LONG, f"a path has at most {LONGEST_TARGET} bytes")
        if len(received) >= LONGEST_HEAD:
            raise BadRequestError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has at most {LONGEST_HEAD} bytes"
            )
        if line_end >= 0:
            _read_request_line(received[:line_end].decode("latin-1").removesuffix("\r"))  # nonsense need not end
        return None
    first, *lines = received[: end.start()].decode("latin-1").replace("\r\n", "\n").split("\n")
    del received[: end.end()]
    method, target, minor = _read_request_line(first)
    headers = _read_headers(lines)
    if minor and "host" not in headers:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "HTTP/1.1 needs the header Host")
    has_body = headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in headers
    closes = "close" in headers.get("connection", "").lower() or not minor
    return Request(method, _path(target), headers, keeps_open=not (closes or has_body))


def _read_request_line(line: str) -> tuple[str, str, int]:
    """Method, target, and the second number of HTTP/1.x."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "this is not HTTP")
    if match[3] != "1":
        raise BadRequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
    if len(match[2]) > LONGEST_TARGET:
        raise BadRequestError(HTTPStatus.REQUEST_URI_TOO_LONG, f"a path has at most {LONGEST_TARGET} bytes")
    return match[1], match[2], int(match[4])


def _read_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # A space before the colon or a folded line is how a request is smuggled past a proxy: RFC 9112, 5.1 and 5.2.
        if not colon or _TOKEN.fullmatch(name) is None or "\r" in value or "\0" in value:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "a header is not NAME: VALUE")
        name, value = name.lower(), value.strip(" \t")
        if name in ("host", "content-length") and name in headers:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, f"{name} is there twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "content-length is not a number")
    return headers


def _path(target: str) -> str:
    """Of ``/path?query`` or ``http://host/path?query``, as a proxy is asked."""
    absolute = re.match(r"https?://[^/?]*", target, re.IGNORECASE)
    return (target[absolute.end() :] if absolute else target).partition("?")[0] or "/"
