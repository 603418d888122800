"""Whether the metrics can be reached where the configuration says."""

from __future__ import annotations

from collections.abc import Iterator

from edge_asd.config import Config
from edge_asd.finding import Finding
from edge_asd.publish.metrics_listener import is_there, missing


def check_metrics(config: Config) -> Iterator[Finding]:
    """The address alone: the port may be in use by the daemon itself."""
    if config.metrics is None:
        return
    host, _ = config.metrics.address
    if is_there(host):
        yield Finding("metrics", "ok", f"/metrics on {config.metrics.listen}")
    else:
        yield Finding("metrics", "warning", f"{config.place('metrics', 'listen')}: {missing(host)}")
