"""A server for ``/metrics`` and ``/healthz`` that nobody can hold up: one thread, no connection is waited for.

Idle, half-open, slow and endless connections cost a descriptor each until their deadline, and there are at most
`MOST_CONNECTIONS`: one more closes the one that has waited longest, of the host that has most. So a scrape always gets
in.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from edge_asd.config_publish import MetricsSection
from edge_asd.errors import ConfigurationError
from edge_asd.publish.http_connection import Connection, Stage
from edge_asd.publish.http_crowd import Crowd
from edge_asd.publish.http_message import Answer, Request
from edge_asd.publish.log import Log
from edge_asd.publish.metrics_listener import NotNowError, listen
from edge_asd.publish.metrics_pages import Login, Pages
from edge_asd.publish.server_certificate import ServerCertificate
from edge_asd.secrets_file import read_secret

MOST_CONNECTIONS = 100
_ACCEPTED_AT_ONCE = 16
"""Then those that are there already have their turn."""
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_SECONDS = 5.0
"""Between attempts to get a port that another program has."""
_PAUSE_SECONDS = 0.25
"""Where not even closing a connection makes room for another: till it is tried again, lest the thread spin."""
_LOG_SECONDS = 60.0
"""Between lines of the same kind: what a stranger can cause must not fill the log."""
_FAREWELL_SECONDS = 2.0


class MetricsServer:
    """Serves until stopped."""

    def __init__(
        self, settings: MetricsSection, registry: CollectorRegistry, complaint: Callable[[], str | None], log: Log
    ) -> None:
        """
        Args:
            settings: of the configuration; with port 0 a free one is taken, see ``port``.
            registry: what ``/metrics`` shows.
            complaint: asked for ``/healthz``: what is wrong; None where all is well.
            log: told of a port that is open to everybody, of refused logins and of what should not happen.

        Raises:
            ConfigurationError: the address can never be listened on; password, certificate or key cannot be used. A
                port that another program has now, and a name that is not known yet, are waited for: the machines must
                be heard all the same.
        """
        self._log = log
        login = None
        if settings.username is not None and settings.password_file is not None:
            login = Login(settings.username, read_secret(settings.password_file, "metrics.password_file"))
        self._certificate = None if settings.tls is None else ServerCertificate(settings.tls, log)
        self._pages = Pages(registry, complaint, login)
        self._settings = settings
        self.port: int | None = None
        """None while it cannot be had."""
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket()  # bound to nothing, till there is another
        try:
            self._listen()
        except NotNowError as error:
            hint = f"tried again every {_RETRY_SECONDS:g} s; is the port another daemon's, the name misspelt?"
            log("metrics_not_served", "warning", error=str(error), hint=hint)
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._crowd = Crowd()
        self._unfinished: set[Connection] = set()
        self._accepts_again: float | None = None
        self._logged: dict[str, float] = {}
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections."""
        self._waker.close()
        if self._thread.ident is not None:
            self._thread.join(_FAREWELL_SECONDS)
        else:
            self._close()

    def _listen(self) -> None:
        listener = listen(self._settings, self._log)
        self._listener.close()
        self._listener, self.port = listener, listener.getsockname()[1]
        self._selector.register(listener, selectors.EVENT_READ)
        self._warn_if_open(self._settings)

    def _wait_for_port(self) -> bool:
        """Whether it was given in the end, and nobody said stop before."""
        while self.port is None:
            if self._selector.select(_RETRY_SECONDS):
                return False
            with contextlib.suppress(ConfigurationError):
                self._listen()
                self._log("metrics_served", "notice", port=self.port)
        return True

    def _serve(self) -> None:
        while self._wait_for_port():
            try:
                ready = [key.fileobj for key, _ in self._selector.select(self._patience())]
                if self._woken in ready:
                    break
                now = time.monotonic()
                turns = self._unfinished | {c for c in ready if isinstance(c, Connection)}
                for connection in turns:
                    self._go_on(connection, now)
                self._accept_if_due(now, self._listener in ready)
                for connection in self._crowd.overdue(now):
                    self._drop(connection)
            except Exception as error:  # whatever it is, the thread must live
                self._say("metrics_error", error=repr(error))
                time.sleep(_PAUSE_SECONDS)
        self._close()

    def _patience(self) -> float | None:
        """Seconds until something is due."""
        if self._unfinished:
            return 0.0
        due = [at for at in (self._crowd.first_deadline(), self._accepts_again) if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept_if_due(self, now: float, is_asked: bool) -> None:
        if self._accepts_again is not None:
            if now < self._accepts_again:
                return
            self._accepts_again = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif not is_asked:
            return
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._accept(now):
                return

    def _accept(self, now: float) -> bool:
        """One connection, if one has come.

        Returns:
            Whether another may have come.
        """
        try:
            accepted, (host, *_) = self._listener.accept()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS:
                return not isinstance(error, BlockingIOError)  # else one that is gone already
            if not self._is_asked():  # Linux says so before it looks whether anybody has come
                return False
            self._say("metrics_no_descriptors", error=error.strerror)
            if self._make_room():
                return True
            self._selector.unregister(self._listener)
            self._accepts_again = now + _PAUSE_SECONDS
            return False
        if len(self._crowd) >= MOST_CONNECTIONS:
            self._make_room()
        context = None if self._certificate is None else self._certificate.context()
        connection = Connection(accepted, host, context, self._respond, now)
        if connection.stage is not Stage.CLOSED:
            self._crowd.add(connection)
            self._selector.register(connection, connection.waits_for, connection)
            self._go_on(connection, now)  # its request has often come with it
        return True

    def _is_asked(self) -> bool:
        looking = select.poll()
        looking.register(self._listener, select.POLLIN)
        return bool(looking.poll(0))

    def _make_room(self) -> bool:
        """Close the connection that will be missed least, if there is one."""
        connection = self._crowd.missed_least()
        if connection is not None:
            self._drop(connection)
        return connection is not None

    def _go_on(self, connection: Connection, now: float) -> None:
        waited_for, descriptor, answers = connection.waits_for, connection.fileno(), connection.answers
        try:
            may_do_more = connection.go_on(now)
            if connection.answers > answers:
                self._crowd.add(connection)
            if may_do_more:
                self._unfinished.add(connection)
                return
        except Exception as error:  # whatever it is, the other connections go on
            self._say("metrics_error", error=repr(error))
            connection.close()
        self._unfinished.discard(connection)
        if connection.stage is Stage.CLOSED:
            self._selector.unregister(descriptor)
            self._crowd.remove(connection)
        elif connection.waits_for != waited_for:
            self._selector.modify(connection, connection.waits_for)

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection)
        self._unfinished.discard(connection)
        self._crowd.remove(connection)
        connection.close()

    def _respond(self, request: Request, host: str) -> Answer:
        try:
            if self._pages.is_refused(request):
                self._say("metrics_login_refused", peer=host)
            return self._pages.answer(request)
        except Exception as error:  # a metric that cannot be read: the others, next time
            self._say("metrics_error", error=repr(error))
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"this failed; the log says why\n")

    def _say(self, event: str, **fields: object) -> None:
        now = time.monotonic()
        if now - self._logged.get(event, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[event] = now
            self._log(event, "warning", **fields)

    def _warn_if_open(self, settings: MetricsSection) -> None:
        if ipaddress.ip_address(self._listener.getsockname()[0].partition("%")[0]).is_loopback:
            return
        if settings.username is None:
            hint = "everybody who reaches this port can read; give username and password_file, and tls"
        elif settings.tls is None:
            hint = "the password crosses the network unencrypted; give tls"
        else:
            return
        self._log("metrics_open", "warning", listen=settings.listen, hint=hint)

    def _close(self) -> None:
        for connection in self._crowd:
            connection.close()
        self._listener.close()
        self._woken.close()
        with contextlib.suppress(OSError):
            self._selector.close()
