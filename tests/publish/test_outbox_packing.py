"""Payloads in the outbox's file: small, whole, and none is taken for whole that is not."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
import uuid
import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_asd.publish.outbox import MOST_BYTES
from edge_asd.publish.outbox_file import Message, OutboxFile
from edge_asd.publish.outbox_packing import pack, unpack

EXAMPLE = Path(__file__).parents[2] / "deploy" / "integration.md"
TOPIC = "edge_asd/plant-3/press-hall-1/machine/slide-rail-7/alert"


def alert(chance: random.Random) -> str:
    """As the daemon makes them: the example of the documentation with two detectors, and other figures."""
    (text,) = re.findall(r"```json\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    document = json.loads(text)
    document["detectors"] += [dict(document["detectors"][0], name="slide-rail.anogan.onnx", kind="anogan")]

    def other(match: re.Match[str]) -> str:
        return "".join(str(chance.randrange(1, 10)) if c.isdigit() else c for c in match[0])

    figures = re.sub(r"-?\d+\.\d+|\d{2}:\d{2}:\d{2}\.\d{3}", other, json.dumps(document))
    incident = str(uuid.UUID(int=chance.getrandbits(128)))
    return figures.replace(document["incident"], incident).replace(
        document["id"], str(uuid.UUID(int=chance.getrandbits(128)))
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=5000))
def test_what_was_packed_is_what_is_unpacked(text: str) -> None:
    assert unpack(pack(text)) == text


def test_what_is_damaged_is_none_or_a_text_that_the_checksum_refuses() -> None:
    packed = pack(alert(random.Random(1)))
    unpacked = set()
    for position in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[position // 8] ^= 1 << position % 8
        unpacked.add(unpack(bytes(damaged)))
    assert None in unpacked and all(isinstance(text, str | None) for text in unpacked)
    assert [unpack(packed[:size]) for size in range(len(packed))] == [None] * len(packed)
    assert unpack(packed + b"x") is unpack(None) is unpack(7) is None


def test_a_damaged_row_does_not_fill_the_memory() -> None:
    assert unpack(pack("0" * 50_000_000)) is None


def test_the_file_holds_so_many_alerts_as_it_is_said_to(tmp_path: Path) -> None:
    bound, chance, held = 2_000_000, random.Random(2), 0
    file = OutboxFile(tmp_path / "press.sqlite", bound)
    while not file.losses.full:
        held = file.waiting()
        texts = [alert(chance) for _ in range(50)]
        file.store([Message(json.loads(t)["id"], TOPIC, t, time.time()) for t in texts], {}, {})
    assert held * MOST_BYTES / bound > 85_000
    oldest = file.oldest(TOPIC)
    assert oldest is not None and json.loads(oldest[1].payload)["event"] == "raised"
    file.close()


def test_a_file_of_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "press.sqlite"
    file = OutboxFile(path, MOST_BYTES)
    file.store([Message("1", TOPIC, "plain", time.time()), Message("2", TOPIC, "packed", time.time())], {}, {})
    file.close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE message SET payload = 'plain', checksum = ? WHERE id = '1'",
            [zlib.crc32("\0".join(["1", TOPIC, "plain"]).encode())],
        )
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    file = OutboxFile(path, MOST_BYTES)
    first = file.oldest(TOPIC)
    assert first is not None and first[1].payload == "plain"
    second = file.oldest(TOPIC, after=first[0])
    assert second is not None and second[1].payload == "packed" and file.losses.corrupt == 0
    file.close()


def test_a_row_is_damaged_whatever_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "press.sqlite"
    file = OutboxFile(path, MOST_BYTES)
    columns = {"id": "other", "payload": pack("other"), "created": 1.0, "checksum": 7}
    file.store([Message(f"{n}", TOPIC, "text", time.time()) for n, _ in enumerate(columns)], {}, {})
    with sqlite3.connect(path) as connection:
        for number, (column, value) in enumerate(columns.items(), start=1):
            connection.execute(f"UPDATE message SET {column} = ? WHERE number = ?", [value, number])
    connection.close()
    assert file.oldest(TOPIC) is None and file.losses.corrupt == len(columns)
    file.close()
