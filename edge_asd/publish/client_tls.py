"""TLS to the broker, as the configuration wants it; what cannot be used is named, with its key and its file."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_asd.config_publish import TlsSection
from edge_asd.errors import ConfigurationError
from edge_asd.publish.server_certificate import reason_in_words
from edge_asd.secrets_file import find_secret, why_missing, why_unreadable


def client_tls(settings: TlsSection) -> ssl.SSLContext:
    """What a connection to the broker is made with.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """
    if settings.ca is not None:
        _read("ca", settings.ca, settings.ca)
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _unusable("ca", settings.ca, reason_in_words(error)) from None
    if settings.certificate is None or settings.key is None:
        return context
    key = find_secret(settings.key)
    _read("certificate", settings.certificate, settings.certificate)
    _read("key", key, settings.key)
    try:
        # A key with a passphrase would make OpenSSL ask at the terminal, and wait.
        context.load_cert_chain(settings.certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise _unusable("certificate", f"{settings.certificate}, {key}", reason_in_words(error)) from None
    return context


def _read(name: str, place: Path, said: Path) -> None:
    """OpenSSL's errors name no file."""
    try:
        with place.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        raise _unusable(name, place, why_missing(said) if name == "key" else "no such file") from None
    except OSError as error:
        raise _unusable(name, place, why_unreadable(error)) from None


def _unusable(name: str, place: object, reason: str) -> ConfigurationError:
    return ConfigurationError(f"mqtt.tls: a certificate or key cannot be used: mqtt.tls.{name}: {place}: {reason}")
