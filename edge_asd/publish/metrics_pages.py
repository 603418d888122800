"""What is answered to a request: ``/metrics``, ``/healthz``, or why not. Who asks must know the password, if any.

Rendering takes the interpreter from the threads that listen and score: 10 microseconds a line, so 60 to 90 ms for a
hundred machines of two detectors, during which a thread that wakes waits 5 ms more, and 25 ms at most (measured).
So what was rendered is given again for five times as long as the rendering took: however often it is asked for, no more
than a fifth of a core goes into it, and with few machines what is seen is no older than some milliseconds.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from edge_asd.publish.http_message import Answer, Request

_SHARED_FOR = 5
"""So many times as long as it took to render is a rendering given again."""
_WORTH_COMPRESSING = 1024
"""Bytes: less fits into one packet as it is."""
_OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Login:
    """Whom to answer."""

    username: str
    password: str

    def is_known(self, authorization: str) -> bool:
        """Whether a header ``Authorization`` says name and password, in a time that does not tell how nearly."""
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        expected = f"{self.username}:{self.password}".encode()
        return scheme.lower() == "basic" and hmac.compare_digest(sha256(given).digest(), sha256(expected).digest())


@dataclass
class _Rendered:
    """The registry as it was, for some moments."""

    content_type: str
    plain: bytes
    until: float
    """Monotonic seconds."""
    packed: bytes | None = None


class Pages:
    """Answers requests; used by one thread."""

    def __init__(
        self, registry: CollectorRegistry, complaint: Callable[[], str | None], login: Login | None = None
    ) -> None:
        """
        Args:
            registry: what ``/metrics`` shows.
            complaint: asked for ``/healthz``: what is wrong; None where all is well.
            login: without it everybody is answered.
        """
        self._registry, self._complaint, self._login = registry, complaint, login
        self._rendered: dict[bool, _Rendered] = {}

    def is_refused(self, request: Request) -> bool:
        """Whether somebody gave a wrong name or password, which is news; nobody's giving none is not."""
        given = request.headers.get("authorization")
        return self._login is not None and given is not None and not self._login.is_known(given)

    def answer(self, request: Request) -> Answer:
        """Whatever is asked. The body is there for HEAD too: whoever sends it leaves it out."""
        if self._login is not None and not self._login.is_known(request.headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="edge_asd", charset="UTF-8"'}
            return Answer(HTTPStatus.UNAUTHORIZED, b"name and password, please\n", headers=challenge)
        if request.path not in ("/metrics", "/healthz"):
            return Answer(HTTPStatus.NOT_FOUND, b"/metrics and /healthz are here\n")
        if request.method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET or HEAD, please\n", headers={"Allow": "GET, HEAD"})
        return self._metrics(request) if request.path == "/metrics" else self._health()

    def _health(self) -> Answer:
        wrong = self._complaint()
        status = HTTPStatus.OK if wrong is None else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, f"{wrong or 'ok'}\n".encode(), headers={"Cache-Control": "no-store"})

    def _metrics(self, request: Request) -> Answer:
        rendered = self._render(_wants_open_metrics(request.headers.get("accept", "")))
        headers = {"Vary": "Accept, Accept-Encoding", "Cache-Control": "no-store"}
        body = rendered.plain
        if len(body) > _WORTH_COMPRESSING and _takes_gzip(request.headers.get("accept-encoding", "")):
            if rendered.packed is None:
                # The lowest level: a twentieth of the size in 1 ms; higher ones take four times as long for a fifth.
                rendered.packed = gzip.compress(body, 1, mtime=0)
            body, headers = rendered.packed, {**headers, "Content-Encoding": "gzip"}
        return Answer(HTTPStatus.OK, body, rendered.content_type, headers)

    def _render(self, open_metrics: bool) -> _Rendered:
        begun = time.monotonic()
        rendered = self._rendered.get(open_metrics)
        if rendered is None or begun >= rendered.until:
            encode, content_type = choose_encoder(_OPEN_METRICS if open_metrics else "")
            plain = encode(self._registry)
            now = time.monotonic()
            rendered = _Rendered(content_type, plain, now + _SHARED_FOR * (now - begun))
            self._rendered[open_metrics] = rendered
        return rendered


def _wants_open_metrics(accept: str) -> bool:
    """What `choose_encoder` says, of two forms: each further version and escaping would be rendered by itself."""
    try:
        return choose_encoder(accept)[1].startswith("application/openmetrics-text")
    except Exception:  # it stumbles over versions that are none
        return False


def _takes_gzip(accept_encoding: str) -> bool:
    for offer in accept_encoding.lower().split(","):
        name, _, weight = offer.partition(";")
        if name.strip() == "gzip":
            return re.fullmatch(r"q=0(\.0*)?", weight.replace(" ", "")) is None
    return False
