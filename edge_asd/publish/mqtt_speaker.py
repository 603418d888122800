"""Who has something to say over a connection to the broker, as the connection knows it."""

from __future__ import annotations

from typing import Protocol

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode


class Speaker(Protocol):
    """Whoever speaks over the connection; all is called on the connection's thread."""

    @property
    def is_stuck(self) -> bool:
        """The broker owes answers for so long that it must be taken for dead."""

    @property
    def is_done(self) -> bool:
        """Nothing is left to be said or answered."""

    def begin(self, client: paho.Client, most_unanswered: int) -> None:
        """A connection was made, to a broker that takes so many unanswered messages."""

    def speak(self) -> None:
        """Send what there is."""

    def hear_answer(self, number: int, reason: ReasonCode) -> bool:
        """The broker answered to a message of ours; False if it is not known."""

    def end(self) -> None:
        """The connection is gone."""
