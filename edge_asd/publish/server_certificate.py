"""The certificate of a TLS server: renewed on disk, it is used from the next connection on."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from edge_asd.config_publish import ServerTlsSection
from edge_asd.errors import ConfigurationError
from edge_asd.publish.log import Log
from edge_asd.secrets_file import find_secret, why_unreadable

_LOOK_SECONDS = 1.0
"""Between looks at the files."""


class ServerCertificate:
    """Gives the context for a handshake."""

    def __init__(self, settings: ServerTlsSection, log: Log) -> None:
        """
        Raises:
            ConfigurationError: certificate or key cannot be used.
        """
        self._settings, self._log = settings, log
        self._stamp, self._context = server_tls(settings)
        self._looked_at = time.monotonic()

    def context(self) -> ssl.SSLContext:
        """With the newest certificate that can be used; one that cannot is told of once, and the former one goes on."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look()
        return self._context

    def _look(self) -> None:
        stamp: object = None
        try:
            stamp = _stamp_of_files(self._settings)
            if stamp == self._stamp:
                return
            self._context = _load(self._settings)
            self._log("metrics_certificate_renewed", certificate=str(self._settings.certificate))
        except (OSError, ValueError) as error:
            # Two files are not replaced at one moment: the next look may find both.
            if stamp != self._stamp:
                self._log(
                    "metrics_certificate_not_used",
                    "warning",
                    files=_names(self._settings),
                    error=reason_in_words(error),
                )
        self._stamp = stamp


def server_tls(settings: ServerTlsSection) -> tuple[object, ssl.SSLContext]:
    """What the files are like, to see when they are replaced, and the context made of them.

    Raises:
        ConfigurationError: certificate or key cannot be used.
    """
    try:
        return _stamp_of_files(settings), _load(settings)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(f"metrics.tls: {_names(settings)}: {reason_in_words(error)}") from None


def reason_in_words(error: Exception) -> str:
    """OpenSSL's own words, where it has any, without the numbers of its source; for a missing file, which."""
    if isinstance(error, ssl.SSLError):
        if not error.reason:
            return "not a certificate and its key in PEM form, or the key has a passphrase"
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError):
        reason = why_unreadable(error)
        return f"{error.filename}: {reason}" if isinstance(error.filename, str | Path) else reason
    return str(error)


def _load(settings: ServerTlsSection) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A key with a passphrase would make OpenSSL ask at the terminal, and wait.
    context.load_cert_chain(settings.certificate, find_secret(settings.key), password=lambda: "")
    return context


def _stamp_of_files(settings: ServerTlsSection) -> object:
    states = [path.stat() for path in (settings.certificate, find_secret(settings.key))]
    return [(state.st_ino, state.st_size, state.st_mtime_ns) for state in states]


def _names(settings: ServerTlsSection) -> str:
    return f"{settings.certificate}, {find_secret(settings.key)}"
