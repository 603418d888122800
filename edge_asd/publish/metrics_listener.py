"""Where the metrics are served: the listening socket, also on an address that this computer does not have yet."""

from __future__ import annotations

import errno
import os
import socket

from edge_asd.config_publish import MetricsSection
from edge_asd.errors import ConfigurationError
from edge_asd.publish.log import Log

_BACKLOG = 1024
"""Connections at once must not wait for a second SYN, which comes after a second."""
_SEND_BUFFER_BYTES = 65_536
"""Of the kernel, for each connection: unless told it takes up to 4 MB of an answer that is not fetched."""
_IP_FREEBIND = 15
"""Of ip(7)."""


class NotNowError(ConfigurationError):
    """Another program has the port, or nobody knows the name: that may pass."""


def listen(settings: MetricsSection, log: Log) -> socket.socket:
    """Listen, without waiting for anybody.

    A computer may get its address after the daemon has started (DHCP, a cable that is plugged in): that must not end
    it. It listens all the same, and is reached once the address is there.

    Args:
        settings: of the configuration.
        log: told of an address that is not there.

    Raises:
        NotNowError: another program has the port, or nobody knows the name.
        ConfigurationError: it is not allowed, or no name at all.
    """
    host, port = settings.address
    try:
        try:
            listener = bound(host, port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            listener = bound(host, port, is_there=False)
            log("metrics_address_missing", "warning", listen=settings.listen, hint=missing(host))
    except (OSError, UnicodeError) as error:
        # A network that comes up late knows no names yet.
        passes = isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRINUSE
        kind = NotNowError if passes else ConfigurationError
        raise kind(f"metrics.listen: {host}:{port}: {in_words(error)}") from None
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # those accepted inherit it
    return listener


def in_words(error: Exception) -> str:
    """Why nobody can listen there."""
    # Python adds the address to the system's words; those of a name that is not known have a negative number.
    number = getattr(error, "errno", None) or 0
    if number == errno.EACCES:
        return f"{os.strerror(number)}: ports below 1024 are for root; take another, such as 9464"
    return os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)


def is_there(host: str) -> bool:
    """Whether this computer has an address now."""
    try:
        bound(host, 0).close()
    except (OSError, UnicodeError) as error:
        return getattr(error, "errno", None) != errno.EADDRNOTAVAIL
    return True


def missing(host: str) -> str:
    """What that means."""
    return f"this computer does not have the address {host} now: nobody reaches the metrics until it does"


def bound(host: str, port: int, *, is_there: bool = True) -> socket.socket:
    """Listens.

    Args:
        host: address or name of this computer.
        port: 0 is any that is free.
        is_there: whether the address must be this computer's now.

    Raises:
        OSError: nobody can listen there.
        UnicodeError: the name is none.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        if not is_there:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
