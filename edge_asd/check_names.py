"""Do two daemons get into each other's way? Names that the broker tells them by, and the ports of their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path

from edge_asd.config import Config
from edge_asd.config_file import instance_name
from edge_asd.finding import Finding
from edge_asd.unit import why_no_unit

_NAMES_SHOWN = 5

_Named = tuple[Path, Config]


def check_names(given: Sequence[_Named], running: Sequence[_Named]) -> Iterator[Finding]:
    """Whether a unit can have each one's name, and nothing else goes by it at the broker.

    Args:
        given: configurations that were asked for.
        running: those of other daemons that run on this computer now.
    """
    for path, _ in given:
        wrong = why_no_unit(path)
        if wrong is not None:
            yield Finding("name", "failed", f"{path}: {wrong}")
    for (one, first), (other, second) in (*combinations(given, 2), *product(given, running)):
        if first.mqtt is not None and second.mqtt is not None and _publishes_beside(first, second):
            yield from _machines(first, other, second)
            yield from _instances(one, first, other)
    for (_, first), (other, second) in combinations(given, 2):
        yield from _ports(first, other, second)


def _publishes_beside(first: Config, second: Config) -> bool:
    """Whether both publish under the same site and node; a broker may have several ports."""
    assert first.mqtt is not None and second.mqtt is not None
    return (first.site, first.node, first.mqtt.host.lower()) == (second.site, second.node, second.mqtt.host.lower())


def _machines(config: Config, other: Path, second: Config) -> Iterator[Finding]:
    names = {machine.name for machine in second.machines}
    common = {number: m.name for number, m in enumerate(config.machines) if m.name in names}
    if common:
        shown = ", ".join([*common.values()][:_NAMES_SHOWN]) + (", ..." if len(common) > _NAMES_SHOWN else "")
        text = (
            f"{config.place('machines', min(common), 'name')}: {other} has the same site, node and {shown}: both would "
            f"publish under edge_asd/{config.site}/{config.node}/machine/…; give the machines or the node another name"
        )
        yield Finding("name", "failed", text)


def _instances(path: Path, config: Config, other: Path) -> Iterator[Finding]:
    name = instance_name(path)
    if name == instance_name(other):
        text = (
            f"{path}: {other} has the same site and node, and a name that is {name} to the broker as well: each would "
            "end the other's connection; give one of the files or the node another name"
        )
        yield Finding("name", "failed", text)


def _ports(config: Config, other: Path, second: Config) -> Iterator[Finding]:
    """A port that is in use now is told elsewhere."""
    if config.metrics is None or second.metrics is None or config.metrics.address[1] == 0:
        return
    (host, port), (other_host, other_port) = config.metrics.address, second.metrics.address
    if port == other_port and (host == other_host or {host, other_host} & {"0.0.0.0", "::"}):
        place, listen = config.place("metrics", "listen"), config.metrics.listen
        yield Finding("metrics", "failed", f"{place}: {listen} is that of {other} too; name another port")
