"""A program: a subscriber that writes down what it hears.

It hears at QoS 0, and so writes nothing back. With QoS 1 a killed broker resets the connection over answers that it did
not read, paho then drops what it has received, and the broker that had it forgets it: their loss, not the sender's.

    python ledger.py PORT TOPIC FILE

Lines of FILE: ``subscribed``, or topic and payload with a tab between.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    port, topic, path = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    with path.open("a", buffering=1) as ledger:

        def hear(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
            ledger.write(f"{message.topic}\t{message.payload.decode()}\n")

        client = paho.Client(CallbackAPIVersion.VERSION2, "ledger", protocol=paho.MQTTv5)
        client.on_message = hear
        client.on_connect = lambda client, *_: client.subscribe(topic, qos=0)
        client.on_subscribe = lambda *_: ledger.write("subscribed\n")
        while True:
            with contextlib.suppress(OSError):
                client.connect("127.0.0.1", port)
                while client.loop(1.0) == paho.MQTT_ERR_SUCCESS:
                    pass
            time.sleep(0.02)


if __name__ == "__main__":
    main()
