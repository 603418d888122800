"""How many cores a daemon may use for scoring: those that it is allowed to run on, or fewer."""

from __future__ import annotations

import os

from edge_asd.config import Config
from edge_asd.errors import ConfigurationError


def allowed_cores() -> int:
    """Cores that the kernel lets this process run on (``taskset``, ``CPUAffinity=`` of systemd, cpusets)."""
    return len(os.sched_getaffinity(0))


def scoring_cores(config: Config) -> int:
    """Cores that may be busy with scoring at once.

    Raises:
        ConfigurationError: the configuration wants more than there are; with the place.
    """
    allowed, wanted = allowed_cores(), config.scoring.cores
    if wanted is None:
        return allowed
    if wanted > allowed:
        raise ConfigurationError(
            f"{config.place('scoring', 'cores')}: {wanted} cores, but this process may run on {allowed}; "
            f"leave it out to use all, or allow more (CPUAffinity= of the systemd unit, taskset)"
        )
    return wanted
