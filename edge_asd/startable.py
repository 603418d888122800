"""What a start refuses beyond a configuration's words and its detectors: recordings, secrets, certificates, a group.

Whoever is told that a reload needs a restart does that, and must not be left without a daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from edge_asd.audio.recording import find_recordings
from edge_asd.config import Config
from edge_asd.config_types import dotted
from edge_asd.errors import ConfigurationError, EdgeAsdError
from edge_asd.publish.client_tls import client_tls
from edge_asd.publish.evidence import evidence_group
from edge_asd.publish.server_certificate import server_tls
from edge_asd.secrets_file import are_credentials_seen, read_secret

_Key = tuple[str | int, ...]


def verify_startable(config: Config) -> None:
    """Look for what a start would use; nothing is kept of it.

    Args:
        config: as read by `edge_asd.config_file.load_config`.

    Raises:
        ConfigurationError: one line for each thing that cannot be used, with its place in the configuration.
    """
    lines = []
    for key, use in _used(config):
        try:
            use()
        except EdgeAsdError as error:
            lines.append(f"{config.place(*key)}: {str(error).removeprefix(f'{dotted(key)}: ')}")
    if lines:
        raise ConfigurationError("\n".join(lines))


def _used(config: Config) -> Iterator[tuple[_Key, Callable[[], object]]]:
    """Each by its key, with how it is used: by the feeds, the clients of the broker, the metrics' server, evidence."""
    for number, machine in enumerate(config.machines):
        if machine.recordings is not None:
            yield ("machines", number, "recordings"), partial(find_recordings, [machine.recordings])
    if config.evidence is not None:
        yield ("evidence", "group"), partial(evidence_group, config.evidence)
    mqtt, metrics = config.mqtt, config.metrics
    if not are_credentials_seen():  # the daemon, which sees them, is asked next
        if mqtt is not None and mqtt.tls is not None:
            public = mqtt.tls.model_copy(update={"certificate": None, "key": None})
            yield ("mqtt", "tls"), partial(client_tls, public)
        return
    for name, section in (("mqtt", mqtt), ("metrics", metrics)):
        if section is not None and section.password_file is not None:
            yield (name, "password_file"), partial(read_secret, section.password_file, f"{name}.password_file")
    if mqtt is not None and mqtt.tls is not None:
        yield ("mqtt", "tls"), partial(client_tls, mqtt.tls)
    if metrics is not None and metrics.tls is not None:
        yield ("metrics", "tls"), partial(server_tls, metrics.tls)
