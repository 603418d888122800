"""The connections there are, in the order in which they can be done without."""

from __future__ import annotations

from collections.abc import Iterator

from edge_asd.publish.http_connection import Connection, Stage


class Crowd:
    """Knows whose deadline is over, and who is missed least."""

    def __init__(self) -> None:
        self._of_host: dict[str, dict[Connection, None]] = {}
        """By the peer's address; which has waited longest for a request comes first."""

    def __len__(self) -> int:
        return sum(len(of_host) for of_host in self._of_host.values())

    def __iter__(self) -> Iterator[Connection]:
        """All of them; whoever changes the crowd meanwhile makes a list first."""
        return (connection for of_host in self._of_host.values() for connection in of_host)

    def add(self, connection: Connection) -> None:
        """As the one that has waited for the shortest time; one that is here already begins to wait anew."""
        of_host = self._of_host.setdefault(connection.host, {})
        of_host.pop(connection, None)
        of_host[connection] = None

    def remove(self, connection: Connection) -> None:
        """It was closed."""
        of_host = self._of_host[connection.host]
        del of_host[connection]
        if not of_host:
            del self._of_host[connection.host]

    def missed_least(self) -> Connection | None:
        """Not one that is being answered, if there is another; of the host that has most, which has waited longest.

        So a host that fills all places pushes out its own connections, and no other's.
        """
        hosts = sorted(self._of_host.values(), key=len, reverse=True)
        waiting = (c for of_host in hosts for c in of_host if c.stage is not Stage.WRITING)
        return next(waiting, None) or next((c for of_host in hosts for c in of_host), None)

    def first_deadline(self) -> float | None:
        """Monotonic seconds."""
        return min((connection.deadline for connection in self), default=None)

    def overdue(self, now: float) -> list[Connection]:
        """Whose deadline is over; ``now`` in monotonic seconds."""
        return [connection for connection in self if connection.deadline <= now]
