"""What a broker's answers mean, where a real broker cannot be made to do it at the right moment."""

from __future__ import annotations

import io
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from parts.waiting import until

from edge_asd.publish.delivery import Delivery
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.outbox_file import Message, OutboxFile

SUCCESS = ReasonCode(PacketTypes.PUBACK)


class Client:
    """As much of paho's client as `Delivery` uses; numbers its messages from 1, as each new one does."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []
        self.breaks_with: Delivery | None = None
        """The connection breaks while a message is written."""

    def publish(self, topic: str, text: str, qos: int, **options: Any) -> paho.MQTTMessageInfo:
        number = len(self.sent) + 1
        self.sent.append((number, topic))
        if self.breaks_with is not None:
            self.breaks_with.end()
        return paho.MQTTMessageInfo(number)

    def want_write(self) -> bool:
        return False

    def socket(self) -> object:
        return self


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "press.sqlite", log=Log(io.StringIO()), metrics=Metrics())
    outbox.open()
    yield outbox
    outbox.close()


@pytest.fixture
def delivery(outbox: Outbox) -> Delivery:
    return Delivery(outbox, log=Log(io.StringIO()), metrics=Metrics())


def put(outbox: Outbox, *topics: str) -> None:
    outbox.put([Message(str(uuid.uuid4()), topic, "{}", time.time()) for topic in topics], {})
    until(lambda: all(topic in outbox._stored._heads for topic in topics), "them on disk")


def begin(delivery: Delivery, client: Client, most: int = 65_535) -> None:
    delivery.begin(client, most)  # type: ignore[arg-type]
    delivery.speak()


def test_a_number_of_a_broken_connection_is_not_the_next_ones(outbox: Outbox, delivery: Delivery) -> None:
    """The soak found it: the answer to a score that had the number of an unsent alert was taken for the alert's."""
    put(outbox, "a/alert")
    first = Client()
    first.breaks_with = delivery
    begin(delivery, first)
    assert first.sent == [(1, "a/alert")] and outbox.unsent == 1
    put(outbox, "b/alert")
    second = Client()
    delivery.begin(second, 65_535)  # type: ignore[arg-type]
    delivery.score("a/score", "{}")
    assert not delivery.hear_answer(1, SUCCESS), "nothing was sent over this one"
    delivery.speak()
    assert [topic for _, topic in second.sent] == ["a/alert", "b/alert", "a/score"]
    assert not delivery.hear_answer(3, SUCCESS) and outbox.unsent == 2
    assert delivery.hear_answer(1, SUCCESS) and delivery.hear_answer(2, SUCCESS)
    assert outbox.unsent == 0 and delivery.is_done


def test_what_was_not_answered_goes_again_at_the_next_connection(outbox: Outbox, delivery: Delivery) -> None:
    put(outbox, "a/alert", "b/alert")
    first, second = Client(), Client()
    begin(delivery, first)
    assert delivery.hear_answer(1, SUCCESS)
    delivery.end()
    begin(delivery, second)
    assert [topic for _, topic in second.sent] == ["b/alert"]


def test_no_more_than_the_broker_takes(outbox: Outbox, delivery: Delivery) -> None:
    put(outbox, *(f"{n}/alert" for n in range(30)))
    client = Client()
    begin(delivery, client, most=7)
    assert len(client.sent) == 7
    assert delivery.hear_answer(1, SUCCESS)
    delivery.speak()
    assert len(client.sent) == 8
    delivery.end()
    client = Client()
    begin(delivery, client)
    assert len(client.sent) == 20


def test_states_and_scores_are_dropped_without_a_connection(delivery: Delivery) -> None:
    delivery.retain("a/state", "{}")
    delivery.score("a/score", "{}")
    client = Client()
    begin(delivery, client)
    assert not client.sent


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that it takes for each write."""
    store, seconds = OutboxFile.store, 0.3

    def slow(file: OutboxFile, *arguments: Any) -> int:
        time.sleep(seconds)
        return store(file, *arguments)

    monkeypatch.setattr(OutboxFile, "store", slow)
    return seconds


def test_an_alert_on_its_way_to_the_disk_is_still_to_be_said(
    outbox: Outbox, delivery: Delivery, slow_disk: float
) -> None:
    client = Client()
    begin(delivery, client)
    assert delivery.is_done
    outbox.put([Message(str(uuid.uuid4()), "a/alert", "{}", time.time())], {})
    while not client.sent:
        assert not delivery.is_done
        delivery.speak()
        time.sleep(0.01)
    assert delivery.hear_answer(1, SUCCESS)
    until(lambda: delivery.is_done, "the search for the next one", 5)


def test_a_state_comes_after_the_alert_that_it_tells_of_is_on_disk(
    outbox: Outbox, delivery: Delivery, slow_disk: float
) -> None:
    client = Client()
    begin(delivery, client)
    alert = Message(str(uuid.uuid4()), "a/alert", "{}", time.time())
    outbox.put([alert], {})
    delivery.retain("a/state", "{}", "a/alert")
    delivery.retain("b/state", "{}", "b/alert")
    delivery.speak()
    assert [topic for _, topic in client.sent] == ["b/state"] and not delivery.is_done
    until(lambda: outbox.has_kept("a/alert"), "the disk", 5)
    with sqlite3.connect(outbox.path) as reader:
        assert reader.execute("SELECT id FROM message").fetchall() == [(alert.id,)]
    reader.close()
    delivery.speak()
    assert [topic for _, topic in client.sent][1] == "a/state"


def test_a_disk_that_has_failed_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "press.sqlite").mkdir()
    outbox = Outbox(tmp_path / "press.sqlite", log=Log(io.StringIO()), metrics=Metrics())
    outbox.open()
    delivery, client = Delivery(outbox, log=Log(io.StringIO()), metrics=Metrics()), Client()
    outbox.put([Message(str(uuid.uuid4()), "a/alert", "{}", time.time())], {})
    assert not outbox.is_busy and not delivery.is_done, "it goes from memory"
    begin(delivery, client)
    delivery.retain("a/state", "{}", "a/alert")
    delivery.speak()
    assert [topic for _, topic in client.sent] == ["a/alert", "a/state"]
    assert delivery.hear_answer(1, SUCCESS) and delivery.hear_answer(2, SUCCESS) and delivery.is_done
    outbox.close()


def test_a_message_that_ends_every_connection_does_not_end_all_others(outbox: Outbox, delivery: Delivery) -> None:
    """Some brokers refuse a message by ending the connection."""
    put(outbox, "bad/alert", *(f"{n}/alert" for n in range(5)))
    delivered = 0
    for _ in range(12):
        client = Client()
        begin(delivery, client)
        answered = 0
        while answered < len(client.sent):
            number, topic = client.sent[answered]
            if topic == "bad/alert":
                break
            assert delivery.hear_answer(number, SUCCESS)
            answered += 1
            delivered += 1
            delivery.speak()
        else:
            break
        delivery.end()
    assert delivered == 5 and outbox.unsent == 1
    assert delivery._parked["bad/alert"].seconds >= 30 and set(delivery._parked) == {"bad/alert"}
