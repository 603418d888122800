"""One connection of a peer that may be slow, silent, broken or hostile: whatever it does, nobody waits for it.

Each call of `Connection.go_on` goes as far as the peer lets it and says what to wait for. The handshake of TLS goes the
same way, so that a half-open one is just another silent peer.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from selectors import EVENT_READ, EVENT_WRITE

from edge_asd.publish.http_message import Answer, BadRequestError, Request, take_request

REQUEST_SECONDS = 5.0
"""From the first byte, or from the connection, to the end of a request's head; the handshake is within it."""
ANSWER_SECONDS = 10.0
"""For an answer to be fetched: as long as Prometheus waits for a scrape."""
IDLE_SECONDS = 90.0
"""For the next request on the same connection: longer than the usual minute from scrape to scrape."""
_FAREWELL_SECONDS = 1.0
"""For a peer to close after the last answer; closing before would throw away what it did not read yet."""
_READ_BYTES = 16_384
_WRITE_BYTES = 16_384
"""A record of TLS: a write that was cut short must be repeated as it was."""


class Stage(enum.Enum):
    """What a connection is about."""

    HANDSHAKE = enum.auto()
    READING = enum.auto()
    WRITING = enum.auto()
    LEAVING = enum.auto()
    """Said all it had to say."""
    CLOSED = enum.auto()


class _WouldBlockError(Exception):
    """The peer has to do something first."""

    def __init__(self, waits_for: int) -> None:
        self.waits_for = waits_for


class Connection:
    """From the accepted socket to its end."""

    def __init__(
        self,
        accepted: socket.socket,
        host: str,
        context: ssl.SSLContext | None,
        respond: Callable[[Request, str], Answer],
        now: float,
    ) -> None:
        """
        Args:
            accepted: is the connection's from now on.
            host: the peer's address.
            context: for TLS.
            respond: gives the answer to a request of a peer; must not wait.
            now: monotonic seconds.
        """
        self.host = host
        self.answers = 0
        """Given so far."""
        self.deadline = now + REQUEST_SECONDS
        self.waits_for = EVENT_READ
        self.stage = Stage.READING if context is None else Stage.HANDSHAKE
        self._respond = respond
        self._received = bytearray()
        self._to_send: list[memoryview] = []
        self._is_idle = False
        self._is_last = False
        accepted.setblocking(False)
        self._socket = accepted
        if context is not None:
            try:
                self._socket = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            except (OSError, ValueError):  # the peer is gone already
                accepted.close()
                self.stage = Stage.CLOSED

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def go_on(self, now: float) -> bool:
        """Go as far as the peer lets it; at most to the end of one answer, so that others have their turn.

        Args:
            now: monotonic seconds.

        Returns:
            Whether there may be more to do at once, without waiting for ``waits_for``.
        """
        try:
            if self.stage is Stage.HANDSHAKE:
                self._shake_hands()
            if self.stage is Stage.READING:
                self._read(now)
            if self.stage is Stage.WRITING:
                self._write(now)
            if self.stage is Stage.LEAVING:
                self._leave()
        except _WouldBlockError as blocked:
            self.waits_for = blocked.waits_for
            return False
        except OSError:  # the peer is gone, or does not speak TLS
            self.close()
        return self.stage is not Stage.CLOSED

    def close(self) -> None:
        """At once."""
        self.stage = Stage.CLOSED
        self._to_send.clear()
        self._socket.close()

    def _shake_hands(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            with _blocking_told(EVENT_READ):
                self._socket.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":  # say so in the peer's language, past the TLS
                plain = Answer(HTTPStatus.BAD_REQUEST, b"TLS is spoken here: https\n")
                with contextlib.suppress(OSError):
                    socket.socket.recv(self._socket, _READ_BYTES)  # closed with this unread, the answer would be lost
                    socket.socket.send(self._socket, plain.head(keeps_open=False) + plain.body)
            raise
        self.stage = Stage.READING

    def _read(self, now: float) -> None:
        """Until there is a request, and its answer."""
        try:
            while (request := take_request(self._received)) is None:
                if self._received and self._is_idle:
                    self._is_idle, self.deadline = False, now + REQUEST_SECONDS
                if not (received := self._receive()):
                    self.close()
                    return
                self._received += received
        except BadRequestError as bad:
            self._say(Answer(bad.status, f"{bad}\n".encode()), now, has_body=True, keeps_open=False)
            return
        answer = self._respond(request, self.host)
        # Strangers who are sent away keep no connection: each costs one of those there are.
        keeps_open = request.keeps_open and answer.status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
        self._say(answer, now, has_body=request.method != "HEAD", keeps_open=keeps_open)

    def _say(self, answer: Answer, now: float, *, has_body: bool, keeps_open: bool) -> None:
        self._is_last = not keeps_open
        self._to_send = [memoryview(answer.head(keeps_open=keeps_open))]
        if has_body and answer.body:
            self._to_send.append(memoryview(answer.body))
        self.deadline = now + ANSWER_SECONDS
        self.stage = Stage.WRITING

    def _write(self, now: float) -> None:
        while self._to_send:
            part = self._to_send[0]
            with _blocking_told(EVENT_WRITE):
                sent = self._socket.send(part[:_WRITE_BYTES])
            if sent < len(part):
                self._to_send[0] = part[sent:]
            else:
                del self._to_send[0]
        self.answers += 1
        if not self._is_last:
            self.stage, self.deadline, self._is_idle = Stage.READING, now + IDLE_SECONDS, True
            return
        self.stage, self.deadline = Stage.LEAVING, now + _FAREWELL_SECONDS
        if isinstance(self._socket, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._socket.unwrap()  # says goodbye; the peer's own is not waited for
        self._socket.shutdown(socket.SHUT_WR)

    def _leave(self) -> None:
        """Throw away what still comes, until the peer has read everything and closes."""
        for _ in range(8):
            if not self._receive():
                self.close()
                return

    def _receive(self) -> bytes:
        with _blocking_told(EVENT_READ):
            return self._socket.recv(_READ_BYTES)


class _blocking_told:  # noqa: N801 (reads as a statement)
    """Makes the many ways to say that the peer has to do something first into one."""

    def __init__(self, direction: int) -> None:
        self._direction = direction

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ssl.SSLWantReadError):
            raise _WouldBlockError(EVENT_READ)
        if isinstance(error, ssl.SSLWantWriteError):
            raise _WouldBlockError(EVENT_WRITE)
        if isinstance(error, BlockingIOError):
            raise _WouldBlockError(self._direction)
