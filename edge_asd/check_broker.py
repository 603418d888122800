"""Does the broker answer? A connection as the daemon makes it; with ``--publish`` a test message, too."""

from __future__ import annotations

from collections.abc import Iterator

from edge_asd.config import Config
from edge_asd.finding import Finding, State
from edge_asd.publish.probe import probe


def check_broker(config: Config, instance: str, *, publish: bool) -> Iterator[Finding]:
    """Connect, log in and leave; the client id is another than the daemon's, which may run meanwhile.

    Args:
        config: whose broker.
        instance: name of the daemon.
        publish: also send a test message and wait until the broker acknowledges it.
    """
    if config.mqtt is None:
        return
    place, settings = config.place("mqtt"), config.mqtt
    address = f"{settings.host}:{settings.port}"
    outcome = probe(settings, site=config.site, node=config.node, instance=instance, publish=publish)
    if outcome.is_connected and not publish:
        text = f"{address}: connected and logged in; --publish also sends a test message"
        yield Finding("broker", "ok", text if settings.tls is None else f"{text}; with TLS")
    else:
        for number, line in enumerate(outcome.lines, 1):
            is_good = number < len(outcome.lines) or outcome.is_heard
            state: State = "ok" if is_good else "warning" if outcome.is_taken else "failed"
            yield Finding("broker", state, line if is_good else f"{place}: {line}")
    if outcome.is_connected and settings.tls is None and settings.password_file is not None:
        hint = "the password goes over the network as it is; use mqtt.tls"
        yield Finding("broker", "warning", f"{place}: {address}: {hint}")
